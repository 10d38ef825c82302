"""What a Python service holds: records, indexes, a cache, syntax trees. Arguments: file of prose, size in MiB."""
import ast, datetime, decimal, os, random, sys

prose, target = sys.argv[1], int(sys.argv[2]) << 20
rng = random.Random(20240607)
lines = open(prose).read().splitlines()
words = sorted({w.strip(".,;:()").lower() for l in lines[:60000] for w in l.split() if w.strip(".,;:()").isalpha()})


def anonymous():
    with open("/proc/self/status") as f:
        return next(int(l.split()[1]) << 10 for l in f if l.startswith("RssAnon"))


class Account:
    def __init__(self, number):
        self.number = number
        self.name = f"{rng.choice(words).title()} {rng.choice(words).title()}"
        self.email = self.name.lower().replace(" ", ".") + "@example.org"
        self.created = datetime.datetime(2015, 1, 1) + datetime.timedelta(seconds=rng.randrange(280_000_000))
        self.balance = decimal.Decimal(rng.randrange(10_000_000)) / 100
        self.orders = []
        self.notes = rng.choice(lines)


class Order:
    __slots__ = ("account", "placed", "items", "total", "state")

    def __init__(self, account):
        self.account = account
        self.placed = account.created + datetime.timedelta(minutes=rng.randrange(500_000))
        self.items = [(rng.choice(words), rng.randrange(1, 9), round(rng.lognormvariate(3, 1), 2))
                      for _ in range(rng.randrange(1, 6))]
        self.total = sum(count * price for _, count, price in self.items)
        self.state = rng.choice(("new", "paid", "sent", "returned"))


accounts, by_email, by_word, cache, trees = {}, {}, {}, {}, []
library = os.path.dirname(os.__file__)
modules = sorted(f for f in os.listdir(library) if f.endswith(".py"))
number = 0
while anonymous() < target:
    for _ in range(500):
        number += 1
        account = accounts[number] = Account(number)
        by_email[account.email] = account
        for _ in range(rng.randrange(4)):
            account.orders.append(Order(account))
        for word in account.notes.split():
            by_word.setdefault(word.lower(), set()).add(number)
        key = rng.getrandbits(64).to_bytes(8, "big").hex()
        cache[key] = {"url": f"/{rng.choice(words)}/{number}?page={rng.randrange(40)}",
                      "status": rng.choice((200, 200, 200, 304, 404)),
                      "headers": {"etag": key, "age": rng.randrange(90000), "content-type": "application/json"},
                      "body": " ".join(rng.choices(lines, k=rng.randrange(1, 7)))}
    if number % 5000 == 0 and len(trees) < len(modules):
        with open(os.path.join(library, modules[len(trees)]), encoding="utf-8", errors="replace") as f:
            trees.append(ast.parse(f.read()))
    # What a live program frees leaves holes and old contents behind.
    for gone in rng.sample(sorted(cache)[:5000], min(60, len(cache))):
        del cache[gone]
    for gone in rng.sample(range(1, number), 20):
        if account := accounts.pop(gone, None):
            by_email.pop(account.email, None)
print("READY", flush=True)
sys.stdin.read()
