# run.sh SHARED MINE NAME...: runs the named files of this directory at once, each
# with a directory of its own in either, and prints what each of them said.
# TZ and the like are the same whoever calls.
here=$(cd "$(dirname "$0")" && pwd) all_shared=$1 all_mine=$2
shift 2
export TZ=UTC LC_ALL=C.UTF-8
for name; do
	export shared=$all_shared/$name mine=$all_mine/$name
	mkdir -p "$shared" "$mine" && chmod g-s "$shared" "$mine" # a pod's volume has it of its group
	case $name in
	*.py) python3 "$here/$name" ;;
	*) bash -u "$here/$name" ;;
	esac >"$all_mine/$name.out" 2>&1 </dev/null &
done
wait
for name; do
	echo "=== $name"
	sed -e "s,$all_shared/$name,SHARED,g; s,$all_mine/$name,MINE,g" "$all_mine/$name.out"
done
