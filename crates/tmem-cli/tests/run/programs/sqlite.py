"""A database in memory: inserts, an index, updates, deletes, a join, a check of its own integrity."""

import hashlib
import sqlite3

base = sqlite3.connect(":memory:")
base.execute("create table goods (id integer primary key, name text, price real, shelf integer)")
base.execute("create table shelves (id integer primary key, place text)")
base.executemany("insert into shelves values (?, ?)", ((n, "row %d, level %d" % (n // 10, n % 10)) for n in range(2000)))
rows = ((n, "article number %d in colour %d" % (n, n % 17), n * 0.75, n * 31 % 2000) for n in range(400_000))
base.executemany("insert into goods values (?, ?, ?, ?)", rows)
base.execute("create index by_name on goods (name)")
base.execute("update goods set price = price + 1 where id % 7 = 0")
base.execute("delete from goods where id % 11 = 0")
digest = hashlib.sha256()
query = "select goods.name, price, place from goods join shelves on shelf = shelves.id order by goods.name"
for row in base.execute(query):
    digest.update(repr(row).encode())
print(digest.hexdigest(), base.execute("pragma integrity_check").fetchone())
