// Package e2e runs the built mirrord, as an ordinary user, against a real
// Kubernetes cluster, with unmodified real programs.
package e2e

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/mirrord-go/mirrord/internal/testcluster"
)

// user is whom mirrord runs as: nobody's account, no privileges.
const user = 1000

// withoutCluster is the variable that leaves the cluster away: for tests whose
// target is a process of this machine, run by name.
const withoutCluster = "MIRRORD_TEST_WITHOUT_CLUSTER"

// world is what all tests share.
type world struct {
	cluster   *testcluster.Cluster
	namespace string
	dir       string // the user's: home, programs, kubeconfig
	mirrord   string
}

var w world

func TestMain(m *testing.M) { os.Exit(mainCode(m)) }

func mainCode(m *testing.M) (code int) {
	flag.Parse()
	if setting("list") != "" {
		return m.Run()
	}
	defer func() {
		if err := tearDown(); err != nil {
			fmt.Fprintln(os.Stderr, "e2e: tear-down:", err)
			code = 1
		}
	}()
	if err := setUp(); err != nil {
		fmt.Fprintln(os.Stderr, "e2e: set-up:", err)
		return 1
	}
	if partial() {
		return m.Run()
	}
	return runAll(m)
}

func setUp() error {
	if os.Geteuid() != 0 {
		return errors.New("these tests make a cluster and need root; mirrord itself runs as uid 1000 in them")
	}
	root, err := filepath.Abs("../..")
	if err != nil {
		return err
	}
	if w.dir, err = os.MkdirTemp("", "mirrord-e2e-"); err != nil {
		return err
	}
	if err := os.Chmod(w.dir, 0o755); err != nil {
		return err
	}
	w.mirrord = filepath.Join(w.dir, "bin", "mirrord")
	if err := buildPrograms(root); err != nil {
		return err
	}
	if os.Getenv(withoutCluster) != "" {
		return exec.Command("chown", "-R", fmt.Sprintf("%d:%d", user, user), w.dir).Run()
	}
	ctx := context.Background()
	if w.cluster, err = testcluster.Start(ctx, 2, os.Stderr); err != nil {
		return err
	}
	if os.Getenv(partVar) == "" {
		if err := loadImages(ctx); err != nil {
			return err
		}
	}
	if err := fixture(ctx); err != nil {
		return err
	}
	kubeconfig, err := os.ReadFile(w.cluster.Kubeconfig())
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(w.dir, "kubeconfig"), kubeconfig, 0o600); err != nil {
		return err
	}
	return exec.Command("chown", "-R", fmt.Sprintf("%d:%d", user, user), w.dir).Run()
}

// buildPrograms makes the programs that tests run under mirrord.
func buildPrograms(root string) error {
	bin, home := filepath.Join(w.dir, "bin"), filepath.Join(w.dir, "home")
	for _, d := range []string{bin, home, filepath.Join(w.dir, "work")} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
	}
	if whole := os.Getenv(partVar); whole != "" {
		return copyPrograms(whole)
	}
	for _, c := range [][]string{
		{"cp", filepath.Join(root, "bin", "mirrord"), w.mirrord},
		{"cp", "programs/server.py", "programs/listeners.py", "programs/server.js", "programs/web.py", "programs/signals.py", "programs/hostile.py", "programs/victim.py", "programs/look.js", "programs/streams.js", "programs/standins.py", bin},
		{"gcc", "-static", "-O1", "-o", filepath.Join(bin, "cserver"), "programs/server.c"},
		{"gcc", "-static", "-O1", "-o", filepath.Join(bin, "uring"), "programs/uring.c"},
		{"gcc", "-O1", "-o", filepath.Join(bin, "lookup-glibc"), "programs/lookup.c", "-lresolv"},
		{"musl-gcc", "-static", "-O1", "-o", filepath.Join(bin, "lookup-musl"), "programs/lookup.c"},
		{"javac", "-d", bin, "programs/Server.java", "programs/Ask.java", "programs/Jar.java", "programs/Look.java"},
		{"cp", "-r", "programs/debug", bin},
		{"javac", "-g", "-d", filepath.Join(bin, "debug"), "programs/debug/Debugged.java"},
		{"gcc", "-g", "-O0", "-o", filepath.Join(bin, "debug", "debugged-c"), "programs/debug/debugged.c"},
		{"go", "build", "-gcflags=all=-N -l", "-o", filepath.Join(bin, "debug", "debugged-go"), "./programs/debugged"},
		{"go", "build", "-o", filepath.Join(bin, "goserver"), "./programs/goserver"},
		{"go", "build", "-o", filepath.Join(bin, "probe"), "./programs/probe"},
		{"go", "build", "-o", filepath.Join(bin, "crowd"), "./programs/crowd"},
		{"go", "build", "-o", filepath.Join(bin, "chaos"), "./programs/chaos"},
		{"go", "build", "-o", filepath.Join(bin, "lasting"), "./programs/lasting"},
		{"go", "build", "-o", filepath.Join(bin, "posix"), "./programs/posix"},
		{"go", "build", "-o", filepath.Join(bin, "network"), "./programs/network"},
	} {
		cmd := exec.Command(c[0], c[1:]...)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", strings.Join(c, " "), err, out)
		}
	}
	return nil
}

