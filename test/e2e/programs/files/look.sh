# look.sh SHARED MINE: what the others have left in SHARED is read, and not
# written: this may be where it cannot be.
shared=$1 mine=$2
export TZ=UTC LC_ALL=C.UTF-8 HOME=$mine GIT_OPTIONAL_LOCKS=0 PYTHONDONTWRITEBYTECODE=1
git config --global gc.autoDetach false
cd "$shared/git.sh/repo" && git status --short && git log --format=%H | wc -l && git grep -c 'line 7$' && git fsck 2>&1; git clone -q . "$mine/cloned" && git -C "$mine/cloned" rev-parse HEAD
python3 "$shared/import.sh/py/main.py"; PYTHONPATH=$shared/import.sh/py/pack.zip python3 -c 'import pack.m9; print(pack.m9.value)'; node "$shared/import.sh/node/main.js"
mkdir "$mine/data" && java -XX:TieredStopAtLevel=1 -jar "$shared/java.sh/app.jar" "$mine/data"
python3 -c '
import sqlite3, sys
for mode in ["delete"]:
    db = sqlite3.connect("file:%s/sqlite.py/%s.db?mode=ro" % (sys.argv[1], mode), uri=True)
    print(mode, db.execute("select count(*), sum(length(text)) from log").fetchone(), db.execute("pragma integrity_check").fetchone())' "$shared"
rsync -aHS "$shared/rsync.sh/there/" "$mine/there/" && rsync -naHSi --checksum "$shared/rsync.sh/there/" "$mine/there/"
tar -C "$shared/tar.sh/tree" -Scf "$mine/tree.tar" . && tar -C "$shared/tar.sh/tree" -df "$mine/tree.tar" && echo compared
"$shared/make.sh/out/program"; sh "$shared/git.sh/again/tool"
cd "$shared/tools.sh" && grep -rc needle a/b/c && find . -type l -printf '%P %l\n' && du -a --apparent-size -b a/b/c | grep hay && cp -a a "$mine/a" && diff -r a/b "$mine/a/b" && echo copied
echo own >>"$mine/a/b/f1" && cat "$mine/a/b/f1"
