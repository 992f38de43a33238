package sandbox

import (
	"errors"
	"strings"
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

// TestExplainNamespaces: the setting that forbids them is named, and only what
// changes it.
func TestExplainNamespaces(t *testing.T) {
	for _, c := range []struct {
		name     string
		step     handoff.Step
		errno    syscall.Errno
		settings map[string]string
		code     string
		why, do  string
	}{
		{"limit", handoff.StepUserNS, syscall.ENOSPC, map[string]string{"user/max_user_namespaces": "0"}, "no-user-namespaces", "max_user_namespaces is 0", "sysctl -w user.max_user_namespaces="},
		{"outer limit", handoff.StepUserNS, syscall.ENOSPC, map[string]string{"user/max_user_namespaces": "9"}, "no-user-namespaces", "limit", "around this container"},
		{"Debian", handoff.StepUserNS, syscall.EPERM, map[string]string{"kernel/unprivileged_userns_clone": "0"}, "no-user-namespaces", "unprivileged_userns_clone is 0", "sysctl -w kernel.unprivileged_userns_clone=1"},
		{"container", handoff.StepUserNS, syscall.EPERM, map[string]string{"kernel/unprivileged_userns_clone": "1"}, "no-user-namespaces", "", "seccomp=unconfined"},
		{"AppArmor", handoff.StepTUN, syscall.EPERM, map[string]string{restrictSetting: "1"}, "no-user-namespaces", "AppArmor", "apparmor_restrict_unprivileged_userns=0"},
		{"AppArmor, another reason", handoff.StepTUN, syscall.ENOENT, map[string]string{restrictSetting: "1"}, "no-tun", "no such file", "modprobe tun"},
		{"AppArmor, no such command", handoff.StepExec, syscall.EACCES, map[string]string{restrictSetting: "1"}, "command-not-started", "", "PATH"},
		{"no AppArmor", handoff.StepFUSE, syscall.EPERM, nil, "no-fuse", "not permitted", "--device /dev/fuse"},
	} {
		err := explain(&handoff.Error{Step: c.step, Errno: c.errno}, func(name string) string { return c.settings[name] })
		f, ok := errors.AsType[*failure.Error](err)
		if !ok || f.Code != c.code || !strings.Contains(f.Why, c.why) || !strings.Contains(f.Do, c.do) {
			t.Errorf("%s: got %+v, want code %s, why %q, do %q", c.name, f, c.code, c.why, c.do)
		}
	}
}
