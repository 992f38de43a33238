# An archive of classes, run from where it lies; see Jar.java.
echo words >"$mine/words.txt"
jar --create --file "$shared/app.jar" --main-class Jar -C "$(dirname "$0")" Jar.class -C "$mine" words.txt
mkdir "$shared/data"; java -XX:TieredStopAtLevel=1 -jar "$shared/app.jar" "$shared/data"
cat "$shared/data/moved"; stat -c %a "$shared/data/moved"