// loadImages gives the nodes the agent of this build, as a user would, and the
// image that the tests' pods run.
func loadImages(ctx context.Context) error {
	tar := filepath.Join(w.dir, "agent.tar")
	if out, err := exec.Command(w.mirrord, "agent", "image", "--output", tar).CombinedOutput(); err != nil {
		return fmt.Errorf("mirrord agent image: %w: %s", err, out)
	}
	if err := w.cluster.Load(ctx, tar); err != nil {
		return err
	}
	return w.cluster.LoadDebian(ctx, os.Stderr)
}

// fixture puts the pods that tests run against into a namespace of this run.
func fixture(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	w.namespace = "e2e-" + strings.ToLower(rand.Text()[:10]) // runs may begin at once
	if _, err := w.cluster.Kubectl(ctx, "create", "namespace", w.namespace); err != nil {
		return err
	}
	if _, err := w.cluster.Kubectl(ctx, "apply", "-n", w.namespace, "-f", "testdata/fixture.yaml"); err != nil {
		return err
	}
	_, err := w.cluster.Kubectl(ctx, "wait", "-n", w.namespace, "--for=condition=Ready", "pod", "--all", "--timeout=170s")
	return err
}

func tearDown() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	err := os.RemoveAll(w.dir)
	if w.namespace != "" {
		_, kerr := w.cluster.Kubectl(ctx, "delete", "namespace", w.namespace, "--wait=false")
		err = errors.Join(err, kerr)
	}
	if w.cluster != nil {
		err = errors.Join(err, w.cluster.Close(ctx))
	}
	return err
}

// kubectl runs kubectl in the tests' namespace and gives its output, trimmed.
func kubectl(t testing.TB, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	out, err := w.cluster.Kubectl(ctx, append([]string{"-n", w.namespace}, args...)...)
	if err != nil {
		t.Fatalf("kubectl %s: %v", strings.Join(args, " "), err)
	}
	return strings.TrimSpace(out)
}

// applied applies a file of testdata to a namespace.
func applied(t testing.TB, namespace, file string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", file))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := w.cluster.Apply(ctx, namespace, string(text)); err != nil {
		t.Fatal(err)
	}
}

// lent is applied to the namespace that tests share, until the test's end.
func lent(t testing.TB, file string) {
	t.Helper()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		if _, err := w.cluster.Kubectl(ctx, "-n", w.namespace, "delete", "-f", filepath.Join("testdata", file), "--ignore-not-found", "--wait=false"); err != nil {
			t.Error(err)
		}
	})
	applied(t, w.namespace, file)
}

// request asks the target from another pod, as a client in the cluster does.
func request(t testing.TB, url string) string {
	t.Helper()
	return kubectl(t, "exec", "tools", "--", "curl", "-sS", "--max-time", "10", url)
}

func podIP(t testing.TB, pod string) string {
	return kubectl(t, "get", "pod", pod, "-o", "jsonpath={.status.podIP}")
}

// podIP6 is the pod's IPv6 address in brackets.
func podIP6(t testing.TB, pod string) string {
	for ip := range strings.FieldsSeq(kubectl(t, "get", "pod", pod, "-o", "jsonpath={.status.podIPs[*].ip}")) {
		if strings.Contains(ip, ":") {
			return "[" + ip + "]"
		}
	}
	t.Fatalf("pod %s has no IPv6 address: the cluster is not dual-stack", pod)
	return ""
}

