package e2e

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// What a session may be asked to carry at once, and what that may cost. The
// whole numbers are those of docs/reliability.md; "make e2e" runs fewer.

// number chooses between that of "make chaos" and that of "make e2e".
func number(all, some int) int {
	if whole() {
		return all
	}
	return some
}

// Peaks of memory, in MiB, that no load may exceed.
const (
	agentPeak      = 170 // its pod's limit is 192
	supervisorPeak = 832 // 2,000 connections each way, with 128 KiB each to be sent, in buffers up to twice that
)

// crowdPod puts the program crowd into the tools pod and gives its path there.
func crowdPod(t *testing.T) string {
	t.Helper()
	return podProgram(t, "tools", "crowd")
}

// podProgram puts a program into a pod and gives its path there.
func podProgram(t *testing.T, pod, name string) string {
	t.Helper()
	path := "/tmp/" + name
	program, err := os.Open(filepath.Join(w.dir, "bin", name))
	if err != nil {
		t.Fatal(err)
	}
	defer program.Close()
	cmd := exec.CommandContext(t.Context(), filepath.Join(filepath.Dir(w.cluster.Kubeconfig()), "kubectl"), "-n", w.namespace, "exec", "-i", pod, "--",
		"sh", "-c", "cat >"+path+".new && chmod +x "+path+".new && mv "+path+".new "+path)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+w.cluster.Kubeconfig())
	cmd.Stdin = program
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("copy %s: %v: %s", name, err, out)
	}
	return path
}

// podRun starts a command in a pod; its standard input stays open until end.
func podRun(t *testing.T, pod string, argv ...string) (out *output, end func() error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), filepath.Join(filepath.Dir(w.cluster.Kubeconfig()), "kubectl"),
		append([]string{"-n", w.namespace, "exec", "-i", pod, "--"}, argv...)...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+w.cluster.Kubeconfig())
	out = newOutput()
	cmd.Stdout, cmd.Stderr = out, out
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		err := cmd.Wait()
		out.close()
		ended <- err
	}()
	var once sync.Once
	end = func() (err error) {
		once.Do(func() { stdin.Close(); err = <-ended })
		return err
	}
	t.Cleanup(func() { _ = end() })
	return out, end
}

// peaks checks what the session's two ends have used at most.
func peaks(t *testing.T) {
	t.Helper()
	for _, c := range []struct {
		who  string
		pid  int
		most int
	}{{"the agent", agentProcess(t), agentPeak}, {"the supervisor", supervisor(t), supervisorPeak}} {
		got := statusMiB(t, c.pid, "VmHWM")
		t.Logf("%s has used %d MiB at most", c.who, got)
		if got > c.most {
			t.Errorf("%s has used %d MiB, want at most %d", c.who, got, c.most)
		}
	}
}

// agentProcess is the process of the one agent; the nodes are namespaces of
// this machine.
func agentProcess(t *testing.T) int {
	t.Helper()
	all := agentProcesses(t)
	if len(all) != 1 {
		t.Fatalf("%d agents run, want 1", len(all))
	}
	return all[0]
}

