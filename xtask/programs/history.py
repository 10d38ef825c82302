"""Prints a fast-import stream: a folder's sources, with three generations of edits. Argument: the folder."""
import os, random, sys

root = sys.argv[1]
rng = random.Random(23)
out = sys.stdout.buffer
files = []
for folder, folders, names in sorted(os.walk(root)):
    folders[:] = sorted(f for f in folders if f not in ("__pycache__", "site-packages"))
    files += [os.path.join(folder, n) for n in sorted(names) if n.endswith((".py", ".txt", ".pyi", ".h", ".rst"))]
contents = {}
total = 0
for file in files:
    if total > 48 << 20:
        break
    with open(file, "rb") as f:
        data = f.read()
    total += len(data)
    contents[os.path.relpath(file, root).encode("utf-8", "replace")] = data


def edited(data):
    lines = data.split(b"\n")
    for _ in range(max(1, len(lines) // 60)):
        at = rng.randrange(len(lines))
        line = lines[at]
        lines[at:at + 1] = rng.choice(([], [line, line], [line.replace(b"self", b"this")], [rng.choice(lines)]))
    return b"\n".join(lines)


for generation in range(4):
    message = b"Generation %d" % generation
    when = 1700000000 + generation * 86400
    out.write(b"commit refs/heads/main\ncommitter A Person <person@example.org> %d +0000\n" % when)
    out.write(b"data %d\n%s\n" % (len(message), message))
    for path in sorted(contents):
        if generation and rng.random() < 0.6:
            continue
        if generation:
            contents[path] = edited(contents[path])
        out.write(b"M 100644 inline " + path + b"\ndata %d\n" % len(contents[path]) + contents[path] + b"\n")
    out.write(b"\n")
