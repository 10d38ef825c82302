"""Arrays of numerical work: series, images, weights, grids, sparse matrices. Arguments: file of prose, size in MiB."""
import sys
import numpy as np

prose, target = sys.argv[1], int(sys.argv[2]) << 20
rng = np.random.default_rng(5)
with open(prose, "rb") as f:
    text = f.read(1 << 21)


def anonymous():
    with open("/proc/self/status") as f:
        return next(int(l.split()[1]) << 10 for l in f if l.startswith("RssAnon"))


def image(side):
    y, x = np.mgrid[0:side, 0:side].astype(np.float32) / side
    smooth = sum(a * np.sin(fx * x + fy * y + p) for a, fx, fy, p in rng.normal(0, 6, (5, 4)))
    smooth = (smooth - smooth.min()) / np.ptp(smooth)
    colours = np.stack([smooth, smooth ** 2, 1 - smooth], axis=-1) * 230 + rng.normal(0, 2, (side, side, 3))
    return np.clip(colours, 0, 255).astype(np.uint8)


def heat(side, steps):
    grid = np.zeros((side, side))
    for _ in range(12):
        r, c = rng.integers(4, side - 4, 2)
        grid[r - 3:r + 3, c - 3:c + 3] = rng.uniform(20, 100)
    for _ in range(steps):
        around = grid[:-2, 1:-1] + grid[2:, 1:-1] + grid[1:-1, :-2] + grid[1:-1, 2:]
        grid[1:-1, 1:-1] += 0.2 * (around - 4 * grid[1:-1, 1:-1])
    return grid


def sparse(rows, columns, each):
    indices = np.sort(rng.integers(0, columns, (rows, each)), axis=1).astype(np.int32).ravel()
    return np.arange(0, rows * each + 1, each, dtype=np.int64), indices, rng.exponential(1, rows * each)


kept = []
part = 0
while anonymous() < target:
    part += 1
    kept.append(np.round(100 + np.cumsum(rng.normal(0, 0.05, 40000)), 2))           # prices
    kept.append(np.cumsum(rng.exponential(900, 40000)).astype(np.int64) + 1_700_000_000_000)  # times in ms
    kept.append(rng.normal(0, 0.02, (64, 512)).astype(np.float32))                   # weights of a network
    kept.append(image(256))
    kept.append(heat(200, 150))
    kept.append(sparse(2000, 30000, 20))
    kept.append(np.bincount(np.frombuffer(text, np.uint8)[part * 1000:(part + 20) * 1000], minlength=256))
    kept.append(rng.random((300, 300)) < 0.03)                                       # a mask
    kept.append(rng.poisson(2, 50000).astype(np.int64))                              # counts
    kept.append(np.fft.rfft(kept[-9][:8192]))
    kept.append(rng.permutation(20000))                                              # an index
    positions = rng.normal(0, 10, (8000, 3))
    for _ in range(10):
        positions += 0.01 * (-positions) + rng.normal(0, 0.01, positions.shape)
    kept.append(positions)
    if part % 3 == 0:
        del kept[rng.integers(len(kept))]
print("READY", flush=True)
sys.stdin.read()
