"""Builds dictionaries and lists, scans them in several orders, prints sums. Argument: thousands of records."""
import random, sys, zlib

rng = random.Random(3)
count = int(sys.argv[1]) * 1000
names = ["".join(rng.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(rng.randrange(4, 12))) for _ in range(2000)]
records = {}
groups = {}
for i in range(count):
    record = {"id": i, "name": names[i * 7 % 2000], "tags": [names[i % 97], i % 13], "score": i * 37 % 10007 / 7.0}
    records[f"key-{i:07d}"] = record
    groups.setdefault(i % 5003, []).append(record)
print(len(records), len(groups))
print(sum(r["id"] ^ len(r["name"]) for r in records.values()))
print(sum(r["tags"][1] for g in groups.values() for r in g))
keys = list(records)
for _ in range(2):
    rng.shuffle(keys)
    print(round(sum(records[k]["score"] for k in keys[:count // 2]), 3))
for k in keys[::3]:
    records[k]["tags"].append(k[-3:])
print(zlib.crc32("".join(t for r in records.values() for t in r["tags"][2:]).encode()))
