package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// lasting is the program that does everything, in a session.
type lasting struct {
	*run
	relay    *relay
	ip       string // the target's
	checks   int
	upgraded *upgraded
}

func startLasting(t *testing.T, c cutting) *lasting {
	t.Helper()
	recovered(t)
	s := &lasting{ip: podIP(t, "app")}
	kubeconfig := filepath.Join(w.dir, "kubeconfig")
	if c.relayed {
		s.relay, kubeconfig = newRelay(t)
	}
	more := ""
	if c.patient {
		more = `, "lost_reply_timeout": 0`
	}
	config := filepath.Join(w.dir, "work", "chaos.json")
	text := fmt.Sprintf(`{"feature": {"fs": "write", "network": {"incoming": {"mode": "steal", "http_filter": {"header_filter": "^x-chaos: yes$", "ports": [%d], "other_ports": "mirror"}%s}}}}`, chaosSteal, more)
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	sum, _, _ := strings.Cut(kubectl(t, "exec", "app", "-c", "app", "--", "cat", "/data/big.sha256"), " ")
	s.run = startCommand(t, []string{w.mirrord, "exec", "-n", w.namespace, "-t", "pod/app", "-f", config, "--kubeconfig", kubeconfig,
		"lasting", "-echo", "echo", "-n", "200", "-file", "/data/big.bin", "-sum", sum, "-write", fmt.Sprintf("/data/written-%d", time.Now().UnixNano()),
		"-steal", fmt.Sprint(chaosSteal), "-mirror", fmt.Sprint(chaosMirror), fmt.Sprintf("-quiet=%v", c.quiet)},
		func(cmd *exec.Cmd) { cmd.Env = append(cmd.Env, "MIRRORD_VERBOSE=false") }) // a line for each of thousands of connections says nothing
	s.waitFor("ready\n")
	s.stealsAgain(t)
	s.upgraded = upgrade(t, s.ip, c.quiet)
	return s
}

// check has the program count what has come back, which took so long, and tell
// of the rest.
func (s *lasting) check(t *testing.T) (took time.Duration) {
	t.Helper()
	asked := time.Now()
	s.checks++
	fmt.Fprintln(s.stdin, "check")
	for end := time.Now().Add(40 * time.Second); strings.Count(s.stdout.String(), "\ncheck ") < s.checks; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("the program does not answer")
		}
	}
	took = time.Since(asked)
	for end := time.Now().Add(40 * time.Second); strings.Count(s.stdout.String(), "\nsettled\n") < s.checks; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("the program does not tell of new work")
		}
	}
	if n := strings.Count(s.stdout.String(), "\ncheck 200 of 200 intact, "); n < s.checks {
		t.Errorf("%d of %d checks found everything intact:\n%s", n, s.checks, s.stdout)
	}
	return took
}

// judge looks at what the program said of a cut for d, after which the way was
// open again after outage.
func (s *lasting) judge(t *testing.T, said string, c cutting, d, outage time.Duration) {
	t.Helper()
	kinds, flows, files := 0, 0, 0
	for line := range strings.Lines(said) {
		switch what, rest, _ := strings.Cut(strings.TrimSpace(line), " "); what {
		case "fresh":
			kinds++
			if err := judgeFresh(rest, c, d, outage); err != nil {
				t.Errorf("new work %s: %v", rest, err)
			}
		case "flow":
			flows++
			// A flow that was silent for a minute begins anew: nobody said anything, or
			// who was stopped cannot tell why it was.
			anew := (c.quiet || c.sudden) && d >= flowIdle && strings.HasPrefix(rest, "goes on from 2 senders")
			if !strings.HasPrefix(rest, "goes on from 1 senders") && !anew {
				t.Errorf("the flow of datagrams %s", rest)
			}
		case "written":
			files++
			s.inThePod(t, rest)
		}
	}
	if want := len(freshErrors); kinds != want && !c.quiet || flows != 1 || files != 2 {
		t.Errorf("the program told of %d kinds of new work, %d flows, %d files, want %d, 1, 2", kinds, flows, files, want)
	}
}

// The documented failure of new work while the link is lost, which is the only
// one, by kind, and when it comes.
var freshErrors = map[string]string{
	"connect": "EHOSTUNREACH", "datagram": "EHOSTUNREACH", "lookup": "EAI_AGAIN", "question": "RCodeServerFailure",
	"stat": "EIO", "open": "EIO", "list": "EIO",
}

