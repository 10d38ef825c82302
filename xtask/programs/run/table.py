"""A database in memory: fills two tables, indexes, joins, updates, prints what it finds. Argument: thousands of rows."""
import random, sqlite3, sys

rng = random.Random(9)
rows = int(sys.argv[1]) * 1000
words = ["".join(rng.choice("etaoinshrdlu") for _ in range(rng.randrange(3, 9))) for _ in range(3000)]
base = sqlite3.connect(":memory:")
base.execute("create table person (id integer primary key, name text, city text, age int, about text)")
base.execute("create table sale (id integer primary key, person int, cents int, note text)")
people = ((i, words[i % 2999], words[i * 7 % 300], i % 90, " ".join(rng.choices(words, k=9))) for i in range(rows // 3))
base.executemany("insert into person values (?, ?, ?, ?, ?)", people)
sales = ((i, i * 7919 % (rows // 3), i * 31 % 99991, " ".join(rng.choices(words, k=5))) for i in range(rows))
base.executemany("insert into sale values (?, ?, ?, ?)", sales)
base.execute("create index of_person on sale (person)")
base.execute("create index of_name on person (name, city)")
base.execute("update sale set cents = cents + 1 where id % 11 = 3")
query = "select city, count(*), sum(cents) from person join sale on person = person.id"
query += " group by city order by 3 desc limit 20"
print(base.execute(query).fetchall())
print([base.execute("select sum(cents) from sale where person = ?", (rng.randrange(rows // 3),)).fetchone()[0]
       for _ in range(20000)][::997])
print(base.execute("select sum(length(note)), max(note) from sale").fetchall())