// run is a mirrord that runs.
type run struct {
	t              testing.TB
	cmd            *exec.Cmd
	stdin          io.WriteCloser
	stdout, stderr *output
	done           chan struct{} // closed when it has ended
}

// runTime bounds one run of mirrord in the tests; on a machine that does nothing
// else none comes near it.
const runTime = 3 * time.Minute

// start starts "mirrord exec -n NAMESPACE args..." as the user. At the test's
// end it must have ended, and nothing of it may be left in the cluster.
func start(t testing.TB, args ...string) *run {
	t.Helper()
	return startCommand(t, append([]string{w.mirrord, "exec", "-n", w.namespace}, args...), nil)
}

func startCommand(t testing.TB, argv []string, prepare func(*exec.Cmd)) *run {
	t.Helper()
	t.Cleanup(func() { nothingLeft(t) })
	return startCommandOnly(t, argv, prepare)
}

// startCommandOnly is startCommand for a command that others outlive.
func startCommandOnly(t testing.TB, argv []string, prepare ...func(*exec.Cmd)) *run {
	t.Helper()
	r := &run{t: t, stdout: newOutput(), stderr: newOutput(), done: make(chan struct{})}
	r.cmd = exec.Command(argv[0], argv[1:]...)
	r.cmd.Dir = filepath.Join(w.dir, "work")
	r.cmd.Env = environment()
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: user, Gid: user}}
	r.cmd.Stdout, r.cmd.Stderr = r.stdout, r.stderr
	r.cmd.WaitDelay = 5 * time.Second
	var err error
	if r.stdin, err = r.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	for _, f := range prepare {
		if f != nil {
			f(r.cmd)
		}
	}
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(r.done)
		_ = r.cmd.Wait()
		r.stdout.close()
		r.stderr.close()
	}()
	t.Cleanup(func() {
		r.stdin.Close()
		select {
		case <-r.done:
		default:
			_ = r.cmd.Process.Kill()
			<-r.done
		}
		if t.Failed() {
			t.Logf("stdout of %s:\n%s\nstderr:\n%s", strings.Join(argv[1:], " "), r.stdout, r.stderr)
		}
	})
	return r
}

func environment() []string {
	return []string{
		"HOME=" + filepath.Join(w.dir, "home"), "KUBECONFIG=" + filepath.Join(w.dir, "kubeconfig"), "USER=dev", "SHELL=/bin/bash", "LANG=C.UTF-8",
		"PATH=" + filepath.Join(w.dir, "bin") + ":" + os.Getenv("PATH"), "COLOR=local", "ONLY_LOCAL=yes", "MIRRORD_VERBOSE=true",
	}
}

// end waits for the run's end and gives the exit code.
func (r *run) end() int {
	r.t.Helper()
	r.stdin.Close()
	return r.wait()
}

// wait is end for a run that may still read.
func (r *run) wait() int {
	r.t.Helper()
	select {
	case <-r.done:
	case <-time.After(runTime):
		r.t.Fatalf("%s does not end", r.cmd)
	}
	return r.cmd.ProcessState.ExitCode()
}

// waitFor waits until stdout has text.
func (r *run) waitFor(text string) {
	r.t.Helper()
	if !r.stdout.waitFor(text, runTime) {
		r.t.Fatalf("stdout never had %q", text)
	}
}

// signal sends sig to mirrord, the process that the user started.
func (r *run) signal(sig syscall.Signal) {
	r.t.Helper()
	if err := r.cmd.Process.Signal(sig); err != nil {
		r.t.Fatal(err)
	}
}

// stop ends a server that runs under mirrord.
func (r *run) stop() int {
	r.t.Helper()
	r.signal(syscall.SIGTERM)
	return r.end()
}

// output is what a program has printed so far.
type output struct {
	mu     sync.Mutex
	cond   *sync.Cond
	buf    bytes.Buffer
	closed bool
}

func newOutput() *output {
	o := &output{}
	o.cond = sync.NewCond(&o.mu)
	return o
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	defer o.cond.Broadcast()
	return o.buf.Write(p)
}

func (o *output) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.closed = true
	o.cond.Broadcast()
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// from is what was printed behind the first n bytes.
func (o *output) from(n int) string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return string(o.buf.Bytes()[n:])
}

