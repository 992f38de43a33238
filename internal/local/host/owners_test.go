package host

import (
	"errors"
	"strings"
	"testing"

	"github.com/mirrord-go/mirrord/internal/failure"
	"github.com/mirrord-go/mirrord/internal/local/ids"
	"github.com/mirrord-go/mirrord/internal/local/sandbox/handoff"
)

// What keeps owners from being shown is named, with the commands that mend it.
func TestOwners(t *testing.T) {
	free := ids.Range{First: 165536, Count: manyOwners}
	some := ids.Set{{First: 100000, Count: manyOwners}}
	const install, add = "sudo apt install uidmap # elsewhere shadow, shadow-utils or shadow-uidmap", "sudo usermod --add-subuids 165536-231071 --add-subgids 165536-231071 ana"
	for _, c := range []struct {
		name      string
		owners    Owners
		container string
		said      string // by newuidmap
		why, do   string
	}{
		{"nothing is there", Owners{User: "ana", free: free}, "", "x",
			"newuidmap and newgidmap are not installed, /etc/subuid has no ids for ana, /etc/subgid has no ids for ana", install + "\n" + add},
		{"no programs", Owners{User: "ana", Users: some, Groups: some, GIDMap: "/x"}, "", "x", "newuidmap and newgidmap are not installed", install},
		{"no ids", Owners{User: "ana", UIDMap: "/x", GIDMap: "/x", free: free}, "docker container", "x", "/etc/subuid has no ids for ana, /etc/subgid has no ids for ana", add},
		{"no ids of groups", Owners{User: "an a", Users: some, UIDMap: "/x", GIDMap: "/x", free: free}, "", "x", "/etc/subgid has no ids for an a",
			"sudo usermod --add-subgids 165536-231071 'an a'"},
		{"it is refused", Owners{User: "ana", Users: some, Groups: some, UIDMap: "/x", GIDMap: "/x"}, "", "newuidmap: not permitted", "newuidmap: not permitted", "see docs/hosts.md: owners of files"},
		{"it is refused in a container", Owners{User: "ana", Users: some, Groups: some, UIDMap: "/x", GIDMap: "/x"}, "pod", "newuidmap: not permitted", "newuidmap: not permitted",
			"start the container without no-new-privileges, and with the capabilities SETUID and SETGID"},
	} {
		err, cure := Explain(&handoff.Error{Step: handoff.StepOwners, Text: c.said}, Facts{Owners: c.owners, Container: c.container})
		f, ok := errors.AsType[*failure.Error](err)
		if !ok || f.Why != c.why || f.Do != c.do || len(cure.Commands) > 0 {
			t.Errorf("%s: got %+v, want\n%s\n%s", c.name, f, c.why, c.do)
		}
	}
}

// A program of that name is taken where it can be run, not from a directory that
// depends on where one is.
func TestMapper(t *testing.T) {
	t.Setenv("PATH", ":.:/nonexistent:/usr/sbin:/bin")
	if got := mapper("sh"); got != "/bin/sh" && got != "/usr/sbin/sh" {
		t.Errorf("got %q, want /bin/sh", got)
	}
	if got := mapper("no-such-program"); got != "" {
		t.Errorf("got %q, want none", got)
	}
	if o := LookOwners(); o.User == "" || strings.ContainsAny(o.User, ":\n") {
		t.Errorf("the user is called %q", o.User)
	}
}
