"""A hundred long texts of a few words and many numbers, gone through twice."""

import random
import zlib

WORDS = ["memory", "page", "fault", "store", "object", "range", "segment", "resident", "ephemeral", "pool"]


def text():
    return " ".join(random.choice(WORDS) + str(random.randrange(10**6)) for _ in range(70_000)).encode()


random.seed(1)
texts = [text() for _ in range(100)]
checksum = 0
for _ in range(2):
    for one in texts:
        checksum = zlib.crc32(one, checksum)
print(sum(map(len, texts)) >> 20, checksum)
