package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The context that a program gets: environment, hostname, files, names.

func TestEnvironment(t *testing.T) {
	out := in(t, "pod/app", "env")
	vars := map[string]string{}
	for line := range strings.Lines(out) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		vars[name] = value
	}
	for name, want := range map[string]string{
		"COLOR":      "blue", // the pod's wins
		"ONLY_LOCAL": "yes",  // what the pod has not stays
		"HOME":       filepath.Join(w.dir, "home"),
	} {
		if vars[name] != want {
			t.Errorf("%s is %q, want %q", name, vars[name], want)
		}
	}
	if strings.Contains(vars["PATH"], "/pod/only") {
		t.Errorf("PATH is the pod's: %s", vars["PATH"])
	}
	if vars["KUBERNETES_SERVICE_HOST"] == "" {
		t.Error("the pod's KUBERNETES_SERVICE_HOST is missing")
	}
}

func TestEnvironmentOfChosenContainer(t *testing.T) {
	if got := in(t, "pod/app/container/side", "probe", "env", "ROLE"); got != "sidecar" {
		t.Errorf("ROLE is %q, want sidecar", got)
	}
}

func TestHostname(t *testing.T) {
	if got := in(t, "pod/app", "sh", "-c", "uname -n; cat /etc/hostname; probe hostname"); got != "app\napp\napp" {
		t.Errorf("hostname is %q, want app three times", got)
	}
}

func TestIdentity(t *testing.T) {
	if got := in(t, "pod/app", "sh", "-c", "id -u; id -g; pwd; test -w . && touch made-here && echo writable"); got !=
		fmt.Sprintf("%d\n%d\n%s\nwritable", user, user, filepath.Join(w.dir, "work")) {
		t.Errorf("got %q", got)
	}
	if fi, err := os.Stat(filepath.Join(w.dir, "work", "made-here")); err != nil || fi.Size() != 0 {
		t.Errorf("a file made in the working directory is not on this machine: %v", err)
	}
}

func TestFileOfThePod(t *testing.T) {
	for name, argv := range map[string][]string{
		"cat":           {"cat", "/data/hello.txt"},
		"static Go":     {"probe", "read", "/data/hello.txt"},
		"python, mmap":  {"python3", "-c", "import mmap; f = open('/data/hello.txt', 'rb'); print(mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ)[:].decode(), end='')"},
		"node":          {"node", "-e", "process.stdout.write(require('fs').readFileSync('/data/hello.txt'))"},
		"symbolic link": {"cat", "/data/link"},
		"grandchild":    {"sh", "-c", "sh -c 'cat /data/hello.txt'"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := in(t, "pod/app", argv...); got != "from-pod" {
				t.Errorf("got %q, want from-pod", got)
			}
		})
	}
}

