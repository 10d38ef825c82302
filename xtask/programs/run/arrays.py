"""Arrays and data frames: fills, sorts, groups, prints sums. Argument: thousands of rows."""
import sys
import numpy as np
import pandas as pd

rng = np.random.default_rng(5)
rows = int(sys.argv[1]) * 1000
frame = pd.DataFrame({
    "time": np.cumsum(rng.integers(1, 900, rows)) + 1_700_000_000_000,
    "sensor": rng.integers(0, 500, rows),
    "value": np.round(20 + np.cumsum(rng.normal(0, 0.01, rows)), 2),
    "place": np.array(["north", "south", "east", "west"], dtype=object)[rng.integers(0, 4, rows)],
})
print(round(float(frame["value"].mean()), 4))
print(frame.groupby("sensor")["value"].max().round(2).sum())
print(frame.sort_values(["place", "value", "time"]).iloc[::rows // 7]["time"].tolist())
wide = np.vstack([np.roll(frame["value"].to_numpy(), k) for k in range(12)])
print(round(float((wide.max(axis=0) - wide.min(axis=0)).sum()), 2))
print(int(np.argsort(wide[3], kind="stable")[:1000].sum()))
