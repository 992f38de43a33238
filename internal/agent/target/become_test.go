package target

import (
	"os"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// How an agent becomes its target's user is tested with the agent's command:
// it changes all of a process.

func TestExplain(t *testing.T) {
	if err := explain(os.Getpid(), &os.PathError{Op: "open", Path: "x", Err: syscall.ENOENT}); strings.Contains(err.Error(), "look in") {
		t.Errorf("what is not there: %v", err)
	}
	if got := capabilityNames(1<<unix.CAP_BPF | 1<<63); got != "BPF, 63" {
		t.Errorf("names are %q", got)
	}
	if err := Become(os.Getpid()); err == nil || !strings.Contains(err.Error(), "targetContainerName") {
		t.Errorf("a process list of one's own: %v", err)
	}
}
