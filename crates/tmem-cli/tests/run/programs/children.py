"""A parent with a large table, and a pool of forked children that read and change their copies."""

import hashlib
import multiprocessing
import subprocess
import sys

table = {number: "value %d " % number * 4 for number in range(150_000)}


def work(part):
    for number in range(part, 150_000, 50):
        table[number] = table[number].upper()
    digest = hashlib.sha256()
    for number in range(0, 150_000, 11):
        digest.update(table[number].encode())
    return digest.hexdigest()


if __name__ == "__main__":
    multiprocessing.set_start_method("fork")
    with multiprocessing.Pool(3) as pool:
        for line in pool.map(work, range(6), chunksize=6):
            print(line)
    said = subprocess.run([sys.executable, "-c", "print('child')"], capture_output=True, check=True).stdout
    print(said.decode().strip(), work(0))
