# Everything below SHARED: what it is called, is and has.
cd "$1" && find . -name '*.db*' -prune -o ! -type d -printf '%P|%y|%m|%n|%s|%l|%T@\n' | LC_ALL=C sort
find . -type f ! -name '*.db*' -print0 | LC_ALL=C sort -z | xargs -0 sha256sum