func TestVolumesOfThePod(t *testing.T) {
	got := in(t, "pod/app", "sh", "-c", `cat /etc/app/config.yaml /run/secrets/app/token; echo
		head -c 3 /var/run/secrets/kubernetes.io/serviceaccount/token; echo
		ls /run/secrets/app`)
	if want := "colour: blue\ns3cr3t\neyJ\ntoken"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestDirectoryOfThePod(t *testing.T) {
	got := in(t, "pod/app", "sh", "-c", `ls /data/many | wc -l; ls -l /data | grep -c hello; readlink /data/link
		stat -c '%s %F' /data/hello.txt; cat /data/missing 2>&1 | grep -c 'No such file'; find /data/many -type f -size -2 | wc -l`)
	if want := "1000\n2\nhello.txt\n9 regular file\n1\n1000"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestPermissionIsTheTargets(t *testing.T) {
	// The sidecar runs as root in the same pod, without the volume; the app's
	// user may read its own private file, which nobody else may.
	if got := in(t, "pod/app", "cat", "/data/private"); got != "private" {
		t.Errorf("got %q, want private", got)
	}
	if got := in(t, "pod/app", "sh", "-c", "cat /proc/1/environ >/dev/null 2>&1; cat /etc/shadow 2>&1 | tail -n 1"); !strings.Contains(got, "denied") {
		t.Errorf("/etc/shadow gives %q, want a denial", got)
	}
}

func TestExecOfThePodsPrograms(t *testing.T) {
	if got := in(t, "pod/app", "sh", "-c", "/data/script; /data/tool -i X=1"); got != "script from pod\nX=1" {
		t.Errorf("got %q", got)
	}
}

func TestBigFileOfThePod(t *testing.T) {
	if got := in(t, "pod/app", "sh", "-c", "cd /data && sha256sum -c big.sha256"); got != "big.bin: OK" {
		t.Errorf("got %q", got)
	}
}

func TestLocalPathsStayLocal(t *testing.T) {
	local := filepath.Join(w.dir, "home", "note")
	if err := os.WriteFile(local, []byte("here"), 0o644); err != nil {
		t.Fatal(err)
	}
	tmp := filepath.Join(w.dir, "work", "made")
	if got := in(t, "pod/app", "sh", "-c", fmt.Sprintf("cat %s; echo written >%s", local, tmp)); got != "here" {
		t.Errorf("got %q, want here", got)
	}
	if b, err := os.ReadFile(tmp); err != nil || string(b) != "written\n" {
		t.Errorf("written file has %q, %v", b, err)
	}
	if got := in(t, "pod/app", "sh", "-c", "echo 'int main(){return 0;}' >x.c && gcc -o x x.c && ./x && echo compiled"); got != "compiled" {
		t.Errorf("the toolchain: %q", got)
	}
}

// What is local as a whole is the kernel's own: it works at native speed, and
// also while nobody serves anything. The kernel may forget what it was told,
// and then has to ask once more (drop_caches, little memory), so one of three
// tries must do.
func TestLocalPathsNeedNobody(t *testing.T) {
	if err := os.WriteFile(filepath.Join(w.dir, "work", "x.c"), []byte("int main(void) { return 0; }\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	r := start(t, "-t", "pod/app", "bash", "-c", `
		cat /data/hello.txt >/dev/null
		work() { for c in "ls -a" "touch $HOME/x" "python3 -c 'import json'" "gcc -o y x.c" ./y date "dash -c 'ls /usr/bin >/dev/null'" "echo z >/tmp/mirrord-z" "rm /tmp/mirrord-z"; do
			timeout 5 bash -c "$c" >/dev/null && echo "$1: ok: $c" || echo "$1: stuck: $c"
		done; echo "$1: end"; }
		work 0; while read -r n; do work $n; done`)
	pid := 0
	try := func(n int) bool {
		if !r.stdout.waitFor(fmt.Sprintf("%d: end", n-1), runTime) {
			t.Fatal("it does not even work with the supervisor")
		}
		if pid == 0 {
			pid = supervisor(t)
		}
		time.Sleep(2 * time.Second) // the life of what the kernel remembers for a time only: it is to be over
		if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		defer syscall.Kill(pid, syscall.SIGCONT)
		fmt.Fprintln(r.stdin, n)
		return r.stdout.waitFor(fmt.Sprintf("%d: end", n), 30*time.Second) && !strings.Contains(r.stdout.String(), fmt.Sprintf("%d: stuck", n))
	}
	if !try(1) && !try(2) && !try(3) {
		t.Error("not everything works while the supervisor is stopped")
	}
	if code := r.end(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

func TestNames(t *testing.T) {
	ip := kubectl(t, "get", "service", "echo", "-o", "jsonpath={.spec.clusterIP}")
	long := "echo." + w.namespace + ".svc.cluster.local"
	for name, argv := range map[string][]string{
		"C library, short name": {"python3", "-c", "import socket; print(socket.getaddrinfo('echo', 7000, socket.AF_INET)[0][4][0])"},
		"Go, short name":        {"sh", "-c", "probe lookup echo | grep -v :"},
		"Go, long name":         {"sh", "-c", "probe lookup " + long + " | grep -v :"},
		"node":                  {"node", "-e", "require('dns').lookup('echo', {family: 4}, (e, a) => console.log(a))"},
		"dig":                   {"dig", "+search", "+short", "echo", "A"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := in(t, "pod/app", argv...); got != ip {
				t.Errorf("got %q, want %q", got, ip)
			}
		})
	}
	t.Run("SRV", func(t *testing.T) {
		if got := in(t, "pod/app", "probe", "srv", "_tcp._tcp."+long); got != "7000 "+long+"." {
			t.Errorf("got %q", got)
		}
	})
	t.Run("no such name", func(t *testing.T) {
		if got := in(t, "pod/app", "sh", "-c", "getent hosts no-such-name || echo none"); got != "none" {
			t.Errorf("got %q, want none", got)
		}
	})
	t.Run("resolv.conf and hosts", func(t *testing.T) {
		want := kubectl(t, "exec", "app", "-c", "app", "--", "cat", "/etc/resolv.conf", "/etc/hosts")
		if got := in(t, "pod/app", "cat", "/etc/resolv.conf", "/etc/hosts"); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}
