package e2e

import (
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The kill matrix as data: who is killed, how, in which phase of a session, and
// what must follow.

// phase of a session.
type phase int

const (
	starting phase = iota // the agent is ordered and not yet connected
	idle                  // nobody asks, the program does nothing
	loaded                // a client asks all the time; the program reads, talks and looks up names
	stopping              // Ctrl-C was pressed; for those who serve the command: it has just ended
	phases
)

func (p phase) String() string {
	return [...]string{"starting", "idle", "under load", "stopping"}[p]
}

// The bounds of the design.
const (
	closedTime  = time.Second      // a closed link: new connections reach the original
	silenceTime = 6 * time.Second  // a silent one
	goneTime    = 10 * time.Second // the supervisor is killed: nothing is left
	// collectTime is what the cluster takes to remove the pod of a Job that was
	// deleted while it was hurt itself: its collector of garbage begins anew.
	collectTime = 110 * time.Second
	// shortWindow is for the sessions that nobody cleans up after: the shortest
	// that can be had.
	shortWindow = 10 * time.Second
	// aloneTime is how long an agent whose session is dead lives, and its Job; the
	// last of it is for a cluster that is busy.
	aloneTime = shortWindow + removedWithin + 10*time.Second
	// unseenTime is the same for an agent that no session has come to.
	unseenTime = time.Minute + removedWithin + 10*time.Second
)

// outcome is what must follow.
type outcome struct {
	text string // for the document
	// ends: the session ends by itself within this time; 0: it goes on, and
	// Ctrl-C ends it later.
	ends  time.Duration
	codes []int    // of the exit, one of these, in the manner of a shell
	says  []string // each exactly once; no other failure is told
	// may is a failure that is told if the kill came a moment before something
	// else; its exit code is 1.
	may string
	// kin: the grandchild, and the program if it lives, go on and keep the
	// session, as they would without mirrord.
	kin bool
	// strays: the shell is gone; what it started goes on, without a session.
	strays bool
	// back: new connections reach the target's own server from this time on;
	// 0: nobody looks, since the program goes on serving, or the target is gone.
	back time.Duration
	// held: Ctrl-C ends it while the victim is still stopped.
	held bool
	// clean bounds the time until nothing is left; 0: goneTime.
	clean time.Duration
}

func (o outcome) none() bool { return o.text == "" }

// with gives o with other exit codes.
func (o outcome) with(codes ...int) outcome {
	o.codes = codes
	o.text = strings.ReplaceAll(o.text, "exit CODE", "exit "+strings.Trim(strings.ReplaceAll(fmt.Sprint(codes), " ", " or "), "[]"))
	return o
}

// killed is who, and how.
type killed struct {
	name string
	how  string
	// pid is the victim, if it is one process, and sig what it gets.
	pid func(h *hunted) *int
	sig syscall.Signal
	act func(t *testing.T, h *hunted) // otherwise
	// prompt: what act does is done when it begins, as a signal is; otherwise it is
	// an order to the cluster.
	prompt bool
	// first brings the session further than the phase does.
	first func(t *testing.T, h *hunted)
	// window of the session, if it is another than usual: nobody cleans up, and
	// only the whole matrix waits for that.
	window time.Duration
	// fresh: the target is hurt itself, so it is one of its own; doomed: it does
	// not come again.
	fresh, doomed bool
	// slow: the cluster needs time to be itself again, and a session to start.
	slow bool
	want [phases]outcome
}

func (k killed) String() string { return k.name + ", " + k.how }

// Ends that are the command's own.
var (
	own = outcome{text: "exit CODE, by itself", codes: []int{130}, ends: 5 * time.Second, back: closedTime}
	// left: the shell is gone, its children live on.
	left = outcome{text: "exit CODE; what it leaves keeps the session", ends: 5 * time.Second, kin: true, says: []string{"processes that the command left keep the session"}}
	// onward: nothing but a pause.
	onward = outcome{text: "goes on", codes: []int{130}}
)

// failing is the end of a session that failed.
func failing(code string, within, back time.Duration) outcome {
	return outcome{text: fmt.Sprintf("ends with `%s`, exit 1, within %v", code, within), codes: []int{1}, ends: within, back: back, says: []string{"(" + code + ","}}
}

// unheard is a session with a supervisor that is stopped.
func unheard(back time.Duration) outcome {
	return outcome{text: "is said; Ctrl-C ends it, exit 130 or 143", codes: []int{130, 143}, says: []string{"does not answer: it is stopped", "does not answer and was killed"}, held: true, back: back}
}

func matrix() []killed {
	program := func(h *hunted) *int { return &h.program }
	shell := func(h *hunted) *int { return &h.shell }
	front := func(h *hunted) *int { p := h.cmd.Process.Pid; return &p }
	supervisor := func(h *hunted) *int { return &h.supervisor }
	helper := func(h *hunted) *int { return &h.helper }
	agent := func(h *hunted) *int { return &h.agent }

	byBoth := own.with(130)
	byBoth.ends, byBoth.may = goneTime, "supervisor-lost"
	byBoth.text = "exit 130, by itself; or `supervisor-lost`, if that was first"
	silent := own.with(130)
	silent.text, silent.ends, silent.back = "exit 130, within 8 s", 8*time.Second, silenceTime
	gone := outcome{text: "everything ends", codes: []int{137}, ends: time.Second, back: closedTime}
	paused := onward
	waits := own.with(130)
	waits.text, waits.ends, waits.back = "waits; exit 130 when it is continued", 0, 0
	frontPaused := own.with(130)
	frontPaused.text, frontPaused.ends, frontPaused.back, frontPaused.clean = "is cleaned up without it, within 20 s", 0, 0, 20*time.Second
	begun := onward
	begun.text = "begins a little later"
	toldEnd := failing("agent-lost", goneTime, closedTime)
	unbegun := func(within time.Duration) outcome {
		return outcome{text: fmt.Sprintf("does not begin, exit 1, within %v", within), codes: []int{1}, ends: within}
	}
	lostAgent := failing("agent-lost", goneTime, closedTime)
	stoppedAgent := failing("agent-stopped", 40*time.Second, 40*time.Second)
	targetEnd := failing("target-ended", 10*time.Second, 0)
	maySupervisor := own.with(130)
	maySupervisor.text, maySupervisor.may = "exit 130, by itself; or `session-stopped`, if that was first", "session-stopped"
	mayTarget := own.with(130)
	mayTarget.text, mayTarget.may = "exit 130, by itself; or `target-ended`, if that was first", "target-ended"
	mayAgent := own.with(130)
	mayAgent.text, mayAgent.may = "exit 130, by itself; or `agent-lost`, if that was first", "agent-lost"
	mayHelper := own.with(130)
	mayHelper.text, mayHelper.may = "exit 130, by itself; or `helper-lost`, if that was first", "helper-lost"
	followed := onward
	followed.text, followed.says = "is followed, and said", []string{"waiting for its successor"}
	resumed := onward
	resumed.text = "goes on, after a pause"
	alone := outcome{text: fmt.Sprintf("exit CODE; what the command started stays; the agent ends itself; all else is gone within %v", aloneTime),
		ends: time.Second, back: closedTime, clean: aloneTime, strays: true}
	unseen := alone
	unseen.text, unseen.clean, unseen.strays = fmt.Sprintf("exit CODE; the agent ends itself; all is gone within %v", unseenTime), unseenTime, false
	unserved := left
	unserved.text, unserved.kin, unserved.back, unserved.clean = fmt.Sprintf("ends what was left; the agent ends itself; all is gone within %v", aloneTime), false, closedTime, aloneTime
	unserved.codes = []int{143} // of the command that had ended before
	overslept := failing("link-gone", goneTime, silenceTime)
	lateClean := own.with(130)
	lateClean.clean = collectTime

	return []killed{
		{name: "user process", how: "KILL", pid: program, sig: syscall.SIGKILL,
			want: [phases]outcome{{}, left.with(137), left.with(137), own.with(137, 130)}},
		{name: "user process", how: "TERM", pid: program, sig: syscall.SIGTERM,
			want: [phases]outcome{{}, left.with(143), left.with(143), own.with(143, 130)}},
		{name: "user process", how: "STOP", pid: program, sig: syscall.SIGSTOP,
			want: [phases]outcome{{}, paused, paused, waits}},

		{name: "shell", how: "KILL", pid: shell, sig: syscall.SIGKILL,
			want: [phases]outcome{failing("sandbox-ended", 5*time.Second, 0), left.with(137), left.with(137), own.with(137)}},
		{name: "shell", how: "TERM", pid: shell, sig: syscall.SIGTERM,
			want: [phases]outcome{own.with(143), left.with(143), left.with(143), own.with(143, 130)}},
		{name: "shell", how: "STOP", pid: shell, sig: syscall.SIGSTOP,
			want: [phases]outcome{paused, paused, paused, waits}},

		{name: "front", how: "KILL", pid: front, sig: syscall.SIGKILL,
			want: [phases]outcome{gone, gone, gone, gone}},
		{name: "front", how: "TERM", pid: front, sig: syscall.SIGTERM,
			want: [phases]outcome{own.with(143), left.with(143), left.with(143), own.with(143, 130)}},
		{name: "front", how: "STOP", pid: front, sig: syscall.SIGSTOP,
			want: [phases]outcome{paused, paused, paused, frontPaused}},
		{name: "front with its tree", how: "KILL", act: func(t *testing.T, h *hunted) { killTree(t, h.cmd.Process.Pid) },
			want: [phases]outcome{gone, gone, gone, gone.with(137, 130)}}, // it may end while the tree is looked for

		{name: "supervisor", how: "KILL", pid: supervisor, sig: syscall.SIGKILL,
			want: [phases]outcome{failing("supervisor-lost", goneTime, 0), failing("supervisor-lost", goneTime, closedTime), failing("supervisor-lost", goneTime, closedTime), byBoth}},
		{name: "supervisor", how: "TERM", pid: supervisor, sig: syscall.SIGTERM,
			want: [phases]outcome{failing("session-stopped", goneTime, 0), failing("session-stopped", goneTime, closedTime), failing("session-stopped", goneTime, closedTime), maySupervisor}},
		{name: "supervisor", how: "STOP", pid: supervisor, sig: syscall.SIGSTOP,
			want: [phases]outcome{unheard(0), unheard(silenceTime), unheard(silenceTime), silent}},

		{name: "helper", how: "KILL", pid: helper, sig: syscall.SIGKILL,
			want: [phases]outcome{{}, failing("helper-lost", 5*time.Second, closedTime), failing("helper-lost", 5*time.Second, closedTime), mayHelper}},
		{name: "helper", how: "TERM", pid: helper, sig: syscall.SIGTERM,
			want: [phases]outcome{{}, onward, onward, own.with(130)}},
		{name: "helper", how: "STOP", pid: helper, sig: syscall.SIGSTOP,
			want: [phases]outcome{{}, woken(), woken(), own.with(130)}},
		{name: "helper, then supervisor", how: "KILL", act: both(syscall.SIGKILL),
			want: [phases]outcome{{}, failing("supervisor-lost", goneTime, closedTime), failing("supervisor-lost", goneTime, closedTime), byBoth}},
		{name: "helper, then supervisor", how: "STOP, KILL", act: both(syscall.SIGSTOP),
			want: [phases]outcome{{}, failing("supervisor-lost", goneTime, closedTime), failing("supervisor-lost", goneTime, closedTime), byBoth}},
		{name: "front, supervisor and helper", how: "KILL", act: allThree, prompt: true, window: shortWindow,
			want: [phases]outcome{unseen.with(137), alone.with(137), alone.with(137), alone.with(137, 130)}},
		{name: "supervisor, when the command has ended and left processes", how: "KILL", first: endShell, pid: supervisor, sig: syscall.SIGKILL, window: shortWindow,
			want: [phases]outcome{{}, unserved, unserved, {}}},
		{name: "user process and supervisor", how: "STOP, CONT after the window", act: oversleep, prompt: true, window: shortWindow,
			want: [phases]outcome{{}, overslept, overslept, {}}},

		{name: "agent", how: "KILL", pid: agent, sig: syscall.SIGKILL,
			want: [phases]outcome{unbegun(20 * time.Second), lostAgent, lostAgent, mayAgent}},
		{name: "agent", how: "TERM", pid: agent, sig: syscall.SIGTERM,
			want: [phases]outcome{unbegun(20 * time.Second), toldEnd, toldEnd, mayAgent}},
		{name: "agent", how: "STOP", pid: agent, sig: syscall.SIGSTOP,
			want: [phases]outcome{unbegun(40 * time.Second), stoppedAgent, stoppedAgent, mayAgent}},
		{name: "agent's pod", how: "deleted", act: deletePod("--grace-period=2"),
			want: [phases]outcome{unbegun(20 * time.Second), toldEnd, toldEnd, mayAgent}},
		{name: "agent's pod", how: "deleted by force", act: deletePod("--grace-period=0", "--force"),
			want: [phases]outcome{unbegun(20 * time.Second), lostAgent, lostAgent, mayAgent}},

		{name: "target's container", how: "restarted", act: restartTarget, fresh: true,
			want: [phases]outcome{unbegun(20 * time.Second), followed, followed, mayTarget}},
		{name: "target's pod", how: "deleted", fresh: true, doomed: true, act: func(t *testing.T, h *hunted) {
			kubectl(t, "delete", "pod", h.prey.pod, "--wait=false")
		},
			want: [phases]outcome{unbegun(20 * time.Second), targetEnd, targetEnd, mayTarget}},

		{name: "API server", how: "restarted", act: inNode("node-1", "kube-apiserver"), slow: true,
			want: [phases]outcome{begun, resumed, resumed, lateClean}},
		{name: "node's containerd", how: "restarted", act: inNode("node-2", "containerd"), slow: true,
			want: [phases]outcome{begun, resumed, resumed, lateClean}},
	}
}

func woken() outcome {
	o := onward
	o.text, o.says = "is continued, and said", []string{"was stopped; it has been continued"}
	return o
}

// both hurts the helper, and then kills the supervisor.
func both(sig syscall.Signal) func(*testing.T, *hunted) {
	return func(_ *testing.T, h *hunted) {
		_ = syscall.Kill(h.helper, sig)
		_ = syscall.Kill(h.supervisor, syscall.SIGKILL)
	}
}

// allThree kills all who guard each other.
func allThree(_ *testing.T, h *hunted) {
	for _, pid := range []int{h.cmd.Process.Pid, h.supervisor, h.helper} {
		if pid > 0 { // the helper comes later
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
}

// endShell ends the command, which leaves processes.
func endShell(t *testing.T, h *hunted) {
	if err := syscall.Kill(h.shell, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case <-h.done:
	case <-time.After(5 * time.Second):
		t.Fatal("the command does not end")
	}
}

// oversleep is a suspend that is longer than the window; the program stops first,
// or its kernel goes on to talk to a supervisor that does not answer.
func oversleep(t *testing.T, h *hunted) {
	for _, pid := range []int{h.program, h.supervisor} {
		if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		defer syscall.Kill(pid, syscall.SIGCONT)
	}
	limit := silenceTime + shortWindow + 10*time.Second
	for end := time.Now().Add(limit); alive(h.agent); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("the agent waits for its session longer than %v", limit)
		}
	}
}

func deletePod(how ...string) func(*testing.T, *hunted) {
	return func(t *testing.T, h *hunted) {
		kubectl(t, slices.Concat([]string{"delete", "pod", "--wait=false", "-l", "job-name=" + h.job}, how)...)
	}
}

// restartTarget returns when the target serves again.
func restartTarget(t *testing.T, h *hunted) {
	if err := syscall.Kill(h.prey.server, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	kubectl(t, "wait", "pod/"+h.prey.pod, "--for=jsonpath={.status.containerStatuses[0].restartCount}=1", "--timeout=20s")
	if err := w.cluster.WaitReady(t.Context(), w.namespace, "pod/"+h.prey.pod); err != nil {
		t.Fatal(err)
	}
}

// inNode kills a service of a node, which starts it again.
func inNode(node, service string) func(*testing.T, *hunted) {
	return func(t *testing.T, _ *hunted) {
		if _, err := w.cluster.NodeExec(t.Context(), node, "sh", "-c", "kill -KILL $(pidof "+service+")"); err != nil {
			t.Fatal(err)
		}
	}
}
