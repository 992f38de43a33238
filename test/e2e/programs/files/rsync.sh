# Trees carried from side to side; afterwards there is nothing to do.
umask 022
mkdir -p "$mine/from/sub/dir" && cd "$mine/from"
for i in $(seq 40); do echo "$i" >"sub/f$i"; done
seq 100000 >large
ln large hard; ln -s sub/f1 link; ln -s nowhere broken; chmod 700 sub/dir; chmod 600 sub/f2; chmod 555 sub/f3
truncate -s 8M sparse; printf end >>sparse
find . -depth -exec touch -h -d '2001-02-03 04:05:06.123456789 UTC' {} +
nothing() { out=$(rsync -naHSi --delete --checksum "$1/" "$2/") && [ -z "$out" ] && echo "nothing to do" || echo "left: $out"; }
rsync -aHS "$mine/from/" "$shared/there/"; nothing "$mine/from" "$shared/there"
rsync -aHS "$shared/there/" "$mine/back/"; nothing "$shared/there" "$mine/back"; nothing "$mine/from" "$mine/back"
(cd "$shared/there" && find . ! -type d ! -name 'f[1-9]*' -printf '%P|%y|%m|%n|%s|%l|%T+\n' | LC_ALL=C sort)
[ "$(($(stat -c %b "$shared/there/sparse") * 512))" -lt 1000000 ] && echo sparse
# rsync compares seconds, and both changes are made within one where files are fast.
echo more >>large; touch -d '2003-01-02 03:04:05 UTC' large; rm sub/f7; mv sub/f8 sub/g8; chmod 640 sub/f9; echo changed >sub/f10
rsync -aHSi --delete "$mine/from/" "$shared/there/"; nothing "$mine/from" "$shared/there"
printf changed | dd of=large bs=1 seek=300000 conv=notrunc status=none; touch -d '2004-01-02 03:04:05 UTC' large
rsync -aHSi --delete --inplace --no-whole-file "$mine/from/" "$shared/there/"; nothing "$mine/from" "$shared/there"
rsync -aHSi --delete --no-whole-file "$shared/there/" "$mine/back/"; nothing "$shared/there" "$mine/back"
