package e2e

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"
)

// TestChaosRandom starts sessions and kills them at random, under a client that
// asks the target all the time: nothing is left, and no request fails but those
// that the local program had, or, when what serves it was killed, that were on
// their way to it. MIRRORD_CHAOS_SEED repeats a run.
func TestChaosRandom(t *testing.T) {
	sessions := 5
	if whole() {
		sessions = 100
	}
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv("MIRRORD_CHAOS_SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("MIRRORD_CHAOS_SEED=%d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	p := newPrey(t)
	a := askAll(t, p)
	if !a.seen("remote", time.Now(), 10*time.Second) {
		t.Fatal("the target answers nobody")
	}
	got := map[string]bool{}
	var strikes []time.Time
	for i := range sessions {
		victim, sig := random.IntN(6), syscall.SIGKILL
		if random.IntN(3) == 0 {
			sig = syscall.SIGTERM
		}
		after := time.Duration(random.Int64N(int64(4 * time.Second)))
		name := [...]string{"front", "supervisor", "helper", "shell", "program", "agent"}[victim]
		t.Run(fmt.Sprintf("%d %s %v after %v", i+1, name, sig, after.Round(10*time.Millisecond)), func(t *testing.T) {
			h := hunt(t, p, 20*time.Second, true, true)
			time.Sleep(after)
			h.look()
			pid := [...]int{h.cmd.Process.Pid, h.supervisor, h.helper, h.shell, h.program, h.agent}[victim]
			if pid == 0 { // it is not there yet
				pid = h.cmd.Process.Pid
			}
			if victim != 4 || h.program == 0 { // else the session lives, and tells
				strikes = append(strikes, time.Now())
			}
			_ = syscall.Kill(pid, sig)
			if more := h.finish(); victim != 4 {
				strikes = append(strikes, more...)
			}
			maps.Copy(got, held(t, h))
			nothingOf(t, h, goneTime)
		})
	}
	if !a.seen("remote", time.Now(), 5*time.Second) {
		t.Error("the target does not serve its port")
	}
	var all, inside, onTheWay int
	for _, q := range a.answers() {
		switch all++; {
		case !q.failed() || q.answer == "open":
		case q.of(got):
			inside++
		case near(q, strikes):
			onTheWay++
		default:
			t.Errorf("a client was disturbed: %v", q)
		}
	}
	unchanged(t, p, goneTime)
	t.Logf("%d sessions, %d requests: %d failed inside the program that was killed, %d on their way to it", sessions, all, inside, onTheWay)
}

// unchanged waits until the target's network is as it was before all sessions.
func unchanged(t *testing.T, p *prey, limit time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	if err := w.cluster.Unchanged(ctx, w.namespace, p.pod, p.before); err != nil {
		t.Errorf("left in the target: %v", err)
	}
}

// unheld waits until nobody is in the network of a target that is gone.
func unheld(t *testing.T, p *prey, limit time.Duration) {
	t.Helper()
	for end := time.Now().Add(limit); ; time.Sleep(100 * time.Millisecond) {
		in := ""
		threads, _ := filepath.Glob("/proc/[0-9]*/task/[0-9]*/ns/net")
		for _, thread := range threads {
			if ns, err := os.Readlink(thread); err == nil && ns == p.netns {
				in = thread
			}
		}
		if in == "" {
			return
		}
		if time.Now().After(end) {
			t.Errorf("the target is gone, and its network is not: %s", in)
			return
		}
	}
}

// near reports whether q was under way when something was killed, or began
// before the agent could know of it.
func near(q asked, strikes []time.Time) bool {
	for _, s := range strikes {
		if q.begin.Before(s.Add(closedTime)) && q.end.After(s) {
			return true
		}
	}
	return false
}

// finish ends what is left of the session when its victim was not all of it,
// and says when it struck.
func (h *hunted) finish() (strikes []time.Time) {
	h.t.Helper()
	select {
	case <-h.done:
	case <-time.After(4 * time.Second): // it goes on
		strikes = append(strikes, time.Now())
		h.ctrlC()
	}
	select {
	case <-h.done:
	case <-time.After(25 * time.Second):
		h.t.Error("the session does not end")
	}
	h.look()
	strikes = append(strikes, time.Now())
	if code := h.cmd.ProcessState.ExitCode(); code == 1 || code < 0 { // it has failed, or was killed: nobody lives on
		h.treeGone()
	}
	h.family()
	h.release()
	return strikes
}
