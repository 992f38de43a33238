// Package leak checks that the tests of a package leave nothing behind.
//
// A TestMain ends with os.Exit(leak.Main(m)). What is compared before and
// after: goroutines, open descriptors, descendants, mounts, the names of
// network namespaces, and, as root, the nftables tables of this network
// namespace. Other namespaces, and BPF programs and links, need no look of their
// own: they live as long as a process, a descriptor or a mount holds them.
//
// Only tests import it.
package leak

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// patience is how long what is on its way out may take.
const patience = 3 * time.Second

// Main runs the tests and fails them if they leave something behind.
func Main(m *testing.M) int {
	before := look()
	code := m.Run()
	if code != 0 {
		return code // what a failed test leaves is no news
	}
	if left := before.await(patience); left != "" {
		fmt.Fprintf(os.Stderr, "the tests leave behind:\n%s", left)
		return 1
	}
	return 0
}

// Check fails t at its end if the test leaves something behind. No other test
// may run at the same time.
func Check(t testing.TB) {
	t.Helper()
	before := look()
	t.Cleanup(func() {
		if left := before.await(patience); left != "" {
			t.Errorf("left behind:\n%s", left)
		}
	})
}

// state is what there is, by kind.
type state map[string][]string

func look() state {
	return state{
		"goroutine":         goroutines(),
		"descriptor":        descriptors(),
		"process":           descendants(),
		"mount":             lines("/proc/self/mountinfo"),
		"network namespace": names("/run/netns"),
		"nftables table":    tables(),
	}
}

// await waits until there is no more than before, and gives what is left then.
func (s state) await(limit time.Duration) string {
	for end := time.Now().Add(limit); ; time.Sleep(10 * time.Millisecond) {
		left := s.added(look())
		if left == "" || time.Now().After(end) {
			return left
		}
		// Package net keeps pipes for splice(2), and gives them back when they are
		// collected.
		runtime.GC()
	}
}

// added gives what now has and s has not.
func (s state) added(now state) string {
	var b strings.Builder
	for _, kind := range []string{"goroutine", "descriptor", "process", "mount", "network namespace", "nftables table"} {
		had := map[string]int{}
		for _, x := range s[kind] {
			had[x]++
		}
		for _, x := range now[kind] {
			if had[x]--; had[x] < 0 {
				fmt.Fprintf(&b, "%s: %s\n", kind, x)
			}
		}
	}
	return b.String()
}

// goroutines gives the stacks of all but the caller's and those of package
// testing and the runtime's own, without what differs from time to time.
func goroutines() (list []string) {
	buf := make([]byte, 1<<20)
	for {
		n := runtime.Stack(buf, true)
		if n < len(buf) {
			buf = buf[:n]
			break
		}
		buf = make([]byte, 2*len(buf))
	}
	varying := regexp.MustCompile(`goroutine \d+ |0x[0-9a-f]+|, \d+ minutes|in goroutine \d+`)
	for i, stack := range bytes.Split(buf, []byte("\n\n")) {
		text := string(stack)
		if i == 0 || strings.Contains(text, "testing.") || strings.Contains(text, "os/signal.") || strings.Contains(text, "runtime.ensureSigM") {
			continue
		}
		// The state in brackets changes; the place does not.
		if at := strings.Index(text, "]:\n"); at >= 0 {
			text = text[at+3:]
		}
		if strings.HasPrefix(text, "runtime.goexit") {
			continue // it has returned: look's own, of exec.Cmd, among them
		}
		list = append(list, varying.ReplaceAllString(text, ""))
	}
	return list
}

// descriptors gives the open ones, by what they are.
func descriptors() (list []string) {
	entries, _ := os.ReadDir("/proc/self/fd")
	for _, e := range entries {
		to, err := os.Readlink("/proc/self/fd/" + e.Name())
		if err != nil || strings.HasPrefix(to, "anon_inode:[event") || strings.HasPrefix(to, "/proc/") {
			continue // gone (the listing itself), or the runtime's poller
		}
		list = append(list, e.Name()+" "+to)
	}
	return list
}

// descendants gives the processes below this one. An orphan is none any more:
// who starts processes that can outlive their parents waits for them itself.
func descendants() (list []string) {
	parent, name := map[int]int{}, map[int]string{}
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, file := range stats {
		b, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		// proc_pid_stat(5): pid (name) state ppid…; the name may hold anything.
		open, end := bytes.IndexByte(b, '('), bytes.LastIndexByte(b, ')')
		if open < 0 || end < 0 {
			continue
		}
		pid, err := strconv.Atoi(strings.TrimSpace(string(b[:open])))
		f := strings.Fields(string(b[end+1:]))
		if err != nil || len(f) < 2 {
			continue
		}
		parent[pid], _ = strconv.Atoi(f[1])
		name[pid] = string(b[open:end+1]) + " " + f[0]
	}
	self := os.Getpid()
	for pid := range parent {
		for p, depth := parent[pid], 0; p > 1 && depth < 100; p, depth = parent[p], depth+1 {
			if p == self {
				list = append(list, fmt.Sprintf("%d %s", pid, name[pid]))
				break
			}
		}
	}
	slices.Sort(list)
	return list
}

func lines(file string) []string {
	b, _ := os.ReadFile(file)
	return split(string(b))
}

// split gives the lines of text, none for an empty one.
func split(text string) (list []string) {
	for line := range strings.Lines(text) {
		list = append(list, strings.TrimRight(line, "\n"))
	}
	return list
}

func names(dir string) (list []string) {
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		list = append(list, e.Name())
	}
	return list
}

// tables lists the nftables tables here; none for those who may not see them.
func tables() []string {
	if os.Geteuid() != 0 {
		return nil
	}
	path, err := exec.LookPath("nft")
	if err != nil {
		return nil
	}
	out, _ := exec.Command(path, "list", "tables").Output()
	return split(string(out))
}
