package e2e

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// A test mostly waits for the cluster, but cannot run beside another of its
// namespace: at its end it looks for agents and processes that it has left. So
// the whole suite is run in parts, processes with a namespace, a home and a
// mirrord of their own; and after them, with the machine to themselves, the
// tests that count or measure.

// parts is how many run side by side: as many as keep two cores busy.
const parts = 2

// partVar is where a part finds the directory of the run that it belongs to.
const partVar = "MIRRORD_TEST_PART_OF"

// alone matches the tests that need the machine to themselves: they cut links
// and kill what all share, put load on, hold what is measured against a limit, or
// what the kernel remembers, of which it forgets some when others fill the memory.
const alone = "^(TestChaos.*|TestHandback|TestManyConnections|TestKeptSession|TestFilesUpdates|TestLocalPathsNeedNobody)$"

// setting is a flag of package testing.
func setting(name string) string { return flag.Lookup("test." + name).Value.String() }

// partial tells whether only some tests were asked for: they run as they are.
func partial() bool {
	return os.Getenv(partVar) != "" || os.Getenv(withoutCluster) != "" || setting("run") != "" || setting("skip") != ""
}

// runAll runs all tests: the parts first, and the rest here.
func runAll(m *testing.M) int {
	failed := runParts()
	if failed != nil {
		fmt.Fprintln(os.Stderr, "e2e:", failed)
	}
	if err := flag.Set("test.run", alone); err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		return 1
	}
	if code := m.Run(); code != 0 || failed == nil {
		return code
	}
	return 1
}

// runParts runs all tests that need not be alone. What the first part prints is
// seen at once, that of the others after its end: go test -json, which reads it,
// takes one test for another where two outputs mix.
func runParts() error {
	list, err := exec.Command("/proc/self/exe", "-test.list", "^Test").Output()
	if err != nil {
		return fmt.Errorf("list the tests: %w", err)
	}
	var names [parts][]string
	next, single := 0, regexp.MustCompile(alone)
	for name := range strings.FieldsSeq(string(list)) {
		if !single.MatchString(name) {
			names[next%parts] = append(names[next%parts], name)
			next++
		}
	}
	var wg sync.WaitGroup
	var failed [parts]error
	var out [parts]bytes.Buffer
	for i, list := range names {
		wg.Go(func() {
			runtime.LockOSThread() // the signal comes with the thread's end
			defer runtime.UnlockOSThread()
			cmd := exec.Command("/proc/self/exe", append(os.Args[1:], "-test.testlogfile=", "-test.run=^("+strings.Join(list, "|")+")$")...)
			cmd.Env = append(os.Environ(), partVar+"="+w.dir, "KUBECONFIG="+w.cluster.Kubeconfig())
			cmd.Stdout, cmd.Stderr = &out[i], os.Stderr
			if i == 0 {
				cmd.Stdout = os.Stdout
			}
			cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
			failed[i] = cmd.Run()
		})
	}
	wg.Wait()
	for i := range out {
		if _, err := os.Stdout.Write(out[i].Bytes()); err != nil {
			return err
		}
		if failed[i] != nil {
			failed[i] = fmt.Errorf("part %d of %d: %w", i+1, parts, failed[i])
		}
	}
	return errors.Join(failed[:]...)
}

// copyPrograms takes what the run that this part belongs to has built.
func copyPrograms(from string) error {
	if out, err := exec.Command("cp", "-r", filepath.Join(from, "bin"), w.dir).CombinedOutput(); err != nil {
		return fmt.Errorf("copy the programs: %w: %s", err, out)
	}
	return nil
}