const (
	freshTime = 15 * time.Second // documented
	// resolverTime is what a resolver takes that reads two files, each of which may
	// fail, and then asks twice, for 5 s each.
	resolverTime = 2*freshTime + 10*time.Second
	// freshSlack is 6 s until the loss of a silent link is known, and what the
	// program and this machine take themselves: its measure began before mirrord's.
	freshSlack = 7 * time.Second
	flowIdle   = time.Minute     // of datagrams, documented
	waitedOut  = 3 * time.Second // a cut that new work waits out whatever its kind
)

// underWay are the kinds that work on something open when they have begun, a
// directory or a flow: so many of these may be found by a cut, and stand still.
var underWay = map[string]int{"list": 2, "datagram": 2}

// judgeFresh judges a line "KIND longest Nms,Nms,Nms pending N OUTCOME=N...".
func judgeFresh(line string, c cutting, d, outage time.Duration) error {
	f := strings.Fields(line)
	if len(f) < 5 {
		return fmt.Errorf("it has too few words")
	}
	var longest []time.Duration
	for text := range strings.SplitSeq(f[2], ",") {
		l, err := time.ParseDuration(text)
		if err != nil {
			return err
		}
		longest = append(longest, l)
	}
	if len(longest) != 3 {
		return fmt.Errorf("it has %d durations, want the 3 longest", len(longest))
	}
	failure := freshErrors[f[0]]
	allowed := []string{"ok", failure}
	if c.harmless || outage < waitedOut {
		allowed = allowed[:1]
	}
	bound := freshTime + freshSlack
	if f[0] == "lookup" {
		bound = resolverTime + freshSlack
	}
	if c.sudden { // its clock goes on while it is stopped
		bound += d
	}
	outcomes := map[string]int{}
	for _, o := range f[5:] {
		what, n, _ := strings.Cut(o, "=")
		var err error
		if outcomes[what], err = strconv.Atoi(n); err != nil || !slices.Contains(allowed, what) {
			return fmt.Errorf("%s, want nothing but %v", o, allowed)
		}
	}
	lost := !c.harmless && !c.flickers && !c.sudden && d > bound
	switch {
	case f[4] != "0":
		return fmt.Errorf("some has not ended, want all to end within %v", bound)
	case longest[0] > max(bound, outage+freshSlack), longest[underWay[f[0]]] > bound:
		return fmt.Errorf("it took %v, want at most %v", longest, bound)
	case outcomes["ok"] == 0:
		return fmt.Errorf("nothing ended well")
	case lost && outcomes[failure] == 0:
		return fmt.Errorf("nothing failed, want %s after %v", failure, freshTime)
	}
	return nil
}

// inThePod compares a file of the target's with what the program says of it:
// "PATH begins SIZE SHA256", or is.
func (s *lasting) inThePod(t *testing.T, said string) {
	t.Helper()
	f := strings.Fields(said)
	if len(f) != 4 {
		t.Errorf("written %s", said)
		return
	}
	script := fmt.Sprintf("head -c %s %s | sha256sum; stat -c %%s %[2]s", f[2], f[0])
	got := strings.Fields(kubectl(t, "exec", "app", "-c", "app", "--", "bash", "-c", script))
	if len(got) != 3 || got[0] != f[3] || f[1] == "is" && got[2] != f[2] {
		t.Errorf("written %s; in the pod it is %q", said, got)
	}
}

// finish ends the program and looks at what it tells.
func (s *lasting) finish(t *testing.T) {
	t.Helper()
	s.upgraded.stop(t)
	before := len(s.stdout.String())
	fmt.Fprintln(s.stdin, "stop")
	if code := s.end(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	out := s.stdout.String()
	for _, want := range []string{"end 200 of 200 intact", "file intact", "done"} {
		if !strings.Contains(out, want) {
			t.Errorf("the program did not say %q:\n%s", want, out)
		}
	}
	files := 0
	for line := range strings.Lines(out[before:]) {
		if said, ok := strings.CutPrefix(strings.TrimSpace(line), "written "); ok {
			files++
			s.inThePod(t, said)
		}
	}
	if files != 2 {
		t.Errorf("the program told of %d files that it has written, want 2", files)
	}
}
