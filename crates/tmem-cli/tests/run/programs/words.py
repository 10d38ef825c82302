import random, zlib
random.seed(1)
words = ["memory","page","fault","store","object","range","segment","resident","ephemeral","pool"]
text = [" ".join(random.choice(words) + str(random.randrange(10**6)) for _ in range(70000)).encode() for _ in range(100)]
crc = 0
for _ in range(2):
    for part in text: crc = zlib.crc32(part, crc)
print(sum(map(len, text)) >> 20, crc)
