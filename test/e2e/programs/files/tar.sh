# There and back in archives: links, modes, times, holes, attributes.
umask 022
cd "$shared" && mkdir -p tree/deep/er tree/empty && cd tree
for i in $(seq 12); do echo "$i" >"deep/f$i"; done
printf 'x%.0s' $(seq 1200) >deep/er/large
echo secret >private; chmod 600 private; chmod 4755 deep/f1; chmod 2755 deep/er; chmod 1777 empty; chmod 000 deep/f2; chmod 400 deep/f3
ln deep/f4 hard; ln hard deep/er/hard; ln -s deep/f5 link; ln -s /nowhere/at/all broken; ln -s . self
truncate -s 12M sparse; printf middle | dd of=sparse bs=1M seek=7 conv=notrunc status=none
mkfifo pipe
printf 'odd' >"$(printf 'odd\377\n name')"
python3 -c 'import os; os.setxattr("private", "user.note", b"kept")'
find . -depth -exec touch -h -d '2001-02-03 04:05:06.123456789 UTC' {} +
chmod 644 deep/f2
listing() { (cd "$1" && find . -printf '%P|%y|%m|%n|%l|%T+\n' | LC_ALL=C sort; find . -type f -printf '%P %s\n' | LC_ALL=C sort; find . -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum); }
sparse() { [ "$(($(stat -c %b "$1") * 512))" -lt 1000000 ] && echo sparse || echo "not sparse"; }
listing "$shared/tree" | tee "$mine/before"
for way in "$shared $mine" "$mine $shared" "$shared $shared"; do
	set -- $way
	tar -C "$shared/tree" --xattrs --xattrs-include='user.*' --format=posix -Scf "$1/archive.tar" .
	tar -C "$shared/tree" -df "$1/archive.tar" && echo compared
	mkdir "$2/out"
	tar -C "$2/out" --xattrs --xattrs-include='user.*' -Spxf "$1/archive.tar"
	listing "$2/out" | diff "$mine/before" - && echo the same
	sparse "$2/out/sparse"; python3 -c 'import os, sys; print(os.getxattr(sys.argv[1], "user.note"))' "$2/out/private"
	rm -rf "$2/out" "$1/archive.tar"
done
