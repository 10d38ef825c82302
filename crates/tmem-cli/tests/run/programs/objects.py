"""A million small objects, with the collector on: dictionaries, lists, strings, tuples."""

import gc
import hashlib

people = {}
for number in range(150_000):
    name = "person %d of %d" % (number, number % 1000)
    people[name] = {"id": number, "tags": ["a%d" % (number % 7), "b"], "next": (number * 7919) % 150_000}
for number in range(0, 150_000, 3):
    del people["person %d of %d" % (number, number % 1000)]
for number in range(0, 150_000, 6):
    people["again %d" % number] = {"id": -number, "tags": list(range(number % 5)), "next": number}
gc.collect()
digest = hashlib.sha256()
for name in sorted(people):
    digest.update(("%s %r" % (name, people[name])).encode())
print(len(people), digest.hexdigest())
