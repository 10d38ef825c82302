"""Data frames of an analysis: readings, sales, and what was computed of them. Arguments: file of prose, size in MiB."""
import sys
import numpy as np
import pandas as pd

prose, target = sys.argv[1], int(sys.argv[2]) << 20
rng = np.random.default_rng(11)
with open(prose) as f:
    lines = np.array(f.read().splitlines()[:20000], dtype=object)
words = np.array(sorted({w.strip(".,;:()") for l in lines for w in l.split() if w.strip(".,;:()").isalpha()}), dtype=object)


def anonymous():
    with open("/proc/self/status") as f:
        return next(int(l.split()[1]) << 10 for l in f if l.startswith("RssAnon"))


frames, results = [], []
part = 0
while anonymous() < target:
    part += 1
    n = 20000
    start = pd.Timestamp("2023-01-01") + pd.Timedelta(days=part)
    readings = pd.DataFrame({
        "time": pd.date_range(start, periods=n, freq="4s"),
        "sensor": pd.Categorical(rng.choice(words[:40].astype(str), n)),
        "temperature": np.round(20 + 5 * np.sin(np.arange(n) / 3000) + rng.normal(0, 0.3, n), 1),
        "pressure": 1013 + np.cumsum(rng.normal(0, 0.01, n)),
        "count": rng.poisson(3, n),
        "ok": rng.random(n) > 0.02,
    })
    readings.loc[rng.choice(n, 200), "pressure"] = np.nan
    sales = pd.DataFrame({
        "order": np.arange(part * n, part * n + n // 2),
        "customer": rng.zipf(1.4, n // 2) % 50000,
        "item": words[rng.zipf(1.3, n // 2) % len(words)],
        "price": np.round(rng.lognormal(3, 1, n // 2), 2),
        "quantity": rng.integers(1, 6, n // 2).astype(np.int32),
        "comment": np.where(rng.random(n // 2) < 0.3, lines[rng.integers(0, len(lines), n // 2)], None),
    })
    frames += [readings, sales]
    spent = sales.assign(total=sales.price * sales.quantity).groupby("customer")["total"]
    results.append(spent.agg(["sum", "mean", "count"]))
    results.append(readings.set_index("time")[["temperature", "pressure"]].rolling(50).mean())
    if part % 4 == 0:
        twice = pd.concat([sales, sales[:5000]])
        results.append(twice.merge(results[-2], left_on="customer", right_index=True).sort_values("price"))
        frames.pop(rng.integers(len(frames)))
print("READY", flush=True)
sys.stdin.read()
