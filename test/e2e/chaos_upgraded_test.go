package e2e

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// upgraded is a client of the lasting program, in another pod's network, whose
// connection is HTTP no more.
type upgraded struct {
	in     io.WriteCloser
	out    *output
	checks int
	wait   func() error
}

func upgrade(t *testing.T, ip string, quiet bool) *upgraded {
	t.Helper()
	pid, err := w.cluster.PodProcess(t.Context(), w.namespace, "tools")
	if err != nil {
		t.Fatal(err)
	}
	u := &upgraded{out: newOutput()}
	cmd := exec.Command("nsenter", "-t", strconv.Itoa(pid), "--net", filepath.Join(w.dir, "bin", "lasting"),
		"-upgraded", fmt.Sprintf("%s:%d", ip, chaosSteal), fmt.Sprintf("-quiet=%v", quiet))
	cmd.Stdout, cmd.Stderr = u.out, os.Stderr
	if u.in, err = cmd.StdinPipe(); err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	u.wait = cmd.Wait
	t.Cleanup(func() {
		if cmd.ProcessState == nil {
			u.in.Close()
			_ = cmd.Wait()
		}
	})
	if !u.out.waitFor("ready\n", 20*time.Second) {
		t.Fatalf("nobody upgrades the connection: %s", u.out)
	}
	return u
}

// check waits until all has come back, and tells what has become of the
// connection.
func (u *upgraded) check(t *testing.T) string {
	t.Helper()
	u.checks++
	fmt.Fprintln(u.in, "check")
	for end := time.Now().Add(40 * time.Second); strings.Count(u.out.String(), "\ncheck ") < u.checks; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("the client of the upgraded connection does not answer: %s", u.out)
		}
	}
	all := strings.Split(u.out.String(), "\ncheck ")
	return strings.TrimSpace(all[u.checks])
}

// judge looks at the connection after a cut at began, for d, after which the way
// was open again after outage: nothing is lost or doubled, and it ends only if it
// had to wait for longer than replies may.
func (u *upgraded) judge(t *testing.T, c cutting, d, outage time.Duration, began time.Time) {
	t.Helper()
	got := u.check(t)
	var ms int64
	var how string
	_, _ = fmt.Sscanf(got, "ended %d %s", &ms, &how)
	waited := time.UnixMilli(ms).Sub(began)
	bound := replyTime
	if c.silent {
		bound += silentBound
	}
	intact := strings.HasPrefix(got, "intact, ")
	switch {
	case c.flickers && intact:
	case c.harmless || c.patient || outage+slack < replyTime:
		if !intact {
			t.Errorf("the upgraded connection: %s, want it to go on", got)
		}
	case intact && d < replyTime:
	case how != "ECONNRESET" || waited < replyTime-slack || waited > bound+servedTime && !c.flickers:
		t.Errorf("the upgraded connection: %s, %v after the cut, want a reset after %v", got, waited, bound)
	}
}

func (u *upgraded) stop(t *testing.T) {
	t.Helper()
	fmt.Fprintln(u.in, "stop")
	u.in.Close()
	if err := u.wait(); err != nil {
		t.Errorf("the client of the upgraded connection: %v: %s", err, u.out)
	}
}
