package e2e

import (
	"context"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// clients are what others ask of the target while the link is cut.
type clients struct {
	stop func() // waits for them
	wg   sync.WaitGroup

	asks    string // output of the loop that asks again and again
	slow    string // the answer to a request that was in flight
	slowEnd time.Time
	post    string // the target's answer to what is mirrored: its digest
	err     error
}

// startClients returns when the long requests are under way.
func (s *lasting) startClients(t *testing.T, c cutting, d time.Duration) *clients {
	t.Helper()
	k := &clients{}
	ctx, stop := context.WithTimeout(context.WithoutCancel(t.Context()), d+2*time.Minute)
	k.stop = stop
	t.Cleanup(stop)
	steal := fmt.Sprintf("http://%s:%d", s.ip, chaosSteal)
	begun := func() int { return strings.Count(s.stdout.String(), "asked /slow") }
	slow := begun()
	flag := filepath.Join("/tmp", fmt.Sprintf("%s-%d", w.namespace, time.Now().UnixNano())) // in the node
	if !c.quiet {
		// Each line: when it began and how long it took in ms, and the answer.
		script := fmt.Sprintf(`while [ ! -e %s ]; do
			( s=$(date +%%s%%3N); r=$(curl -sS --max-time 60 -H 'x-chaos: yes' %s/new 2>&1 | tr '\n' ' '); echo "$s $(($(date +%%s%%3N)-s)) $r" ) & sleep .25; done; wait; rm %[1]s`, flag, steal)
		k.wg.Go(func() { k.asks, k.err = w.cluster.NodeExec(ctx, "node-2", "bash", "-c", script) })
		k.wg.Go(func() {
			k.slow, _ = s.curl(ctx, "-w", " %{http_code}", "-H", "x-chaos: yes", steal+"/slow?for=4s")
			k.slowEnd = time.Now()
		})
		// Longer than the cut, at 20 kB a second.
		k.wg.Go(func() {
			k.post, _ = w.cluster.NodeExec(ctx, "node-2", "bash", "-c", fmt.Sprintf(
				`seq 1 9999999 | head -c %d | curl -sS --limit-rate 20k --max-time 150 -H Expect: --data-binary @- http://%s:%d/mirrored`,
				int(d.Seconds()+4)*20_000, s.ip, chaosMirror))
		})
	}
	time.Sleep(700 * time.Millisecond)
	for end := time.Now().Add(20 * time.Second); !c.quiet && begun() == slow; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the program gets no request")
		}
	}
	k.stop = func() {
		_, _ = w.cluster.NodeExec(ctx, "node-2", "touch", flag)
		k.wg.Wait()
		stop()
	}
	return k
}

// judge looks at what the clients were answered. The link was cut at began, for
// d, and open again after outage; from noticed on the target serves itself.
func (k *clients) judge(t *testing.T, c cutting, d, outage time.Duration, began, noticed time.Time) {
	t.Helper()
	if c.quiet {
		return
	}
	local, remote := 0, 0
	for line := range strings.Lines(k.asks) {
		f := strings.Fields(line)
		if len(f) < 3 {
			t.Errorf("a client printed %q", line)
			continue
		}
		ms, _ := strconv.ParseInt(f[0], 10, 64)
		took, _ := strconv.Atoi(f[1])
		at, lasted, answer := time.UnixMilli(ms), time.Duration(took)*time.Millisecond, strings.Join(f[2:], " ")
		when := fmt.Sprintf("a request %v after the cut, which took %v", at.Sub(began).Round(time.Millisecond), lasted)
		switch {
		case strings.HasPrefix(answer, "local /new"):
			local++
		case strings.HasPrefix(answer, "remote /new"):
			remote++
		case strings.HasPrefix(answer, "mirrord: ") && (at.Before(noticed) || c.flickers) && lasted > replyTime-slack:
		default:
			t.Errorf("%s, was answered %q", when, answer)
		}
		if at.After(noticed) && at.Before(began.Add(d)) && !c.flickers && (!strings.HasPrefix(answer, "remote /new") || lasted > servedTime) {
			t.Errorf("%s, was answered %q, want the target's own server, at once", when, answer)
		}
	}
	if local == 0 || noticed.Before(began.Add(d)) && remote == 0 && !c.flickers {
		t.Errorf("%d requests were answered by the program, %d by the target's own server", local, remote)
	}
	waited := k.slowEnd.Sub(began)
	bound := replyTime
	if c.silent {
		bound += silentBound
	}
	switch {
	case c.flickers && k.slow == "local /slow\n 200":
	case outage+slack < replyTime && k.slow != "local /slow\n 200":
		t.Errorf("the request in flight was answered %q, want the program's reply", k.slow)
	case d > replyTime && (!strings.HasSuffix(k.slow, " 502") || waited < replyTime-slack || waited > bound+servedTime):
		t.Errorf("the request in flight was answered %q after %v, want 502 after %v", k.slow, waited, bound)
	}
}
