"""Prints lines of made-up text to sort. Argument: MiB."""
import random, sys

rng = random.Random(29)
words = ["".join(rng.choice("etaoinshrdlucmfw") for _ in range(rng.randrange(2, 10))) for _ in range(5000)]
left = int(sys.argv[1]) << 20
while left > 0:
    block = "".join(f"{' '.join(rng.choices(words, k=rng.randrange(4, 12)))} {rng.randrange(10**6)}\n" for _ in range(1000))
    sys.stdout.write(block)
    left -= len(block)