// agentProcesses are those of this run's namespace.
func agentProcesses(t *testing.T) (pids []int) {
	t.Helper()
	sessions := kubectl(t, "get", "pods", "-l", "app.kubernetes.io/name=mirrord-agent", "-o", `jsonpath={.items[*].metadata.labels.mirrord/session}`)
	lines, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, path := range lines {
		line, err := os.ReadFile(path)
		args := strings.Split(string(line), "\x00")
		if err != nil || filepath.Base(args[0]) != "mirrord-agent" {
			continue
		}
		for session := range strings.FieldsSeq(sessions) {
			if bytes.Contains(line, []byte(session)) {
				pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
				if err != nil {
					t.Fatal(err)
				}
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

// statusMiB reads a size from /proc/PID/status.
func statusMiB(t *testing.T, pid int, field string) int {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if name, value, _ := strings.Cut(line, ":"); name == field {
			kib, err := strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(value), " kB"))
			if err != nil {
				t.Fatal(err)
			}
			return kib / 1024
		}
	}
	t.Fatalf("/proc/%d/status has no %s", pid, field)
	return 0
}

// The program has many connections at once, all to one server.
func TestChaosOutgoing(t *testing.T) {
	n := strconv.Itoa(number(2000, 300))
	r := start(t, "-t", "pod/app", "bash", "-c", "crowd hold "+n+" "+podIP(t, "echo")+":7002; read -r _")
	r.waitFor(n + " intact")
	peaks(t)
	r.end()
}

// The program serves many clients at once, whose whole port is stolen.
func TestChaosStolen(t *testing.T) {
	n := strconv.Itoa(number(2000, 300))
	crowd := crowdPod(t)
	r := start(t, "-t", "pod/app", "--steal", "crowd", "echo", ":8024")
	r.waitFor("listening")
	if got := kubectl(t, "exec", "tools", "--", crowd, "hold", n, podIP(t, "app")+":8024"); !strings.Contains(got, n+" intact") {
		t.Errorf("got %q", got)
	}
	peaks(t)
	r.stop()
}

// Both at the same time.
func TestChaosBothWays(t *testing.T) {
	n := strconv.Itoa(number(2000, 300))
	crowd := crowdPod(t)
	r := start(t, "-q", "-t", "pod/app", "--steal", "bash", "-c", "crowd echo :8024 & read -r _; crowd hold "+n+" "+podIP(t, "echo")+":7002; read -r _; kill $!")
	r.waitFor("listening")
	clients, end := podRun(t, "tools", crowd, "stall", n, podIP(t, "app")+":8024")
	if !clients.waitFor(n+" stalled", runTime) {
		t.Fatalf("the clients: %s", clients)
	}
	fmt.Fprintln(r.stdin)
	r.waitFor(n + " intact")
	peaks(t)
	if err := end(); err != nil {
		t.Errorf("the clients: %v: %s", err, clients)
	}
	r.end() // and of its input
}

// Many clients that begin to send and never go on take nothing from the others:
// neither from those whose requests come here nor from the target's.
func TestChaosStalledUploads(t *testing.T) {
	n := strconv.Itoa(number(2000, 300))
	crowd := crowdPod(t)
	url := fmt.Sprintf("http://%s:8025", podIP(t, "app"))
	r := start(t, append(filtered(t, `{"mode": "steal", "http_filter": {"header_filter": "^x-mine: yes$"}}`), "python3", "../bin/web.py", "8025")...)
	r.waitFor("listening 8025")
	stalled, end := podRun(t, "tools", crowd, "stall", n, podIP(t, "app")+":8025")
	if !stalled.waitFor(n+" stalled", runTime) {
		t.Fatalf("the uploads: %s", stalled)
	}
	if got := curl(t, url+"/others"); !strings.HasPrefix(got, "remote /others") {
		t.Errorf("the target's own clients get %q", got)
	}
	if got := curl(t, "-H", "X-Mine: yes", url+"/mine"); !strings.HasPrefix(got, "local /mine") {
		t.Errorf("the session's clients get %q", got)
	}
	peaks(t)
	if err := end(); err != nil {
		t.Errorf("the uploads: %v: %s", err, stalled)
	}
	r.stop()
}

// Several developers work on one pod, half of them with a port of their own that
// is stolen, half with copies of one and the same.
func TestChaosSessionsOnAPod(t *testing.T) {
	const copied = 8011
	n := number(10, 4)
	var thieves, mirrors []*run
	for i := range n / 2 {
		thieves = append(thieves, start(t, "-t", "pod/app", "--steal", "goserver", strconv.Itoa(8026+i)))
		mirrors = append(mirrors, start(t, "-t", "pod/app", "goserver", strconv.Itoa(copied)))
	}
	ask := func(port int, path string) string {
		t.Helper()
		return request(t, fmt.Sprintf("http://%s:%d/%s", podIP(t, "app"), port, path))
	}
	for i, r := range thieves {
		r.waitFor("listening")
		if got := ask(8026+i, "mine"); !strings.HasPrefix(got, "local go /mine") {
			t.Errorf("session %d: %q", i, got)
		}
	}
	for _, r := range mirrors {
		r.waitFor("listening")
	}
	if got := ask(copied, "all"); !strings.HasPrefix(got, "remote /all") {
		t.Errorf("the port that all have copies of: %q", got)
	}
	for _, r := range mirrors {
		r.waitFor("got /all from ")
	}
	for _, r := range slices.Concat(thieves[1:], mirrors[1:]) {
		r.stop()
	}
	if got := ask(8026, "still"); !strings.HasPrefix(got, "local go /still") {
		t.Errorf("the last one: %q", got)
	}
	if got := ask(copied, "still"); !strings.HasPrefix(got, "remote /still") {
		t.Errorf("the port that the last one has copies of: %q", got)
	}
	mirrors[0].waitFor("got /still from ")
	thieves[0].stop()
	mirrors[0].stop()
}

// Many agents run on one node, and cost it next to nothing while they idle.
func TestChaosAgentsOnANode(t *testing.T) {
	n := number(50, 4)
	var all []*run
	for range n {
		all = append(all, start(t, "-q", "-t", "pod/app", "sh", "-c", "echo ready; exec sleep 1000"))
		if len(all)%4 == 0 { // as many start at once as the machine has cores, twice
			all[len(all)-4].waitFor("ready")
		}
	}
	for _, r := range all {
		r.waitFor("ready")
	}
	pids := agentProcesses(t)
	if len(pids) != n {
		t.Fatalf("%d agents run, want %d", len(pids), n)
	}
	memory, before := 0, 0.0
	for _, pid := range pids {
		memory += statusMiB(t, pid, "VmRSS")
		before += cpuSeconds(t, pid)
	}
	const watched = 5 * time.Second
	time.Sleep(watched)
	after := 0.0
	for _, pid := range pids {
		after += cpuSeconds(t, pid)
	}
	percent := 100 * (after - before) / watched.Seconds() / float64(n)
	t.Logf("an idle agent has %d MiB and %.2f %% of a core", memory/n, percent)
	if memory/n > 20 || percent > 1 {
		t.Errorf("an idle agent has %d MiB and %.2f %% of a core, want at most 20 and 1", memory/n, percent)
	}
	for _, r := range all {
		_ = r.cmd.Process.Signal(os.Interrupt)
	}
	ctx, cancel := context.WithTimeout(t.Context(), runTime)
	defer cancel()
	for _, r := range all {
		select {
		case <-r.done:
		case <-ctx.Done():
			t.Fatal("the sessions do not end")
		}
	}
	// One node removes many pods one after the other; the bound is for one.
	for len(agentProcesses(t)) > 0 && ctx.Err() == nil {
		time.Sleep(100 * time.Millisecond)
	}
}

// cpuSeconds is what a process has computed so far (proc(5), stat).
func cpuSeconds(t *testing.T, pid int) float64 {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), ") ")
	fields := strings.Fields(rest)
	ticks := 0
	for _, f := range fields[11:13] { // utime, stime
		n, err := strconv.Atoi(f)
		if err != nil {
			t.Fatal(err)
		}
		ticks += n
	}
	return float64(ticks) / 100 // USER_HZ
}
