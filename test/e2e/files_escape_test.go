package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// TestFilesEscape: no link of the target's, and no race, leads to a file of the
// developer's, or of the machine that the target is on. The target is a process
// with a root directory of its own on this machine, which is both.
func TestFilesEscape(t *testing.T) {
	outside := ownDir(t, "outside")
	root := filepath.Join(outside, "root")
	put := func(p, content string) {
		t.Helper()
		err := os.MkdirAll(filepath.Dir(p), 0o755)
		if err == nil {
			err = os.WriteFile(p, []byte(content), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	secret := filepath.Join(outside, "secret")
	put(secret, "the developer's\n")
	for _, p := range []string{"/etc/passwd", "/etc/hostname", "/srv/own/file", "/home/x", "/srv/swap/secret", "/srv/own/etc/passwd"} {
		put(root+p, "the target's\n")
	}
	climb := strings.Repeat("../", 30)
	links := map[string]string{
		"absolute": secret, "relative": climb + secret[1:], "home": outside, "passwd": "/etc/passwd", "etc": "/etc", "slash": "/", "up": "../..", "further": climb,
		"dots": "own/../../etc/passwd", "through": "etc/../etc/hostname", "slash2": "slash/etc/passwd", "chain": "etc2/passwd", "etc2": "etc3", "etc3": "slash/etc",
		"self": "/proc/self/cwd/secret", "proc": "/proc/1/root" + secret, "fd": "/dev/fd/0", "view": "/.mirrord/remote/etc/passwd", "view2": "/.mirrord/remote/.." + secret,
		"new": filepath.Join(outside, "made"), "tmp": "/tmp", "swap2": outside, "loop": "loop", "machine": "/var/lib/dpkg/status",
	}
	for name, to := range links {
		if err := os.Symlink(to, filepath.Join(root, "srv", name)); err != nil {
			t.Fatal(err)
		}
	}
	target := rooted(t, root)
	racing := make(chan struct{})
	raced := make(chan struct{})
	go func() {
		defer close(raced)
		for {
			select {
			case <-racing:
				return
			default:
				_ = unix.Renameat2(unix.AT_FDCWD, filepath.Join(root, "srv/swap"), unix.AT_FDCWD, filepath.Join(root, "srv/swap2"), unix.RENAME_EXCHANGE)
			}
		}
	}()
	defer func() { close(racing); <-raced }()

	// What is read, "-" for nothing.
	table := []struct{ path, want string }{
		{"/srv/own/file", "the target's"},
		{"/srv/absolute", "-"}, {"/srv/relative", "-"}, {"/srv/home/secret", "-"}, {"/srv/machine", "-"},
		{"/srv/passwd", "the target's"}, {"/srv/etc/passwd", "the target's"}, {"/srv/slash/etc/hostname", "the target's"}, {"/srv/up/etc/passwd", "the target's"},
		{"/srv/further/etc/passwd", "the target's"}, {"/srv/further" + secret, "-"}, {"/srv/slash" + secret, "-"}, {"/srv/up" + secret, "-"},
		{"/srv/dots", "the target's"}, {"/srv/through", "the target's"}, {"/srv/slash2", "the target's"}, {"/srv/chain", "the target's"},
		{"/srv/etc/../srv/own/file", "the target's"}, {"/srv/etc3/../srv/etc2/passwd", "the target's"},
		{"/srv/self", "-"}, {"/srv/proc", "-"}, {"/srv/fd", "-"}, {"/srv/view", "the target's"}, {"/srv/view2", "-"}, {"/srv/loop", "-"}, {"/srv/tmp/secret", "-"},
		{"/.mirrord/remote/srv/absolute", "-"}, {"/.mirrord/remote/srv/passwd", "the target's"}, {"/.mirrord/remote/srv/slash" + secret, "-"}, {"/.mirrord/remote" + secret, "-"},
	}
	script := ""
	for i, c := range table {
		script += fmt.Sprintf("echo '=== %d'; cat %s 2>/dev/null </dev/null || echo -\n", i, c.path)
	}
	script += `echo '=== made'
		for p in new absolute relative tmp/made home/made slash/tmp/made swap/made further/tmp/made; do (echo x >/srv/$p) 2>/dev/null; done
		for p in absolute home/secret; do rm -f /srv/$p.none; chmod 777 /srv/$p 2>/dev/null; truncate -s 0 /srv/$p 2>/dev/null; done
		echo '=== race'; for i in $(seq 150); do cat /srv/swap/secret; ls /srv/swap; done 2>/dev/null | grep -c -e developer -e root`
	for _, mode := range []string{"read", "write"} {
		t.Run(mode, func(t *testing.T) {
			args := seeing(t, target, map[string]any{"mode": mode, "read_only": []string{"^/srv(/|$)"}})
			if mode == "write" {
				args = seeing(t, target, map[string]any{"mode": mode})
			}
			r := startCommand(t, append(append([]string{w.mirrord, "exec"}, args...), "bash", "-c", script), nil)
			if code := r.end(); code > 1 {
				t.Errorf("exit code %d", code)
			}
			got := sections(r.stdout.String())
			for i, c := range table {
				if got := strings.TrimSpace(got[fmt.Sprint(i)]); got != c.want {
					t.Errorf("%s: got %q, want %q", c.path, got, c.want)
				}
			}
			if got := strings.TrimSpace(got["race"]); got != "0" {
				t.Errorf("%s answers are the developer's", got)
			}
			if b, err := os.ReadFile(secret); err != nil || string(b) != "the developer's\n" {
				t.Errorf("the developer's file has %q, %v", b, err)
			}
			for _, p := range []string{filepath.Join(outside, "made"), "/tmp/made"} {
				if _, err := os.Lstat(p); err == nil {
					t.Errorf("%s was made", p)
					os.Remove(p)
				}
			}
			if fi, err := os.Stat(secret); err != nil || fi.Mode().Perm() != 0o644 {
				t.Errorf("the developer's file: %v, %v", fi.Mode(), err)
			}
		})
	}
}

// rooted starts a process of the user's that has root, a directory that becomes
// the user's, as its root directory, and gives it as a target.
func rooted(t testing.TB, root string) string {
	t.Helper()
	for _, argv := range [][]string{{"cp", filepath.Join(w.dir, "bin", "goserver"), root + "/"}, {"chown", "-hR", fmt.Sprintf("%d:%[1]d", user), filepath.Dir(root)}} {
		if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v: %s", argv, err, out)
		}
	}
	process := exec.Command("/goserver", "0")
	process.SysProcAttr = &syscall.SysProcAttr{Chroot: root, Credential: &syscall.Credential{Uid: user, Gid: user}}
	process.Dir = "/"
	if err := process.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = process.Process.Kill(); _ = process.Wait() })
	return fmt.Sprintf("process/%d", process.Process.Pid)
}
