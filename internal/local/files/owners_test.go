package files

import (
	"fmt"
	"os"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mirrord-go/mirrord/internal/local/fusefs"
	"github.com/mirrord-go/mirrord/internal/local/ids"
	"github.com/mirrord-go/mirrord/internal/protocol"
	"github.com/mirrord-go/mirrord/internal/rules"
)

func TestIDs(t *testing.T) {
	for _, c := range []struct {
		name             string
		own, process, id uint32
		want             uint32
	}{
		{"the process's, who is root", 1000, 0, 0, 1000},
		{"the process's", 1000, 10001, 10001, 1000},
		{"the process's, of the same number", 1000, 1000, 1000, 1000},
		{"the process's, by a number of OpenShift", 1000, 1000680000, 1000680000, 1000},
		{"nobody's, who is the process", 1000, 65534, 65534, 1000},
		{"root's", 1000, 10001, 0, 0},
		{"root's, and root asks", 0, 10001, 0, ids.Nobody},
		{"another's", 1000, 0, 999, 999},
		{"another's, and root asks", 0, 0, 999, 999},
		{"another's of the caller's number", 1000, 10001, 1000, ids.Nobody},
		{"another's of the caller's number, for root", 1000, 0, 1000, ids.Nobody},
		{"another's with the number of nobody", 1000, 0, 65534, 65534},
		{"one beyond all", 1000, 0, 1<<32 - 2, 1<<32 - 2},
	} {
		got := idHere(c.id, int(c.own), c.process)
		if got != c.want {
			t.Errorf("%s: got %d, want %d", c.name, got, c.want)
		}
		if (got == c.own) != (c.id == c.process) {
			t.Errorf("%s: %d is the program's own, want: if and only if it is the process's", c.name, got)
		}
		if back := idThere(got, int(c.own), c.process); got != ids.Nobody && back != c.id {
			t.Errorf("%s: chown to %d is one to %d there, want %d", c.name, got, back, c.id)
		}
	}
	// Numbers that nothing is shown by go as they are given.
	for _, id := range []uint32{10001, ids.Nobody} {
		if got := idThere(id, 1000, 10001); got != id {
			t.Errorf("chown to %d: got %d", id, got)
		}
	}
}

// TestOwnerOfEachSide: only the target's ids have another meaning here.
func TestOwnerOfEachSide(t *testing.T) {
	v := newView(t, func(base string, o *Options) {
		o.UID, o.GID = 4242, 4343
		o.Plan = rules.Plan{Binds: []string{base + "/mnt/dir"}}
		o.Served = map[string][]byte{base + "/served": nil}
	})
	v.has(map[string]string{"/mnt/dir/": "", "/new/": ""}, map[string]string{"/data/mine": "x", "/data/other": "x"})
	must(t, os.Chown(v.in("/mnt"), 77, 78))
	must(t, os.Chown(v.remote(v.in("/data/mine")), 4242, 4343))
	must(t, os.Chown(v.remote(v.in("/data/other")), 7, 0))
	own := [2]uint32{uint32(os.Getuid()), uint32(os.Getgid())}
	for p, want := range map[string][2]uint32{
		v.in("/data/mine"): own, v.in("/data/other"): {7, ids.Nobody}, viewDir + v.in("/data/mine"): own, viewDir + v.in("/data/other"): {7, ids.Nobody},
		v.in("/mnt"): {77, 78}, v.in("/served"): own, "/": {0, 0}, viewDir: own,
	} {
		n, err := v.Lookup(t.Context(), p)
		must(t, err)
		uid, gid := v.Owner(n.Key, &n.Attr)
		if got := [2]uint32{uid, gid}; got != want {
			t.Errorf("%s: got %v, want %v", p, got, want)
		}
	}
	for _, a := range []protocol.Attr{{UID: 4242, GID: 4343}, {UID: 0, GID: 7}} {
		if uid, gid := v.Owner(key(sideLocal, 1, 1), &a); uid != a.UID || gid != a.GID {
			t.Errorf("a local file: got %d, %d, want %d, %d", uid, gid, a.UID, a.GID)
		}
	}
}

// TestChown: what the program gives is what the target is asked for, but for
// the caller's own ids.
func TestChown(t *testing.T) {
	v := newView(t, func(base string, o *Options) {
		o.UID, o.GID = 4242, 4343
		o.Rules = ruled(t, rules.FilesOptions{Mode: rules.FilesWrite, Local: texts("^" + base + "/local")}, rules.Places{})
	})
	v.has(map[string]string{"/local": "x"}, map[string]string{"/data/file": "x"})
	began := time.Now()
	id := func(n int) *uint32 {
		if n < 0 {
			return nil
		}
		u := uint32(n)
		return &u
	}
	for _, c := range []struct {
		p        string
		uid, gid int // -1: not given
		want     string
	}{
		{"/data/file", 7, 8, "7 8"},
		{"/data/file", os.Getuid(), -1, "4242 8"},
		{"/data/file", -1, os.Getgid(), "4242 4343"},
		{"/data/file", 65534, 0x7fffffff, "65534 2147483647"},
		{"/local", 7, 8, "7 8"},
		{"/local", os.Getuid(), -1, fmt.Sprintf("%d 8", os.Getuid())},
	} {
		n, err := v.Lookup(t.Context(), v.in(c.p))
		must(t, err)
		must(t, v.Setattr(t.Context(), v.in(c.p), n.Key, fusefs.Change{UID: id(c.uid), GID: id(c.gid)}))
		at := v.remote(v.in(c.p))
		if c.p == "/local" {
			at = v.in(c.p)
		}
		var st unix.Stat_t
		must(t, unix.Stat(at, &st))
		if got := fmt.Sprint(st.Uid, st.Gid); got != c.want {
			t.Errorf("%s to %d, %d: got %s, want %s", c.p, c.uid, c.gid, got, c.want)
		}
	}
	// To nobody: only the time of the change changes, where there is one to make.
	for p, at := range map[string]string{"/local": v.in("/local"), "/data/file": v.remote(v.in("/data/file"))} {
		var before, after unix.Stat_t
		must(t, unix.Stat(at, &before))
		n, err := v.Lookup(t.Context(), v.in(p))
		must(t, err)
		for after = before; after.Ctim == before.Ctim && !t.Failed(); { // the clock of files has ticks
			if time.Since(began) > 5*time.Second {
				t.Errorf("%s to nobody: its time of change stays", p)
			}
			must(t, v.Setattr(t.Context(), v.in(p), n.Key, fusefs.Change{}))
			must(t, unix.Stat(at, &after))
		}
		before.Ctim = after.Ctim
		if before != after {
			t.Errorf("%s to nobody: got %+v, want %+v", p, after, before)
		}
	}
	f, err := v.Create(t.Context(), v.in("/data/made"), unix.O_RDWR|unix.O_CREAT, 0o600)
	must(t, err)
	defer f.Close()
	must(t, f.Setattr(t.Context(), fusefs.Change{UID: id(9)}))
	if fi, err := os.Stat(v.remote(v.in("/data/made"))); err != nil || fi.Sys().(*syscall.Stat_t).Uid != 9 {
		t.Errorf("by a descriptor: got %v, %v", fi, err)
	}
}
