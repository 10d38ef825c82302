"""An SQLite database in memory, with indexes, updates and deletes. Arguments: file of prose, size in MiB."""
import json, random, sqlite3, sys

prose, target = sys.argv[1], int(sys.argv[2]) << 20
rng = random.Random(7)
db = sqlite3.connect(":memory:", isolation_level=None)
db.executescript("""
CREATE TABLE customer (id INTEGER PRIMARY KEY, name TEXT, email TEXT UNIQUE, since INTEGER, region INTEGER, note TEXT);
CREATE TABLE product (sku TEXT PRIMARY KEY, title TEXT, text TEXT, price REAL, stock INTEGER) WITHOUT ROWID;
CREATE TABLE purchase (
    id INTEGER PRIMARY KEY, customer INTEGER REFERENCES customer, sku TEXT, placed TEXT, count INTEGER, total REAL);
CREATE TABLE event (id INTEGER PRIMARY KEY, at INTEGER, kind TEXT, payload TEXT);
CREATE INDEX purchase_customer ON purchase (customer, placed);
CREATE INDEX purchase_sku ON purchase (sku);
CREATE INDEX event_at ON event (at, kind);
""")
with open(prose) as f:
    lines = f.read().splitlines()[:40000]
words = sorted({w.strip(".,;:()") for l in lines for w in l.split() if w.strip(".,;:()").isalpha() and len(w) > 3})


def anonymous():
    with open("/proc/self/status") as f:
        return next(int(l.split()[1]) << 10 for l in f if l.startswith("RssAnon"))


skus = []
customers = events = 0
clock = 1_690_000_000
while anonymous() < target:
    db.execute("BEGIN")
    for _ in range(100):
        sku = f"{rng.choice(words)[:4].upper()}-{rng.randrange(10**6):06d}"
        db.execute("INSERT OR REPLACE INTO product VALUES (?,?,?,?,?)",
                   (sku, f"{rng.choice(words)} {rng.choice(words)}", " ".join(rng.choices(lines, k=3)),
                    round(rng.lognormvariate(3, 1), 2), rng.randrange(500)))
        skus.append(sku)
    for _ in range(400):
        customers += 1
        name = f"{rng.choice(words).title()} {rng.choice(words).title()}"
        db.execute("INSERT INTO customer VALUES (?,?,?,?,?,?)",
                   (customers, name, f"{name.replace(' ', '.').lower()}.{customers}@example.org", clock,
                    rng.randrange(50), rng.choice(lines)))
    for _ in range(2000):
        clock += rng.randrange(30)
        count = rng.randrange(1, 5)
        db.execute("INSERT INTO purchase (customer, sku, placed, count, total) "
                   "VALUES (?,?,datetime(?, 'unixepoch'),?,?)",
                   (rng.randrange(1, customers + 1), rng.choice(skus), clock, count,
                    round(count * rng.lognormvariate(3, 1), 2)))
        events += 1
        payload = {"q": rng.choice(words), "ms": round(rng.expovariate(1 / 40), 1),
                   "agent": rng.choice(("Firefox/121.0", "Chrome/120.0", "curl/7.88")),
                   "session": f"{rng.getrandbits(64):016x}"}
        db.execute("INSERT INTO event VALUES (?,?,?,?)",
                   (events, clock, rng.choice(("view", "cart", "search", "login")), json.dumps(payload)))
    for _ in range(300):
        db.execute("UPDATE customer SET note = ?, region = ? WHERE id = ?",
                   (rng.choice(lines), rng.randrange(50), rng.randrange(1, customers + 1)))
    db.execute("DELETE FROM event WHERE id IN (SELECT id FROM event ORDER BY id LIMIT 250)")
    db.execute("COMMIT")
db.execute("SELECT region, count(*), sum(total) FROM customer "
           "JOIN purchase ON customer.id = customer GROUP BY region").fetchall()
print("READY", flush=True)
sys.stdin.read()
