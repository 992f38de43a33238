package e2e

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// engineMachine makes this machine one whose cgroups podman's runtime knows: some
// mount cgroup v2 beside v1, which crun refuses. ids are set aside or not.
func engineMachine(aside bool) func(*exec.Cmd) {
	return func(c *exec.Cmd) {
		script := "mount -t tmpfs none /sys/fs/cgroup && mount -t tmpfs none /mnt && >/mnt/ids && "
		if aside {
			// podman asks by $USER, which need not be a user of this machine, newuidmap by number.
			script += fmt.Sprintf("echo %d:200000:65536 >/mnt/ids && echo $USER:200000:65536 >>/mnt/ids && ", user)
		}
		script += fmt.Sprintf(`mount --bind /mnt/ids /etc/subuid && mount --bind /mnt/ids /etc/subgid && exec setpriv --reuid %d --regid %[1]d --clear-groups "$0" "$@"`, user)
		c.Args = append([]string{"sh", "-c", script, c.Path}, c.Args[1:]...)
		c.Path = "/bin/sh"
		c.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
		home := filepath.Join(w.dir, fmt.Sprintf("engine-%v", aside)) // podman's store is of one map of ids
		c.Env = append(c.Env, "HOME="+home, "XDG_RUNTIME_DIR="+home)
	}
}

// podman runs the engine without a session.
func podman(t *testing.T, aside bool, args ...string) string {
	t.Helper()
	t.Cleanup(func() { endPause(aside) })
	r := startCommandOnly(t, append([]string{"/usr/bin/podman"}, args...), engineMachine(aside))
	if code := r.end(); code != 0 {
		t.Fatalf("podman %s: exit code %d: %s", strings.Join(args, " "), code, r.stderr)
	}
	return strings.TrimSpace(r.stdout.String())
}

// endPause ends the process that podman leaves to hold its namespaces.
func endPause(aside bool) {
	file := filepath.Join(w.dir, fmt.Sprintf("engine-%v", aside), "libpod", "tmp", "pause.pid")
	text, err := os.ReadFile(file)
	if pid, perr := strconv.Atoi(strings.TrimSpace(string(text))); err == nil && perr == nil {
		_ = syscall.Kill(pid, syscall.SIGKILL)
		_ = os.Remove(file)
	}
}

// contained starts a container in a session.
func contained(t *testing.T, aside bool, flags []string, run ...string) *run {
	t.Helper()
	argv := append([]string{w.mirrord, "container", "-n", w.namespace, "-t", "pod/app"}, flags...)
	argv = append(argv, "--", "podman", "run", "--rm", "--cgroups=disabled")
	return startCommand(t, append(argv, run...), engineMachine(aside))
}

// image makes one of a static shell and of a program with musl, with nothing
// else: no C library, no loader.
func image(t *testing.T, aside bool) {
	t.Helper()
	root := t.TempDir()
	must := func(argv ...string) {
		if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v: %s", argv, err, out)
		}
	}
	if err := os.MkdirAll(filepath.Join(w.dir, fmt.Sprintf("engine-%v", aside)), 0o700); err != nil {
		t.Fatal(err)
	}
	must("chown", fmt.Sprintf("%d:%[1]d", user), filepath.Join(w.dir, fmt.Sprintf("engine-%v", aside)))
	must("sh", "-c", `cd "$0" && mkdir bin etc data && cp "$(command -v busybox)" bin && ln -s busybox bin/sh && cp "$1" bin/lookup && echo container >etc/who && echo image >data/mine`,
		root, filepath.Join(w.dir, "bin", "lookup-musl"))
	tar := filepath.Join(w.dir, fmt.Sprintf("tiny-%v.tar", aside))
	must("tar", "-C", root, "-cf", tar, ".")
	podman(t, aside, "import", "-q", "-c", "ENV COLOR=image", "-c", "ENV OTHER=image", tar, "localhost/tiny:1")
}

