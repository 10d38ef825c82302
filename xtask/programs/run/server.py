"""A Redis server: fills it, asks it, saves it in the background, prints a digest of all. Argument: thousands of keys."""
import os, random, socket, subprocess, sys, tempfile, time

rng = random.Random(17)
keys = int(sys.argv[1]) * 1000
words = ["".join(rng.choice("etaoinshrdlu") for _ in range(rng.randrange(3, 9))) for _ in range(3000)]
folder = tempfile.mkdtemp()
path = os.path.join(folder, "socket")
options = ["--port", "0", "--unixsocket", path, "--save", "", "--dir", folder, "--enable-debug-command", "yes"]
server = subprocess.Popen(["redis-server", *options], stdout=subprocess.DEVNULL)
link = socket.socket(socket.AF_UNIX)
for _ in range(500):
    try:
        link.connect(path)
        break
    except OSError:
        time.sleep(0.02)
replies = link.makefile("rb")


def encode(*parts):
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(p), p) for p in (str(p).encode() for p in parts))


def ask(*parts):
    link.sendall(encode(*parts))
    line = replies.readline()
    if line.startswith(b"$"):
        return replies.read(int(line[1:]) + 2)
    if not line or line.startswith(b"-"):
        sys.exit(f"redis: {line}")
    return line


def pipeline(commands):
    link.sendall(b"".join(commands))
    for _ in commands:
        if replies.readline()[:1] in (b"-", b""):
            sys.exit("redis refused a command")


try:
    for first in range(0, keys, 500):
        batch = []
        for i in range(first, first + 500):
            batch.append(encode("SET", f"key:{i:012d}", " ".join(rng.choices(words, k=rng.randrange(20, 60)))))
            if i % 4 == 0:
                batch.append(encode("HSET", f"hash:{i % 20011}", f"field{i % 31}", rng.choice(words)))
        pipeline(batch)
    bench = ["redis-benchmark", "-s", path, "-t", "get", "-n", str(keys // 2), "-r", str(keys), "-c", "8", "-q"]
    subprocess.run(bench, stdout=subprocess.DEVNULL, check=True)
    ask("BGSAVE")
    pipeline([encode("SET", f"key:{rng.randrange(keys):012d}", rng.choice(words)) for _ in range(2000)])
    while b"rdb_bgsave_in_progress:1" in ask("INFO", "persistence"):
        time.sleep(0.01)
    if b"rdb_last_bgsave_status:ok" not in ask("INFO", "persistence"):
        sys.exit("redis could not save")
    print(ask("DBSIZE"), ask("DEBUG", "DIGEST"))
    link.sendall(encode("SHUTDOWN", "NOSAVE"))
    sys.exit(server.wait())
finally:
    server.kill()
    for name in os.listdir(folder):
        os.remove(os.path.join(folder, name))
    os.rmdir(folder)
