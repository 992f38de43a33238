package e2e

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mirrord-go/mirrord/internal/testcluster"
)

// A target to be killed, a session on it, and the processes of that session.

// chaosPort is the port that chaos steals; the target's own server has it too.
const chaosPort = "8033"

// prey is a target that may be killed.
type prey struct {
	pod    string
	ip     string
	server int // the first process of its container, when it was made
	client int // a process of the pod where its clients are
	netns  string
	before testcluster.Snapshot
}

// newPrey makes a target. Its node is not the one of the API server.
func newPrey(t testing.TB) *prey {
	t.Helper()
	p := &prey{pod: fmt.Sprintf("prey-%d", time.Now().UnixNano())}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	err := w.cluster.Apply(ctx, w.namespace, fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata: {name: %s}
spec:
  nodeName: node-2
  terminationGracePeriodSeconds: 1
  volumes:
  - {name: programs, configMap: {name: programs}}
  - {name: data, emptyDir: {}}
  containers:
  - name: app
    image: debian:1
    command: [bash, -c, "head -c 1000000 /dev/urandom >/data/file; exec python3 /programs/remote.py"]
    readinessProbe: {tcpSocket: {port: %s}, periodSeconds: 1}
    volumeMounts: [{name: programs, mountPath: /programs}, {name: data, mountPath: /data}]
`, p.pod, chaosPort))
	if err == nil {
		err = w.cluster.WaitReady(ctx, w.namespace, "pod/"+p.pod)
	}
	if err == nil {
		p.before, err = w.cluster.PodNetns(ctx, w.namespace, p.pod)
	}
	if err == nil {
		p.server, err = w.cluster.PodProcess(ctx, w.namespace, p.pod)
	}
	if err == nil {
		p.netns, err = os.Readlink(fmt.Sprintf("/proc/%d/ns/net", p.server))
	}
	if err == nil {
		p.client, err = w.cluster.PodProcess(ctx, w.namespace, "tools")
	}
	if err != nil {
		t.Fatal(err)
	}
	p.ip = podIP(t, p.pod)
	return p
}

// hunted is a session in which something is killed.
type hunted struct {
	*run
	prey    *prey
	log     string    // what the program got, a path a line
	job     string    // of the agent; known when it is ordered
	pressed time.Time // Ctrl-C

	supervisor, helper, shell, program, agent, grandchild int
}

// hunt starts a session on p. With kin the command leaves a grandchild in a
// session of its own.
func hunt(t testing.TB, p *prey, startTime time.Duration, kin, load bool, args ...string) *hunted {
	t.Helper()
	dir := filepath.Join(w.dir, "work")
	log := filepath.Join(dir, fmt.Sprintf("got-%d", time.Now().UnixNano()))
	script := fmt.Sprintf("chaos serve %s %s", chaosPort, log)
	if load {
		script += " load"
	}
	script += "; exit $?" // the shell stays
	if kin {
		script = "setsid sleep 1000 & " + script
	}
	argv := []string{w.mirrord, "exec", "--verbose", "-n", w.namespace, "-t", "pod/" + p.pod, "--steal",
		"--agent-startup-timeout", strconv.Itoa(int(startTime.Seconds()))}
	argv = slices.Concat(argv, args, []string{"bash", "-c", script})
	h := &hunted{prey: p, log: log}
	h.run = startCommand(t, argv, func(c *exec.Cmd) {
		ownGroup(c)
		c.Env = append(c.Env, "HUNTED="+log)
	})
	t.Cleanup(h.release)
	return h
}

// ownGroup gives a command a process group, so that Ctrl-C reaches it and not the
// tests, and a directory for temporary files that is looked into.
func ownGroup(c *exec.Cmd) {
	temporary := filepath.Join(w.dir, "tmp")
	_ = os.MkdirAll(temporary, 0o777)
	_ = os.Chmod(temporary, 0o777)
	c.SysProcAttr.Setpgid = true
	c.WaitDelay = 200 * time.Millisecond // background processes hold its output
	c.Env = append(c.Env, "TMPDIR="+temporary)
}

// ctrlC does what a terminal does.
func (h *hunted) ctrlC() {
	h.pressed = time.Now()
	_ = syscall.Kill(-h.cmd.Process.Pid, syscall.SIGINT)
}

// release lets go of all processes that are stopped, and of those that no
// session ends.
func (h *hunted) release() {
	for _, pid := range []int{h.cmd.Process.Pid, h.supervisor, h.helper, h.agent, h.shell} {
		if ours(pid) {
			_ = syscall.Kill(pid, syscall.SIGCONT)
		}
	}
	for _, pid := range []int{h.program, h.grandchild} {
		if ours(pid) {
			_ = syscall.Kill(pid, syscall.SIGCONT)
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
}

// ours reports whether pid is, still, a process of these tests or of the
// cluster.
func ours(pid int) bool {
	args, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	return pid > 0 && err == nil && regexp.MustCompile(`mirrord|chaos|^(setsid.)?sleep.1000`).Match(args)
}

// ordered waits until the agent is ordered.
func (h *hunted) ordered() {
	h.t.Helper()
	if !h.stderr.waitFor(" ordered in namespace", runTime) {
		h.t.Fatalf("no agent was ordered:\n%s", h.stderr)
	}
	h.look()
}

// ready waits until the program serves.
func (h *hunted) ready() {
	h.t.Helper()
	h.waitFor("ready")
	h.ordered()
	h.family()
	if h.supervisor == 0 || h.helper == 0 || h.shell == 0 || h.program == 0 || h.agent == 0 {
		h.t.Fatalf("not all processes were found: %+v", h)
	}
}

// family finds the program and the grandchild, if they are there: their parent may
// have been killed before anybody looked.
func (h *hunted) family() {
	for pid, line := range h.kin() {
		switch {
		case strings.HasSuffix(line, "sleep\x001000\x00"):
			h.grandchild = pid
		case strings.HasPrefix(line, "chaos\x00"):
			h.program = pid
		}
	}
}

// kin gives the processes that live of those that the command and its children
// have started, by their environment, with their arguments.
func (h *hunted) kin() map[int]string {
	all := map[int]string{}
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		env, _ := os.ReadFile(dir + "/environ")
		if !strings.Contains(string(env), "HUNTED="+h.log+"\x00") {
			continue
		}
		line, _ := os.ReadFile(dir + "/cmdline")
		if pid, _ := strconv.Atoi(filepath.Base(dir)); alive(pid) {
			all[pid] = string(line)
		}
	}
	return all
}

// treeGone waits until nobody of the session's lives.
func (h *hunted) treeGone() {
	h.t.Helper()
	if !comesTo(goneTime, func() bool { return len(h.kin()) == 0 }) {
		h.t.Errorf("of the session's processes there are still: %v", h.kin())
	}
}

// look finds the session's processes, as far as they are there.
func (h *hunted) look() {
	front := h.cmd.Process.Pid
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	parents, args := map[int]int{}, map[int]string{}
	for _, dir := range dirs {
		pid, _ := strconv.Atoi(filepath.Base(dir))
		stat, err := os.ReadFile(dir + "/stat")
		if err != nil {
			continue
		}
		text := string(stat)
		fields := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
		parents[pid], _ = strconv.Atoi(fields[1])
		line, _ := os.ReadFile(dir + "/cmdline")
		args[pid] = string(line)
	}
	if m := regexp.MustCompile(`agent (mirrord-agent-\S+) ordered`).FindStringSubmatch(h.stderr.String()); m != nil {
		h.job = m[1]
	}
	for pid, line := range args {
		switch {
		case supervises(line, front):
			h.supervisor = pid
		case parents[pid] == front && strings.HasPrefix(line, "mirrord-helper"):
			h.helper = pid
		case parents[pid] == front && line != "":
			h.shell = pid // or the init that becomes it
		case h.job != "" && strings.HasPrefix(line, "/mirrord-agent\x00") && strings.Contains(line, strings.TrimPrefix(h.job, "mirrord-agent-")):
			h.agent = pid
		}
	}
	for pid, line := range args {
		if h.shell > 0 && (pid == h.shell || parents[pid] == h.shell) && strings.HasPrefix(line, "chaos\x00") {
			h.program = pid
		}
	}
}

// awaitAgent waits for the agent's process.
func (h *hunted) awaitAgent() {
	h.t.Helper()
	for end := time.Now().Add(20 * time.Second); h.agent == 0; time.Sleep(2 * time.Millisecond) {
		if h.look(); time.Now().After(end) {
			h.t.Fatal("there is no agent")
		}
	}
}

// leftHere lists what a session leaves on this machine when it leaves
// something.
func leftHere() (all []string) {
	all = processes(w.mirrord)
	entries, _ := os.ReadDir(filepath.Join(w.dir, "tmp"))
	for _, e := range entries {
		all = append(all, "temporary file "+e.Name())
	}
	if c, err := net.DialTimeout("tcp", "127.0.0.1:"+chaosPort, time.Second); err == nil {
		c.Close()
		all = append(all, "published port "+chaosPort)
	}
	mounts, _ := os.ReadFile("/proc/self/mountinfo")
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, " fuse.mirrord ") || strings.Contains(line, w.dir+"/") {
			all = append(all, "mount "+line)
		}
	}
	return all
}

// leftThere lists what a session leaves in the cluster.
func leftThere(ctx context.Context, job string) (string, error) {
	out, err := w.cluster.Kubectl(ctx, "--request-timeout=5s", "get", "jobs,pods", "-n", w.namespace, "-l", "mirrord/session="+strings.TrimPrefix(job, "mirrord-agent-"), "-o", "name")
	return strings.TrimSpace(out), err
}

// silence is how long a cluster may answer nobody.
const silence = time.Minute

// comesTo waits until done says so, for limit. A cluster that answers nobody then
// has more time, and limit again when it answers: nothing can be removed there
// before.
func comesTo(limit time.Duration, done func() bool) bool {
	end, last := time.Now().Add(limit), time.Now().Add(limit+silence)
	for ; !done(); time.Sleep(50 * time.Millisecond) {
		if time.Now().Before(end) {
			continue
		}
		if _, err := leftThere(context.Background(), "none"); err == nil || time.Now().After(last) {
			return false
		}
		end = time.Now().Add(limit)
	}
	return true
}

// nothingOf waits until nothing is left of h, anywhere.
func nothingOf(t testing.TB, h *hunted, limit time.Duration) {
	t.Helper()
	var here []string
	var there string
	var err error
	if !comesTo(limit, func() bool {
		here = leftHere()
		if h.job != "" {
			there, err = leftThere(context.Background(), h.job)
		}
		return len(here) == 0 && there == "" && err == nil
	}) {
		t.Errorf("%v after the session's end there is still: %v %s %v", limit, here, there, err)
	}
}