// TestContainer: a container of any image finds the target's variables, names,
// network, hostname and volumes, and gives its exit code.
func TestContainer(t *testing.T) {
	for _, aside := range []bool{false, true} {
		t.Run(fmt.Sprintf("ids set aside %v", aside), func(t *testing.T) {
			image(t, aside)
			who := "0"
			if aside {
				who = "1234" // the number of the target's user
			}
			r := contained(t, aside, nil, "-u", who, "-e", "ROLE=mine", "localhost/tiny:1", "sh", "-c", `
				echo "color=$COLOR other=$OTHER role=$ROLE local=$ONLY_LOCAL home=$HOME"
				echo "multi=$MULTI"
				echo "host=$(busybox hostname) user=$(busybox id -u)"
				busybox cat /etc/app/config.yaml /run/secrets/app/token; echo
				busybox cat /data/hello.txt /data/private; busybox ls /data/mine
				(echo x >/etc/app/new) 2>&1 | busybox grep -o 'Read-only'
				echo hello | busybox nc echo 7000
				lookup echo
				exit 7`)
			if code := r.end(); code != 7 {
				t.Errorf("exit code %d, want 7", code)
			}
			service := kubectl(t, "get", "service", "echo", "-o", "jsonpath={.spec.clusterIP}")
			for _, want := range []string{"color=blue other=image role=mine local= ", "multi=two\nlines\n", "host=app user=" + who + "\n", "colour: blue\n", "s3cr3t\n", "from-pod\nprivate\n",
				"Read-only\n", "echo hello from ", service} {
				if !strings.Contains(r.stdout.String(), want) {
					t.Errorf("stdout has no %q", want)
				}
			}
			if strings.Contains(r.stdout.String(), "/data/mine\n") {
				t.Error("the image's file is seen where the target has a volume")
			}
			if aside { // with another map of ids than podman's own
				r := contained(t, aside, nil, "--userns=keep-id", "localhost/tiny:1", "sh", "-c", `echo "$(busybox id -u) is $COLOR"`)
				if code := r.end(); code != 0 || !strings.Contains(r.stdout.String(), fmt.Sprintf("%d is blue\n", user)) {
					t.Errorf("--userns=keep-id: exit code %d", code)
				}
			}
			if left := podman(t, aside, "ps", "-aq"); left != "" {
				t.Errorf("containers are left: %s", left)
			}
		})
	}
}

// TestContainerServes: what a container listens on is stolen, and published here
// as -p says; a signal reaches it.
func TestContainerServes(t *testing.T) {
	image(t, false)
	r := contained(t, false, []string{"--steal"}, "-p", "18321:8031", "localhost/tiny:1", "sh", "-c",
		`trap "exit 9" TERM; busybox httpd -p 8031 -h /etc; echo ready; while :; do busybox sleep 0.1; done`)
	r.waitFor("ready")
	if got := request(t, "http://"+podIP(t, "app")+":8031/who"); got != "container" {
		t.Errorf("a client in the cluster got %q", got)
	}
	if got := request(t, "http://"+podIP(t, "app")+":8032/who"); !strings.HasPrefix(got, "remote") {
		t.Errorf("another port: got %q", got)
	}
	if got, err := httpGet("http://127.0.0.1:18321/who"); err != nil || got != "container" {
		t.Errorf("a client here got %q, %v", got, err)
	}
	if code := r.stop(); code != 9 {
		t.Errorf("exit code %d, want 9", code)
	}
	if left := podman(t, false, "ps", "-aq"); left != "" {
		t.Errorf("containers are left: %s", left)
	}
}

// TestContainerTerminal: with -it the container has a terminal of the size of the
// user's, what is typed reaches it, and Ctrl-C as well.
func TestContainerTerminal(t *testing.T) {
	image(t, false)
	line := fmt.Sprintf(`stty rows 33 cols 101; exec %s container -q -n %s -t pod/app -- podman run --rm -it --cgroups=disabled localhost/tiny:1 sh -c '%s'`, w.mirrord, w.namespace,
		`busybox tty; busybox stty size; echo "which co""lour?"; read said; echo "$said is $COLOR"; trap "echo told; exit 9" INT; echo "rea""dy"; while :; do busybox sleep 0.1; done`)
	r := startCommand(t, []string{"/usr/bin/script", "-qec", line, "/dev/null"}, engineMachine(false))
	r.waitFor("which colour?")
	_, err := io.WriteString(r.stdin, "mine\n")
	r.waitFor("ready")
	if err == nil {
		_, err = io.WriteString(r.stdin, "\x03")
	}
	if err != nil {
		t.Fatal(err)
	}
	if code := r.wait(); code != 9 {
		t.Errorf("exit code %d, want 9", code)
	}
	for _, want := range []string{"/dev/", "33 101", "mine is blue", "told"} {
		if !strings.Contains(r.stdout.String(), want) {
			t.Errorf("the terminal has no %q", want)
		}
	}
	if left := podman(t, false, "ps", "-aq"); left != "" {
		t.Errorf("containers are left: %s", left)
	}
}
