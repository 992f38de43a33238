package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// What of the developer's machine a program still has in a session, and what it
// must not have.

// desktop is a machine with a desktop's sockets: in a mount namespace, with a
// /run of its own.
type desktop struct {
	p         *handmade
	dir       string // the user's, for the test
	log, leak string // who has connected to the sockets; which name services were asked
	sockets   []string
}

func newDesktop(t testing.TB, p *handmade, sockets ...string) *desktop {
	t.Helper()
	d := &desktop{p: p, dir: filepath.Join(w.dir, "work", strings.ReplaceAll(t.Name(), "/", "-")), sockets: sockets}
	d.log, d.leak = filepath.Join(d.dir, "connected"), filepath.Join(d.dir, "leaks")
	if err := os.MkdirAll(d.dir, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(d.dir, user, user); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(d.dir) })
	return d
}

// run runs a script there: in a session, or plainly. before is done as the user
// on the machine.
func (d *desktop) run(t testing.TB, session bool, before, script string, env ...string) string {
	t.Helper()
	os.Remove(d.log)
	os.Remove(d.leak)
	os.Remove(filepath.Join(d.dir, "ready")) // the last script's
	const shell = `set -e
mount -t tmpfs tmpfs /run
mkdir -p /run/user/%[1]d && chown %[1]d:%[1]d /run/user/%[1]d && chmod 0700 /run/user/%[1]d
mount -t tmpfs -o mode=1777 tmpfs /tmp/.X11-unix
mount --bind %[2]s /etc/nsswitch.conf
setsid python3 %[3]s %[4]s %[5]s >%[6]s & servers=$!
trap 'kill $servers' EXIT
until grep -q ready %[6]s; do sleep 0.02; done
setpriv --reuid %[1]d --regid %[1]d --clear-groups -- bash -c "$BEFORE" "$@"`
	conf := filepath.Join(d.dir, "nsswitch.conf")
	if err := os.WriteFile(conf, []byte("passwd: files\nhosts: mdns4_minimal resolve myhostname files dns\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	directory(t, "/tmp/.X11-unix")
	argv := []string{"bash", "-c", script}
	if session {
		argv = append([]string{w.mirrord, "exec", "-q", "-t", d.p.target(), "--"}, argv...)
	}
	r := startCommand(t, append([]string{"unshare", "--mount", "bash", "-c",
		fmt.Sprintf(shell, user, conf, filepath.Join(w.dir, "bin", "standins.py"), d.log, strings.Join(d.sockets, " "), filepath.Join(d.dir, "ready")), "sh"}, argv...),
		func(c *exec.Cmd) {
			c.SysProcAttr.Credential = nil
			c.Env = append(c.Env, append(env, "BEFORE="+before+"\n\"$0\" \"$@\"", "LEAKS="+d.leak, "XDG_RUNTIME_DIR="+fmt.Sprintf("/run/user/%d", user))...)
		})
	code := r.end()
	t.Cleanup(func() { vanish(t) })
	if code != 0 {
		t.Fatalf("exit code %d, stderr:\n%s", code, r.stderr)
	}
	return strings.TrimSpace(r.stdout.String())
}

// directory sees to it that there is one, for the time of the test.
func directory(t testing.TB, path string) {
	t.Helper()
	err := os.Mkdir(path, 0o755)
	if err == nil {
		t.Cleanup(func() { os.Remove(path) })
	} else if !os.IsExist(err) {
		t.Fatal(err)
	}
}

// Programs find the user's agents where they are on this machine: by the paths
// of their sockets.
func TestAgentsOfTheUser(t *testing.T) {
	p := handmadePod(t, families{four: true})
	runtime := fmt.Sprintf("/run/user/%d", user)
	d := newDesktop(t, p, "/run/docker.sock", "/tmp/.X11-unix/X7", runtime+"/wayland-0", runtime+"/bus", runtime+"/podman/podman.sock", "/run/dbus/system_bus_socket", "/run/containerd/containerd.sock")
	connect := func(path string) string {
		return `python3 -c 'import socket; s = socket.socket(socket.AF_UNIX); s.connect("` + path + `"); print(s.makefile().readline().strip())'` + "\n"
	}
	for _, c := range []struct{ name, before, script, want string }{
		{"Docker's socket", "", "curl -sS --unix-socket /run/docker.sock http://docker/_ping; curl -sS --unix-socket /var/run/docker.sock http://docker/_ping", "/run/docker.sock\n/run/docker.sock"},
		{"Podman's socket", "", `curl -sS --unix-socket $XDG_RUNTIME_DIR/podman/podman.sock http://podman/_ping`, runtime + "/podman/podman.sock"},
		{"containerd's socket", "", connect("/run/containerd/containerd.sock"), "/run/containerd/containerd.sock"},
		{"X11", "", connect("/tmp/.X11-unix/X7"), "/tmp/.X11-unix/X7"},
		{"Wayland", "", connect(runtime + "/wayland-0"), runtime + "/wayland-0"},
		{"D-Bus of the session", "", connect(runtime + "/bus"), runtime + "/bus"},
		{"D-Bus of the system", "", connect("/run/dbus/system_bus_socket"), "/run/dbus/system_bus_socket"},
		{"ssh-agent", `eval $(ssh-agent) >/dev/null; trap 'ssh-agent -k >/dev/null' EXIT; rm -f key; ssh-keygen -q -t ed25519 -N "" -C of-the-user -f key; ssh-add -q key`,
			"ssh-add -l | cut -d' ' -f3", "of-the-user"},
		{"gpg-agent", `export GNUPGHOME=$HOME/.gnupg; install -d -m 700 $GNUPGHOME; gpg-connect-agent /bye 2>/dev/null; trap 'gpg-connect-agent killagent /bye >/dev/null' EXIT; export WANT=$(gpg-connect-agent "getinfo pid" /bye | head -n 1)`,
			`[ "$(gpg-connect-agent --no-autostart "getinfo pid" /bye | head -n 1)" = "$WANT" ] && echo the same agent`, "the same agent"},
		{"git's credential cache", `git config --global credential.helper "cache --timeout=60"; printf "protocol=https\nhost=git.example\nusername=ana\npassword=secret\n" | git credential approve; trap "git credential-cache exit" EXIT`,
			`printf "protocol=https\nhost=git.example\n" | git credential fill | grep password`, "password=secret"},
		{"a credential helper of one's own", `printf '#!/bin/sh\necho username=ana; echo password=mine\n' >$HOME/helper; chmod +x $HOME/helper; git config --global credential.helper $HOME/helper`,
			`printf "protocol=https\nhost=git.example\n" | git credential fill | grep password`, "password=mine"},
		{"xdg-open", "printf '#!/bin/sh\\necho opened $1\\n' >$HOME/browser; chmod +x $HOME/browser; export BROWSER=$HOME/browser", "xdg-open http://localhost:8080/", "opened http://localhost:8080/"},
		{"the environment of the desktop", "export DISPLAY=:7 WAYLAND_DISPLAY=wayland-0", "echo $DISPLAY $WAYLAND_DISPLAY $XDG_RUNTIME_DIR", ":7 wayland-0 " + runtime},
		{"proxies in the environment: the pod's beats the user's", "export HTTP_PROXY=http://corp:3128 HTTPS_PROXY=http://corp:3128", "echo $HTTP_PROXY $HTTPS_PROXY", "http://proxy.of.the.pod:3128 http://corp:3128"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := d.run(t, true, c.before, c.script); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

// No lookup reaches what resolves names on this machine: neither the modules of
// its nsswitch.conf, nor nscd, nor what the desktop's resolvers listen on.
func TestNoLookupLeaks(t *testing.T) {
	p := handmadePod(t, families{four: true, six: true})
	newZone().serve(p)
	d := newDesktop(t, p, "/run/nscd/socket", "/run/systemd/resolve/io.systemd.Resolve", "/run/avahi-daemon/socket", "/run/dbus/system_bus_socket")
	modules := filepath.Join(d.dir, "lib")
	if err := os.Mkdir(modules, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, m := range []string{"mdns4_minimal", "resolve", "myhostname"} {
		out, err := exec.Command("gcc", "-shared", "-fPIC", "-DNAME="+m, "-o", filepath.Join(modules, "libnss_"+m+".so.2"), "programs/nss.c").CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	script := `
rm -f ` + d.log + ` # the shells before it have asked nscd for their user
lookup-glibc four.example printer.local hand none.example ` + handWorld + `
getent hosts four.example; getent ahosts printer.local
python3 -c 'import socket; print(socket.gethostbyname("printer.local"), socket.getfqdn("hand"))'
node -e 'require("dns").lookup("printer.local", (e, a) => console.log(e ? e.code : a))'
java -XX:TieredStopAtLevel=1 -cp ` + "$(dirname $(command -v probe))" + ` Look printer.local
exit 0`
	env := "LD_LIBRARY_PATH=" + modules
	got := d.run(t, true, "", script, env)
	for _, file := range []string{d.log, d.leak} {
		if b, _ := os.ReadFile(file); len(b) > 0 {
			t.Errorf("in a session %s was asked", strings.Join(strings.Fields(string(b)), ", "))
		}
	}
	if !strings.Contains(got, "java printer.local: "+handOther) || !strings.Contains(got, handOther+" hand") {
		t.Errorf("the pod's name server was not asked:\n%s", got)
	}
	// The stand-ins do hear who asks them.
	d.run(t, false, "", "getent hosts printer.local; exit 0", env)
	for _, file := range []string{d.log, d.leak} { // they write after the one who asked has ended, perhaps
		b, err := os.ReadFile(file)
		for end := time.Now().Add(runTime); (err != nil || len(b) == 0) && time.Now().Before(end); b, err = os.ReadFile(file) {
			time.Sleep(10 * time.Millisecond)
		}
		if err != nil || len(b) == 0 {
			t.Errorf("without a session %s has nothing: the test proves nothing", filepath.Base(file))
		}
	}
}
