# What people type all day.
umask 022
cd "$shared" && mkdir -p a/b/c "a/with space"
for i in $(seq 30); do echo "word $i" >"a/b/f$i"; done
echo needle >a/b/c/hay; ln -s ../b "a/with space/link"; ln a/b/f1 a/hard; mkfifo a/pipe
find a -type f | wc -l; find -L a -name hay | LC_ALL=C sort; find a -empty; find a -links 2 | LC_ALL=C sort
grep -rn needle a; grep -rlE 'word (1|30)$' a | LC_ALL=C sort; grep -c . a/b/f7
du -a --apparent-size -b a/b/c | grep hay; du -s --inodes a
cp -a a copy && diff -r --no-dereference a/b copy/b && cmp a/hard copy/hard && readlink "copy/with space/link" && stat -c '%h %a %F' copy/hard copy/pipe
[ "$(stat -c %y a/b/f5)" = "$(stat -c %y copy/b/f5)" ] && echo times
cp -a a "$mine/copy" && diff -r a/b "$mine/copy/b" && cp -a "$mine/copy" back && diff -r a/b back/b && echo there and back
mv copy/b copy/moved; ls copy; mv -n a/b/f1 a/b/f2; cat a/b/f2; mv copy "$mine/from-there"; ls "$mine/from-there"; mv "$mine/from-there" returned; ls -A returned "returned/with space"; ls "$mine"
cp --sparse=always a/b/f9 s; cp --reflink=auto a/b/f9 r; cat s r; install -m 751 a/b/f9 i; stat -c %a i
seq 5000 >numbers; split -n 4 numbers part.; cat part.* | cmp - numbers && echo split; sort -R numbers | sort -n -S 50k -T "$shared" | cmp - numbers && echo sorted; tac numbers | head -n 2; tail -n 2 numbers; wc numbers
sed -i 's/^1$/one/' numbers; head -n 2 numbers; dd if=numbers bs=1000 skip=3 count=1 status=none | cksum; shred -u s; ls s 2>&1 | sed 's/.*: //'
gzip -k numbers && zcat numbers.gz | cmp - numbers && gzip -t numbers.gz && touch -r numbers.gz i && echo gzip
(cd a && pwd -P | sed "s,$shared,,"; cd b && cd ../.. && ls -d a/b/../b); realpath --relative-to="$shared" "a/with space/link/f3"; test a/b/f3 -ef "a/with space/link/f3" && echo same file
flock a/b/f3 sh -c 'flock -n "$0" true || echo locked' a/b/f3
mkdir r1 && chmod 555 r1 && touch r1/x 2>&1 | sed 's/.*: //'; chmod 755 r1 && rmdir r1; rm -r returned back; ls
timeout 5 sh -c 'tail -n 0 -f --pid=$$ numbers & while kill -0 $!; do echo grown >>numbers; sleep 0.1; done 2>/dev/null | true; sleep 0.1' | head -n 1
