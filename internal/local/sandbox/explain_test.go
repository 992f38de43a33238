package sandbox

import (
	"errors"
	"syscall"
	"testing"

	"github.com/mirrord-go/mirrord/internal/failure"
	"github.com/mirrord-go/mirrord/internal/local/sandbox/handoff"
)

// Every way in which a sandbox can fail is told with what to do about it.
func TestExplain(t *testing.T) {
	for _, c := range []struct {
		step  handoff.Step
		errno syscall.Errno
		code  string
		exit  int
	}{
		{handoff.StepUserNS, syscall.EPERM, "no-user-namespaces", 0},
		{handoff.StepMap, syscall.EPERM, "no-user-namespaces", 0},
		{handoff.StepTUN, syscall.ENOENT, "no-tun", 0},
		{handoff.StepFUSE, syscall.EACCES, "no-fuse", 0},
		{handoff.StepNFT, syscall.EPROTONOSUPPORT, "no-nftables", 0},
		{handoff.StepChdir, syscall.ENOENT, "no-working-directory", 0},
		{handoff.StepLookup, syscall.ENOENT, "command-not-started", 127},
		{handoff.StepExec, syscall.EACCES, "command-not-started", 126},
		{handoff.StepLost, 0, "no-sandbox", 0},
	} {
		var f *failure.Error
		err := Explain(&handoff.Error{Step: c.step, Path: "/x", Errno: c.errno})
		if !errors.As(err, &f) {
			t.Errorf("%s: %v is no failure for a person", c.step, err)
			continue
		}
		if f.Code != c.code || f.Exit != c.exit || f.What == "" || f.Why == "" || f.Do == "" {
			t.Errorf("%s: got %+v, want code %s, exit %d", c.step, f, c.code, c.exit)
		}
	}
	if err := errors.New("other"); Explain(err) != err {
		t.Error("what is no failure of the sandbox must stay as it is")
	}
}
