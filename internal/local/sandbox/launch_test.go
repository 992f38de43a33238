package sandbox

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/mirrord-go/mirrord/internal/local/sandbox/handoff"
)

func TestExitCodes(t *testing.T) {
	asBoth(t, func(t *testing.T, uid int) {
		for _, c := range []struct {
			script string
			want   int
		}{{"exit 0", 0}, {"exit 7", 7}, {"kill -TERM $$", 143}, {"kill -KILL $$", 137}, {"kill -SEGV $$", 139}} {
			r := start(t, uid, scenario{}.sh(c.script))
			if got := r.code(); got != c.want {
				t.Errorf("%s: got %d, want %d", c.script, got, c.want)
			}
			r.await("done")
		}
	})
}

// TestContext: what the command sees of itself.
func TestContext(t *testing.T) {
	asBoth(t, func(t *testing.T, uid int) {
		dir := t.TempDir()
		os.Chmod(filepath.Dir(dir), 0o755)
		sc := scenario{}.sh(`hostname; pwd; id -u; id -g; echo "$ODD" | od -An -tx1 | tr -d ' \n'; echo; env | grep -c MIRRORD_INIT; grep CapEff /proc/self/status; grep CapInh /proc/self/status; grep NoNewPrivs /proc/self/status; ls /proc/self/fd | tr '\n' ' '`)
		sc.Spec.Hostname, sc.Spec.Dir = "pod-1", dir
		sc.Spec.Env = []string{"BIG=" + strings.Repeat("x", 100<<10), "LARGE=" + strings.Repeat("y", 100<<10), "ODD=ab"}
		r := start(t, uid, sc)
		if got := r.code(); got != 0 {
			t.Errorf("exit code: got %d, want 0", got)
		}
		<-r.printed
		caps := "0000000000000000"
		if uid == 0 { // whatever root has here
			caps = ""
		}
		want := fmt.Sprintf("pod-1\n%s\n%d\n%d\n61620a\n0\nCapEff:\t%s", dir, uid, uid, caps)
		got := r.output.String()
		if !strings.HasPrefix(got, want) {
			t.Errorf("got %q, want the start %q", got, want)
		}
		for _, part := range []string{"CapInh:\t0000000000000000", "NoNewPrivs:\t0", "\n0 1 2 3 "} {
			if !strings.Contains(got, part) {
				t.Errorf("output %q lacks %q", got, part)
			}
		}
	})
}

// TestDescriptorsPass: what the caller left open reaches the command at the
// same number, and nothing of ours does.
func TestDescriptorsPass(t *testing.T) {
	asBoth(t, func(t *testing.T, uid int) {
		out, in, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer out.Close()
		r := start(t, uid, scenario{}.sh(`ls /proc/self/fd; echo word >&9; exec 9>&-; read x`), func(c *exec.Cmd) {
			c.ExtraFiles = append(c.ExtraFiles, nil, nil, nil, nil, in) // 9
			stdin, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			c.Stdin = stdin
			t.Cleanup(func() { w.Close(); stdin.Close() })
		})
		in.Close()
		b := make([]byte, 100)
		n, err := out.Read(b)
		if err != nil || string(b[:n]) != "word\n" {
			t.Fatalf("from descriptor 9: got %q, %v; want word", b[:n], err)
		}
		// The command has closed it: nobody else may hold it.
		if n, err := out.Read(b); n != 0 {
			t.Errorf("after the command closed it: got %q, %v; want the end", b[:n], err)
		}
		r.prints("0\n1\n2\n3\n9\n") // 3 is the listing itself
		unix.Kill(r.cmd.Process.Pid, unix.SIGTERM)
		if got := r.code(); got != 143 {
			t.Errorf("exit code: got %d, want 143", got)
		}
	})
}

func TestSignalsAreForwarded(t *testing.T) {
	asBoth(t, func(t *testing.T, uid int) {
		r := start(t, uid, scenario{}.prog(t, "count-signals"), func(c *exec.Cmd) { c.SysProcAttr.Setsid = true })
		r.prints("ready")
		for _, s := range []syscall.Signal{unix.SIGINT, unix.SIGUSR1, unix.SIGWINCH, unix.SIGHUP, unix.SIGTERM} {
			unix.Kill(r.cmd.Process.Pid, s)
			r.prints(unix.SignalName(s) + " 1\n")
		}
		if got := r.code(); got != 7 {
			t.Errorf("exit code: got %d, want 7", got)
		}
		if strings.Contains(r.output.String(), " 2\n") {
			t.Errorf("a signal came twice: %s", r.output)
		}
	})
}

