package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mirrord-go/mirrord/internal/testdocs"
)

// documents is where the command lines of the documents run: a namespace with
// the pods that they name, and a directory with the files.
type documents struct {
	namespace, dir string
	vars           string // assignments of the shell, from command lines before
}

// documentFiles are what the examples' developer has in the project.
var documentFiles = map[string]string{
	"main.py":      "import http.server\nhttp.server.HTTPServer(('', 8080), http.server.SimpleHTTPRequestHandler).serve_forever()\n",
	"app.py":       "",
	"app.js":       "",
	"server.js":    "require('http').createServer((q, s) => s.end('local')).listen(8080)\n",
	"package.json": `{"scripts": {"test": "true"}}`,
}

// TestDocuments runs the command lines of the documents that need a cluster, as
// they stand there, and looks whether they show what is shown.
func TestDocuments(t *testing.T) {
	d := newDocuments(t)
	rows := testdocs.Of(testdocs.InCluster)
	// Who takes the traffic of a pod has it alone.
	ofShop := func(r testdocs.Row) bool {
		return strings.Contains(r.Text, "deployment/shop") || strings.Contains(r.Config, "deployment/shop") || strings.Contains(r.Text, "session") || r.Text == "mirrord up" || strings.Contains(r.Text, "status")
	}
	for _, lane := range []struct {
		name string
		has  func(testdocs.Row) bool
	}{{"deployment", ofShop}, {"others", func(r testdocs.Row) bool { return !ofShop(r) }}} {
		t.Run(lane.name, func(t *testing.T) {
			t.Parallel()
			mine := d.project(t, lane.name)
			for _, r := range rows {
				if lane.has(r) {
					t.Run(r.Text, func(t *testing.T) { mine.try(t, r) })
				}
			}
		})
	}
}

