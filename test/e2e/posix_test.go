package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestAsOnADisk: a program cannot tell the target's files, nor local ones that
// the session serves, from those of a disk. What it does and sees there is
// compared, line by line, with a directory of this machine.
func TestAsOnADisk(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	err := w.cluster.Apply(ctx, w.namespace, fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata: {name: disk}
spec:
  terminationGracePeriodSeconds: 1
  securityContext: {runAsUser: %d, runAsGroup: %[1]d, fsGroup: %[1]d} # an ordinary user, as the developer is
  volumes: [{name: scratch, emptyDir: {}}]
  containers:
  - {name: app, image: "debian:1", command: [sleep, "100000"], volumeMounts: [{name: scratch, mountPath: /scratch}]}
`, user))
	if err == nil {
		err = w.cluster.WaitReady(ctx, w.namespace, "pod/disk")
	}
	if err != nil {
		t.Fatal(err)
	}
	local := filepath.Join(w.dir, "work", "disk")
	own := func(dir string) string {
		t.Helper()
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(dir, user, user); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.RemoveAll(dir) })
		return dir
	}
	cmd := exec.Command(filepath.Join(w.dir, "bin", "posix"), own(local))
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: user, Gid: user}}
	want, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, want)
	}
	served := own(filepath.Join(w.dir, "work", "served"))
	for _, c := range []struct {
		name, dir string
		fs        map[string]any
	}{
		{"the target's", "/scratch/disk", map[string]any{"mode": "write"}},
		{"local ones that are served", served, map[string]any{"mode": "read", "read_only": []string{"^" + served + `/.*\.tmpl$`}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			args := append(withFS(t, c.fs)[:2], "-t", "pod/disk", "-q")
			got := known(t, append(args, "sh", "-c", "mkdir -p "+c.dir+" && chmod g-s "+c.dir+" && exec posix "+c.dir)...)
			wants, gots := strings.Split(strings.TrimSpace(string(want)), "\n"), strings.Split(strings.TrimSpace(got), "\n")
			for i := range max(len(wants), len(gots)) {
				if i >= len(wants) || i >= len(gots) || wants[i] != gots[i] {
					t.Errorf("got\n%s\nwant\n%s", line(gots, i), line(wants, i))
				}
			}
			seed := fmt.Sprint(time.Now().UnixNano())
			one, other := filepath.Join(c.dir, "random"), own(filepath.Join(w.dir, "work", "twin-"+seed))
			if got := known(t, append(args, "sh", "-c", fmt.Sprintf("mkdir %s && posix -seed %s -steps 600 %[1]s %[3]s", one, seed, other))...); got != "done" {
				t.Error(got)
			}
		})
	}
}

func line(all []string, i int) string {
	if i < len(all) {
		return all[i]
	}
	return "nothing"
}
