package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// pods of files.yaml, made by the first test that needs them.
var filesPods sync.Once

// filesPod waits until the pod files is there.
func filesPod(t testing.TB) {
	t.Helper()
	filesPods.Do(func() { applied(t, w.namespace, "files.yaml") })
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := w.cluster.WaitReady(ctx, w.namespace, "pod/files"); err != nil {
		t.Fatal(err)
	}
}

// inContainer runs a shell script in a container of the pod files.
func inContainer(t testing.TB, container, text string) string {
	t.Helper()
	return kubectl(t, "exec", "files", "-c", container, "--", "bash", "-c", text)
}

// scratch makes a directory on the pod's disk for this test.
func scratch(t testing.TB, name string) string {
	t.Helper()
	dir := "/scratch/" + name
	inContainer(t, "app", "mkdir "+dir)
	t.Cleanup(func() { // the test's context is over
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		if _, err := w.cluster.Kubectl(ctx, "-n", w.namespace, "exec", "files", "-c", "app", "--", "rm", "-rf", dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// seeing gives arguments for a session with feature.fs as given.
func seeing(t testing.TB, target string, fs map[string]any) []string {
	t.Helper()
	return append(withFS(t, fs)[:2], "-t", target, "-q")
}

// ownDir makes a directory of the user's below the tests' own.
func ownDir(t testing.TB, name string) string {
	t.Helper()
	dir := filepath.Join(w.dir, "work", name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(dir, user, user); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// asUser runs a command without mirrord, as the user, and gives what it says.
func asUser(t testing.TB, argv ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), argv[0], argv[1:]...)
	cmd.Dir, cmd.Env = filepath.Join(w.dir, "work"), environment()
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: user, Gid: user}}
	out, err := cmd.Output()
	return string(out), err
}

// looked is a thing to look at, by a script.
type looked struct{ name, text string }

// alike runs scripts in the pod's container app and in one session, in the
// directory dir of the target's, and compares what they say.
func alike(t *testing.T, args []string, dir string, all []looked) {
	t.Helper()
	var script strings.Builder
	fmt.Fprintf(&script, "cd %s\n", dir)
	for _, l := range all {
		fmt.Fprintf(&script, "echo '=== %s'\n(\n%s\n) 2>&1\n", l.name, l.text)
	}
	want := sections(inContainer(t, "app", script.String()))
	got := sections(in(t, "", append(args, "bash", "-c", script.String())...))
	for _, l := range all {
		t.Run(l.name, func(t *testing.T) {
			differ(t, got[l.name], want[l.name])
			if t.Failed() {
				t.Logf("got:\n%s\nwant:\n%s", got[l.name], want[l.name])
			}
		})
	}
}