// waitFor waits until text was printed; false if that cannot happen any more.
func (o *output) waitFor(text string, limit time.Duration) bool {
	late := false
	timer := time.AfterFunc(limit, func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		late = true
		o.cond.Broadcast()
	})
	defer timer.Stop()
	o.mu.Lock()
	defer o.mu.Unlock()
	for !strings.Contains(o.buf.String(), text) {
		if o.closed || late {
			return false
		}
		o.cond.Wait()
	}
	return true
}

// output runs a command to its end and gives its stdout, trimmed; the exit
// code must be 0.
func in(t testing.TB, target string, argv ...string) string {
	t.Helper()
	args := argv
	if target != "" {
		args = append([]string{"-t", target}, argv...)
	}
	r := start(t, args...)
	if code := r.end(); code != 0 {
		t.Fatalf("exit code %d, stderr:\n%s", code, r.stderr)
	}
	return strings.TrimSpace(r.stdout.String())
}

// removedWithin is the promise of how long an agent outlives its session.
const removedWithin = 10 * time.Second

// nothingLeft waits until the cluster has no agent and this machine no process of
// ours.
func nothingLeft(t testing.TB) {
	t.Helper()
	noAgent(t, removedWithin)
	noProcess(t) // the supervisor goes a moment after the command, and after its agent
	var left []string
	if !comesTo(removedWithin, func() bool { left = programs(); return len(left) == 0 }) {
		t.Errorf("programs of sessions are left: %v", left)
	}
}

// noProcess waits until no process of mirrord is left.
func noProcess(t testing.TB) {
	t.Helper()
	for end := time.Now().Add(removedWithin); len(processes(w.mirrord)) > 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Errorf("left on this machine: %v", processes(w.mirrord))
			return
		}
	}
}

// programs lists the processes of this test process's commands that began with all
// these variables, but for its own children: another one runs beside it.
func programs(variables ...string) []string {
	return programsWith(append(variables, "KUBECONFIG="+filepath.Join(w.dir, "kubeconfig"))...)
}

// programsWith lists the processes that began with all these variables, but for the
// children of this one.
func programsWith(variables ...string) (list []string) {
	files, _ := filepath.Glob("/proc/[0-9]*/environ")
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil || slices.ContainsFunc(variables, func(v string) bool { return !strings.Contains("\x00"+string(b), "\x00"+v+"\x00") }) {
			continue
		}
		dir := filepath.Dir(file)
		status, _ := os.ReadFile(filepath.Join(dir, "status"))
		if args, _ := os.ReadFile(filepath.Join(dir, "cmdline")); !strings.Contains(string(status), fmt.Sprintf("\nPPid:\t%d\n", os.Getpid())) {
			list = append(list, fmt.Sprintf("%s %q", filepath.Base(dir), args))
		}
	}
	return list
}

// noAgent waits until the cluster has no agent, for so long.
func noAgent(t testing.TB, limit time.Duration) {
	t.Helper()
	if w.cluster == nil {
		return
	}
	end := time.Now().Add(limit)
	which := []string{"jobs,pods", "-n", w.namespace, "-l", "app.kubernetes.io/name=mirrord-agent"}
	ask := func(within time.Duration, args ...string) (string, error) {
		ctx, cancel := context.WithTimeout(context.Background(), within)
		defer cancel()
		return w.cluster.Kubectl(ctx, append(args, which...)...)
	}
	for {
		late := time.Now().After(end)
		out, err := ask(time.Minute, "get", "-o", "name") // the cluster may be busy with the end of many
		if err == nil && strings.TrimSpace(out) == "" {
			return
		}
		if late {
			t.Errorf("%v after the end of the session there is still: %s %v", limit, out, err)
			return
		}
		// Its failure shows above.
		_, _ = ask(max(time.Until(end), time.Second), "wait", "--for=delete")
	}
}

// processes lists those whose executable is path.
func processes(path string) (list []string) {
	exes, _ := filepath.Glob("/proc/[0-9]*/exe")
	for _, exe := range exes {
		if to, err := os.Readlink(exe); err == nil && strings.TrimSuffix(to, " (deleted)") == path {
			args, _ := os.ReadFile(filepath.Join(filepath.Dir(exe), "cmdline"))
			list = append(list, fmt.Sprintf("%s %q", filepath.Base(filepath.Dir(exe)), args))
		}
	}
	return list
}
