package e2e

import (
	"syscall"
	"testing"
	"time"
)

// TestFilesLarge: many names, large files, odd names and special files of the
// target's, each compared with what the pod itself says.
func TestFilesLarge(t *testing.T) {
	filesPod(t)
	dir := scratch(t, "large")
	inContainer(t, "app", "cd "+dir+` && python3 - <<'EOF'
import os, socket
os.mkdir("many")
for i in range(100_000):
    os.close(os.open("many/n%06d" % i, os.O_CREAT | os.O_WRONLY))
with open("many/n054321", "w") as f:
    f.write("content")
with open("sparse", "w+b") as f:
    f.truncate(6 << 30)
    os.pwrite(f.fileno(), b"at five GiB", 5 << 30)
open("l" * 255, "w").write("long")
open(b"odd \xff\xfe\n\x1b[31m", "w").write("odd")
open("\N{SNOWMAN}", "w").write("snow")
os.mkfifo("fifo")
socket.socket(socket.AF_UNIX).bind("socket")
EOF`)
	const target = "pod/files/container/app"
	alike(t, seeing(t, target, map[string]any{"mode": "read"}), dir, []looked{
		{"100,000 names", `ls many | tail -n 1; python3 - <<'EOF'
import os
print(sum(e.is_file() for e in os.scandir("many")))
print(sum(os.stat("many/n%06d" % i).st_size for i in range(21, 100_000, 300)))
missing = 0
for i in range(300):
    try:
        os.stat("many/x%06d" % i)
    except FileNotFoundError:
        missing += 1
print(missing, open("many/n054321").read())
EOF`},
		{"odd names", `ls -b | grep -v -e many -e sparse -e grown; cat l* odd* *☃*; stat -c '%F %s' *`},
		{"special files", `stat -c '%F' fifo socket; head -c 1 socket 2>&1 | sed 's/.*: //'; ls -l | cut -c 1 | sort | uniq -c; grep -r --devices=skip at.five . --include=x; find . -type p -o -type s`},
		{"files that say that they are empty", `d=/.mirrord/remote/proc; [ -e $d ] || d=/proc; cd $d; for f in version sys/kernel/osrelease filesystems devices cmdline; do cksum <$f; done
			wc -l <cpuinfo; grep -c MemTotal meminfo; head -c 13 version; echo; wc -w <uptime; python3 -c 'print(len(open("stat").read()) > 100)'`},
	})
	alike(t, seeing(t, target, map[string]any{"mode": "write"}), dir, []looked{
		{"more than 4 GiB", `python3 - <<'EOF'
import os
f = os.open("sparse", os.O_RDWR)
st = os.fstat(f)
print(st.st_size, st.st_blocks < 10_000, os.pread(f, 13, 5 << 30), os.lseek(f, 0, os.SEEK_DATA), os.lseek(f, 5 << 30, os.SEEK_HOLE) - (5 << 30), os.lseek(f, -3, os.SEEK_END))
print(os.pwrite(f, b"written", (5 << 30) + 100), os.pwrite(f, b"behind", 7 << 30), os.pread(f, 8, (5 << 30) + 99), os.fstat(f).st_size)
os.ftruncate(f, 6 << 30)
os.fsync(f)
EOF
tail -c +5368709121 sparse | head -c 108 | cksum; rm -f grown; truncate -s 5G grown && echo end >>grown && tail -c 4 grown && stat -c %s grown`},
	})
	// The FIFO's other end is in the pod and is not reached: who waits for it here
	// waits as for any FIFO, and can be ended, and nobody in the pod is woken.
	t.Run("a FIFO", func(t *testing.T) {
		got := in(t, "", append(seeing(t, target, map[string]any{"mode": "read"}), "bash", "-c", "cd "+dir+`
			timeout 1 cat fifo; echo $?; timeout 1 bash -c 'echo x >fifo'; echo $?
			python3 -c 'import os; os.open("fifo", os.O_RDONLY | os.O_NONBLOCK); print("open")'
			python3 -c 'import os; os.open("fifo", os.O_WRONLY | os.O_NONBLOCK)' 2>&1 | grep -c 'No such device'
			(sleep 0.2; echo through >fifo) & cat fifo`)...)
		if want := "124\n124\nopen\n1\nthrough"; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
		if got := inContainer(t, "app", "cd "+dir+`; python3 -c 'import os; os.open("fifo", os.O_WRONLY | os.O_NONBLOCK)' 2>&1 | grep -c 'No such device'`); got != "1" {
			t.Errorf("in the pod the FIFO has a reader: %q", got)
		}
	})
	t.Run("a FIFO holds up nobody", func(t *testing.T) {
		r := start(t, append(seeing(t, target, map[string]any{"mode": "read"}), "bash", "-c", "cd "+dir+`
			(until [ "$(cat /proc/$$/comm)" = cat ]; do sleep 0.05; done; sleep 0.2; cat many/n054321; ls | wc -l; echo; echo read) & exec cat fifo`)...)
		r.waitFor("content")
		r.waitFor("read")
		began := time.Now()
		r.signal(syscall.SIGTERM)
		if code := r.end(); code != 128+int(syscall.SIGTERM) {
			t.Errorf("exit code %d", code)
		}
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("who waits for a FIFO ended after %v", took)
		}
	})
}