func newDocuments(t *testing.T) *documents {
	t.Helper()
	d := &documents{namespace: w.cluster.Namespace(t), dir: filepath.Join(w.dir, "documents")}
	bin := filepath.Join(d.dir, "bin")
	if err := os.MkdirAll(bin, 0o755); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	if _, err := w.cluster.Kubectl(ctx, "apply", "-n", d.namespace, "-f", "testdata/documents.yaml"); err != nil {
		t.Fatal(err)
	}
	kubeconfig := filepath.Join(d.dir, "kubeconfig")
	for _, c := range [][]string{
		{"cp", w.cluster.Kubeconfig(), kubeconfig},
		{"cp", "-L", filepath.Join(filepath.Dir(w.cluster.Kubeconfig()), "kubectl"), bin},
		{"ln", "-s", w.mirrord, bin},
		{"ln", "-s", "/usr/bin/python3", filepath.Join(bin, "python")},
		{"ln", "-s", "/usr/bin/python3", bin},
		{"ln", "-s", delve(t), bin},
	} {
		if out, err := exec.Command(c[0], c[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v: %s", c, err, out)
		}
	}
	was, err := w.cluster.Kubectl(ctx, "config", "--kubeconfig", kubeconfig, "current-context")
	for _, args := range [][]string{{"rename-context", strings.TrimSpace(was), "dev"}, {"set-context", "dev", "--namespace", d.namespace}} {
		if err == nil {
			_, err = w.cluster.Kubectl(ctx, append([]string{"config", "--kubeconfig", kubeconfig}, args...)...)
		}
	}
	if err == nil {
		err = w.cluster.WaitReady(ctx, d.namespace, "pod/shop-7d4b9", "pod/dbmaster-0", "deployment/shop")
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.nothingLeft(t))
	return d
}

// project is a directory of its own, with all that the command lines name.
func (d *documents) project(t *testing.T, name string) *documents {
	t.Helper()
	p := &documents{namespace: d.namespace, dir: filepath.Join(d.dir, name)}
	for _, sub := range []string{"", ".mirrord", "home", "run"} {
		if err := os.MkdirAll(filepath.Join(p.dir, sub), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range documentFiles {
		if err := os.WriteFile(filepath.Join(p.dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	debug := filepath.Join(w.dir, "bin", "debug")
	for _, c := range [][]string{
		{"cp", filepath.Join(debug, "debugged-go"), filepath.Join(p.dir, "shop")},
		{"jar", "cfe", filepath.Join(p.dir, "shop.jar"), "Debugged", "-C", debug, "Debugged.class"},
		{"ln", "-s", "../bin", filepath.Join(p.dir, "bin")},
		{"chown", "-R", fmt.Sprintf("%d:%d", user, user), d.dir},
	} {
		if out, err := exec.Command(c[0], c[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v: %s", c, err, out)
		}
	}
	return p
}

// here puts the names of this run into a text of the documents, and there back.
func (d *documents) here(text string) string {
	return strings.NewReplacer("staging", d.namespace, "NAMESPACE", d.namespace).Replace(text)
}

func (d *documents) there(text string) string {
	return strings.ReplaceAll(text, d.namespace, "staging")
}

// start runs a command line in a shell.
func (d *documents) start(t *testing.T, text string) *run {
	t.Helper()
	r := startCommandOnly(t, []string{"bash", "-c", "set -o pipefail\n" + d.vars + text}, func(c *exec.Cmd) {
		c.Dir = d.dir
		c.Env = []string{
			d.home(), "XDG_RUNTIME_DIR=" + filepath.Join(d.dir, "run"), "KUBECONFIG=" + filepath.Join(d.dir, "../kubeconfig"),
			"PATH=" + filepath.Join(d.dir, "../bin") + ":" + os.Getenv("PATH"), "LANG=C.UTF-8", "USER=dev", "SHELL=/bin/bash", "PGUSER=postgres", "NO_UPDATE_NOTIFIER=1",
		}
		c.Stderr = c.Stdout          // in the order of a terminal
		c.SysProcAttr.Setpgid = true // as a shell at a terminal does
	})
	r.stdin.Close() // nobody types
	return r
}

// home is the variable that tells the commands of this directory from all others.
func (d *documents) home() string { return "HOME=" + filepath.Join(d.dir, "home") }

// try runs a row, and looks whether it ends and says what it should.
func (d *documents) try(t *testing.T, r testdocs.Row) {
	config := filepath.Join(d.dir, ".mirrord", "mirrord.json")
	if err := os.RemoveAll(config); err != nil {
		t.Fatal(err)
	}
	if r.Config != "" {
		if err := os.WriteFile(config, []byte(r.Config), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	shown, err := testdocs.Output("../..", r.Text)
	if err != nil {
		t.Fatal(err)
	}
	text, until, session := d.here(r.Text), r.Until, ""
	if name, _, assigns := strings.Cut(text, "=$("); assigns {
		text += " && echo " + name + "=$" + name
	}
	if strings.HasPrefix(text, "mirrord status") { // there must be something to see
		server := d.start(t, d.here("mirrord exec -t deployment/shop -n staging --steal -- node server.js"))
		defer func() { end(server); server.wait() }()
		session = d.runs(t, server)
		text = strings.ReplaceAll(text, "k3vq7a", session)
	}
	if r.Before != "" {
		if b := d.start(t, r.Before); b.wait() != 0 {
			t.Fatalf("%s: %s", r.Before, b.stdout)
		}
	}
	c := d.start(t, text)
	if until != "" {
		if strings.Contains(text, "--watch") {
			d.request(t, c, until)
		}
		c.waitFor(until)
		end(c)
		c.wait()
		d.endAdapter(t)
	}
	code, out := c.wait(), d.there(c.stdout.String())
	if until == "" && code != r.Code {
		t.Errorf("exit code %d, want %d", code, r.Code)
	}
	if r.Says != "" && !regexp.MustCompile(r.Says).MatchString(out) {
		t.Errorf("it does not say %q", r.Says)
	}
	if m := regexp.MustCompile(`(?m)^id=(\w+)$`).FindStringSubmatch(out); m != nil {
		session, d.vars = m[1], m[0]+"\n"
	}
	if r.Other == "" {
		lookLike(t, shown, out, session)
	}
}

// lookLike checks that all lines that a document shows are in what was said, in
// their order.
func lookLike(t *testing.T, shown []string, said, session string) {
	t.Helper()
	lines := strings.Split(said, "\n")
	for i := range lines {
		lines[i] = testdocs.Shape(lines[i], session)
	}
	for _, want := range shown {
		want = testdocs.Shape(want, "k3vq7a")
		i := slices.Index(lines, want)
		if i < 0 {
			t.Errorf("it shows no line like %q", want)
			continue
		}
		lines = lines[i+1:]
	}
}

// end asks what runs to end, as Ctrl-C does: all of it.
func end(r *run) { _ = syscall.Kill(-r.cmd.Process.Pid, syscall.SIGTERM) }

// endAdapter ends debugpy's adapter. It leaves the group of the one who starts it, and
// where that one is ended before it has come back to its adapter, the adapter waits
// for it, and the session with it. Those of other tests that run beside are theirs.
func (d *documents) endAdapter(t *testing.T) {
	t.Helper()
	for _, p := range programsWith(d.home()) {
		if !strings.Contains(p, "debugpy/adapter") {
			continue
		}
		var pid int
		if _, err := fmt.Sscan(p, &pid); err != nil {
			t.Fatal(err)
		}
		_ = syscall.Kill(pid, syscall.SIGTERM)
	}
}

// runs waits until the program of server has its port, and gives the session's id.
func (d *documents) runs(t *testing.T, server *run) string {
	t.Helper()
	server.waitFor("port 8080: ")
	c := d.start(t, "mirrord status")
	c.wait()
	m := regexp.MustCompile(`(?m)^(\w+) +deployment/shop in .* 8080 `).FindStringSubmatch(c.stdout.String())
	if m == nil {
		t.Fatal("the session is not seen")
	}
	return m[1]
}

// request asks the shop for a cart until c has seen it.
func (d *documents) request(t *testing.T, c *run, seen string) {
	t.Helper()
	for limit := time.Now().Add(runTime); time.Now().Before(limit) && !strings.Contains(c.stdout.String(), seen); {
		ctx, cancel := context.WithTimeout(t.Context(), runTime)
		_, err := w.cluster.Kubectl(ctx, "exec", "-n", d.namespace, "shop-7d4b9", "--", "curl", "-sS", "--max-time", "10", "http://shop:8080/api/cart")
		cancel()
		if err != nil {
			t.Error(err)
			return
		}
	}
}

// nothingLeft waits until no agent is left in the namespace.
func (d *documents) nothingLeft(t *testing.T) func() {
	return func() {
		limit := time.Now().Add(removedWithin)
		for {
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			out, err := w.cluster.Kubectl(ctx, "get", "jobs,pods", "-n", d.namespace, "-l", "app.kubernetes.io/name=mirrord-agent", "-o",
				`jsonpath={range .items[*]}{.kind}/{.metadata.name} made {.metadata.creationTimestamp} deleted {.metadata.deletionTimestamp}{"\n"}{end}`)
			cancel()
			if err == nil && strings.TrimSpace(out) == "" {
				return
			}
			if time.Now().After(limit) {
				t.Errorf("left in the cluster: %s %v", out, err)
				return
			}
		}
	}
}