// TestIgnoredSignalStaysIgnored: as under nohup.
func TestIgnoredSignalStaysIgnored(t *testing.T) {
	r := start(t, userUID, scenario{}.sh(`echo ready; grep SigIgn /proc/self/status; kill -HUP $$; echo alive`), func(c *exec.Cmd) {
		c.Args = []string{"sh", "-c", `trap "" HUP; exec "$0"`, c.Path}
		c.Path = "/bin/sh"
	})
	r.prints("alive")
	if got := r.code(); got != 0 {
		t.Errorf("exit code: got %d, want 0", got)
	}
}

func TestStdin(t *testing.T) {
	asBoth(t, func(t *testing.T, uid int) {
		r := start(t, uid, scenario{}.sh(`cat; echo end`), func(c *exec.Cmd) { c.Stdin = strings.NewReader("some words\n") })
		if got := r.code(); got != 0 {
			t.Errorf("exit code: got %d, want 0", got)
		}
		<-r.printed
		if got, want := r.output.String(), "some words\nend\n"; got != want {
			t.Errorf("output: got %q, want %q", got, want)
		}
	})
}

// TestFailures: each step's failure is named, and the exit code is a shell's.
func TestFailures(t *testing.T) {
	dir := t.TempDir()
	os.Chmod(dir, 0o755)
	os.Chmod(filepath.Dir(dir), 0o755)
	notExecutable, script := filepath.Join(dir, "plain"), filepath.Join(dir, "script")
	os.WriteFile(notExecutable, []byte("text"), 0o644)
	os.WriteFile(script, []byte("echo a script without an interpreter line; exit 3"), 0o755)
	for _, c := range []struct {
		name  string
		spec  handoff.Spec
		step  handoff.Step
		errno syscall.Errno
		code  int
	}{
		{"no such command", handoff.Spec{Argv: []string{"no-such-command"}}, handoff.StepLookup, unix.ENOENT, 127},
		{"no such file", handoff.Spec{Argv: []string{"/no/such/file"}}, handoff.StepExec, unix.ENOENT, 127},
		{"not executable", handoff.Spec{Argv: []string{notExecutable}}, handoff.StepExec, unix.EACCES, 126},
		{"not executable in PATH", handoff.Spec{Argv: []string{"plain"}, Env: []string{"PATH=" + dir}}, handoff.StepLookup, unix.EACCES, 126},
		{"a directory", handoff.Spec{Argv: []string{"/etc"}}, handoff.StepExec, unix.EACCES, 126},
		{"no working directory", handoff.Spec{Argv: []string{"true"}, Dir: "/no/such/dir"}, handoff.StepChdir, unix.ENOENT, 125},
		{"no local directory", handoff.Spec{Argv: []string{"true"}, FUSE: true, Binds: []string{"/no/such/dir"}}, handoff.StepBind, unix.ENOENT, 125},
		{"long host name", handoff.Spec{Argv: []string{"true"}, Hostname: strings.Repeat("x", 100)}, handoff.StepHostname, unix.EINVAL, 125},
		{"script without interpreter", handoff.Spec{Argv: []string{script}}, "", 0, 3},
	} {
		t.Run(c.name, func(t *testing.T) {
			asBoth(t, func(t *testing.T, uid int) {
				r := start(t, uid, scenario{Spec: c.spec})
				if got := r.code(); got != c.code {
					t.Errorf("exit code: got %d, want %d", got, c.code)
				}
				if c.step == "" {
					return
				}
				e := r.await("failed")
				if e.Step != c.step || e.Errno != c.errno {
					t.Errorf("got step %q, %v (%s); want %q, %v", e.Step, e.Errno, e.Text, c.step, c.errno)
				}
			})
		})
	}
}

// TestNoUserNamespace: the front learns why there is no sandbox.
func TestNoUserNamespace(t *testing.T) {
	r := start(t, userUID, scenario{}.sh("true"), func(c *exec.Cmd) {
		// In a namespace whose own limit is zero: the machine's stays.
		c.Args = []string{"unshare", "--map-current-user", "--keep-caps", "sh", "-c",
			`echo 0 >/proc/sys/user/max_user_namespaces; exec setpriv --ambient-caps -all --inh-caps -all "$0"`, c.Path}
		c.Path = "/usr/bin/unshare"
	})
	e := r.await("launch")
	if e.Step != handoff.StepUserNS || e.Errno != unix.ENOSPC {
		t.Errorf("got step %q, %v; want %q, %v", e.Step, e.Errno, handoff.StepUserNS, unix.ENOSPC)
	}
	if got := r.code(); got != 99 {
		t.Errorf("exit code: got %d, want 99", got)
	}
}
