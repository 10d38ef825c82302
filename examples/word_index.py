"""An index of every word in Python's own library: where it stands, and how often. Something to run under `tmem run`."""
import os
import re
import sysconfig

WORD = re.compile(r"[A-Za-z_]\w+")
index = {}
files = 0
for folder, _, names in sorted(os.walk(sysconfig.get_paths()["stdlib"])):
    for name in sorted(names):
        if not name.endswith(".py") or files == 2000:
            continue
        files += 1
        with open(os.path.join(folder, name), encoding="utf-8", errors="replace") as file:
            for number, line in enumerate(file):
                for match in WORD.finditer(line):
                    index.setdefault(match.group(), []).append((name, number, match.start()))

most = sorted(index, key=lambda word: (-len(index[word]), word))[:10]
print(f"{files} files, {len(index)} words, {sum(map(len, index.values()))} places")
print("most often:", ", ".join(f"{word} {len(index[word])}" for word in most))
