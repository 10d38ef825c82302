# A repository with a history, packed as tightly as git can, and checked. $1: git, $2: a large text, $3: where.
set -e
git=$1 lines=$2
rm -rf "$3"
mkdir "$3"
cd "$3"
export GIT_CONFIG_NOSYSTEM=1 HOME="$3" GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b
export GIT_AUTHOR_DATE='2020-01-01T00:00:00Z' GIT_COMMITTER_DATE='2020-01-01T00:00:00Z'
"$git" init -q .
for round in 1 2 3 4 5 6; do
    head -n $((round * 15000)) "$lines" | tail -n 40000 | sed "s/memory/memory$round/" >text
    head -n $((round * 9000)) "$lines" | tail -n 20000 >more
    "$git" add text more
    "$git" commit -q -m "round $round"
done
"$git" -c pack.threads=2 repack -adfq --depth=20 --window=60
"$git" fsck --full --strict 2>/dev/null
"$git" rev-parse HEAD
"$git" log -p | sha256sum
