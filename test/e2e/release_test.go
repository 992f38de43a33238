package e2e

import (
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/mirrord-go/mirrord/internal/testdocs"
)

// standInKind plays the tool of that name: what it is to load it puts where the test
// finds it.
const standInKind = "#!/bin/sh\n" + `[ "$1 $2 $4 $5" = "load image-archive --name dev" ] && cp "$3" "$HOME/loaded.tar"` + "\n"

// TestRelease: three commands of the documents lead from the archive of a release
// to a session on a cluster that is there, in a directory without anything else,
// for a user who has a kubeconfig and no more.
func TestRelease(t *testing.T) {
	rows := testdocs.Of(testdocs.Release)
	if len(rows) != 3 {
		t.Errorf("there are %d commands, not three", len(rows))
	}
	d := &documents{namespace: w.cluster.Namespace(t), dir: filepath.Join(w.dir, "release")}
	t.Cleanup(d.nothingLeft(t))
	applied(t, d.namespace, "documents.yaml")
	work, home, bin := filepath.Join(d.dir, "work"), filepath.Join(d.dir, "home"), filepath.Join(d.dir, "bin")
	kubeconfig := filepath.Join(home, ".kube", "config")
	run := func(argv ...string) string {
		t.Helper()
		out, err := exec.CommandContext(t.Context(), argv[0], argv[1:]...).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %v: %s", argv, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	dist := filepath.Join(t.TempDir(), "dist")
	run("../../packaging/build", "-o", dist, "-s", "linux", "1.2.3", runtime.GOARCH)
	run("mkdir", "-p", work, bin, filepath.Dir(kubeconfig))
	run("cp", filepath.Join(dist, "mirrord-1.2.3-linux-"+runtime.GOARCH+".tar.gz"), work)
	run("cp", w.cluster.Kubeconfig(), kubeconfig)
	kubectl := filepath.Join(filepath.Dir(w.cluster.Kubeconfig()), "kubectl")
	run(kubectl, "config", "--kubeconfig", kubeconfig, "rename-context", run(kubectl, "config", "--kubeconfig", kubeconfig, "current-context"), "kind-dev")
	run(kubectl, "config", "--kubeconfig", kubeconfig, "set-context", "kind-dev", "--namespace", d.namespace)
	if err := os.WriteFile(filepath.Join(bin, "kind"), []byte(standInKind), 0o755); err != nil {
		t.Fatal(err)
	}
	run("chown", "-R", "1000:1000", d.dir)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	if err := w.cluster.WaitReady(ctx, d.namespace, "deployment/shop"); err != nil {
		t.Fatal(err)
	}

	for _, r := range rows {
		c := startCommandOnly(t, []string{"bash", "-c", strings.ReplaceAll(r.Text, "linux-amd64", "linux-"+runtime.GOARCH)}, func(c *exec.Cmd) {
			c.Dir = work
			c.Env = []string{"HOME=" + home, "PATH=" + bin + ":/usr/bin:/bin", "USER=dev", "LANG=C.UTF-8"}
			c.Stderr = c.Stdout // in the order of a terminal
		})
		if strings.HasSuffix(r.Text, " bash") { // what is typed there
			if _, err := io.WriteString(c.stdin, "echo $COLOUR\n"); err != nil {
				t.Error(err)
			}
		}
		if code := c.end(); code != 0 || !regexp.MustCompile(r.Says).MatchString(c.stdout.String()) {
			t.Fatalf("%s: exit code %d; it is to say %q", r.Text, code, r.Says)
		}
		if strings.Contains(r.Text, "--load") {
			if err := w.cluster.Load(ctx, filepath.Join(home, "loaded.tar")); err != nil {
				t.Fatal(err)
			}
		}
	}
}
