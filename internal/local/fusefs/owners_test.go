package fusefs

import (
	"fmt"
	"os"
	"slices"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mirrord-go/mirrord/internal/local/ids"
)

// TestOwners: with more ids in the namespace than the caller's files have their
// owners, and what cannot be shown is nobody's, whom the kernel lets write.
func TestOwners(t *testing.T) {
	if os.Getenv(userVar) != "" {
		return // only root may map them
	}
	m := newMemory(map[string]string{"/own": "", "/other": "", "/far": "far", "/dir/x": ""})
	all := ids.Set{{First: 0, Count: 1001}, {First: ids.Nobody, Count: 1}}
	m.known.Users, m.known.Groups = all, slices.Clone(all)
	for p, id := range map[string]uint32{"/other": 1000, "/far": 1001, "/dir": 1 << 31} {
		m.nodes[p].Attr.UID, m.nodes[p].Attr.GID = id, id-1
	}
	mounted(t, m, "owners")
	if got := string(m.nodes["/far"].content); got != "FAR" {
		t.Errorf("a file of nobody's: got %q, want what was written", got)
	}
	if m.nodes["/dir/made"] == nil {
		t.Error("nothing was made in nobody's directory")
	}
	if a := m.nodes["/own"].Attr; a.UID != 7 || a.GID != 8 {
		t.Errorf("the tree was told owner %d, group %d, want 7, 8", a.UID, a.GID)
	}
}

func owners(a *actor) {
	is := func(p string, uid, gid uint32) {
		var st unix.Stat_t
		a.ok("stat "+p, unix.Lstat(p, &st))
		a.is("owner and group of "+p, []uint32{st.Uid, st.Gid}, []uint32{uid, gid})
	}
	is("own", 0, 0)
	is("other", 1000, 999)
	is("far", ids.Nobody, 1000)
	is("dir", ids.Nobody, ids.Nobody)
	f, err := os.OpenFile("far", os.O_WRONLY, 0)
	a.ok("write to nobody's", err)
	_, err = f.WriteString("FAR")
	a.ok("write to nobody's", err)
	a.ok("close", f.Close())
	a.ok("mode of nobody's", os.Chmod("far", 0o600))
	a.ok("make in nobody's", os.WriteFile("dir/made", nil, 0o600))
	a.ok("chown", os.Chown("own", 7, 8))
	is("own", 7, 8)
	a.ok("chown of the group", os.Chown("other", -1, 5))
	is("other", 1000, 5)
	a.fails("chown to one who is not there", os.Chown("own", 1001, -1), syscall.EINVAL)
}

// TestByDescriptor: the first change of a file makes another one of it, which
// somebody who has it open cannot look up.
func TestByDescriptor(t *testing.T) {
	m := newMemory(map[string]string{"/file": "content", "/other": "content"})
	for _, p := range []string{"/file", "/other"} {
		was := m.nodes[p]
		was.becomes = m.put(p, unix.S_IFREG|0o644, "content")
		m.nodes[p] = was
	}
	mounted(t, m, "byDescriptor")
	if a := m.nodes["/file"]; a.Attr.Mode != unix.S_IFREG|0o640 || a.Attr.Mtime != 5e18 || a.becomes != nil {
		t.Errorf("what has become of it: %+v", a)
	}
}

func byDescriptor(a *actor) {
	f, err := os.Open("file")
	a.ok("open", err)
	a.ok("fchmod", f.Chmod(0o600))
	a.ok("fchmod again", f.Chmod(0o640))
	at := time.Unix(5e9, 0)
	a.ok("futimens", unix.UtimesNanoAt(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", f.Fd()), []unix.Timespec{{Nsec: unix.UTIME_OMIT}, unix.NsecToTimespec(at.UnixNano())}, 0))
	fi, err := f.Stat()
	a.ok("fstat", err)
	if err == nil {
		a.is("fstat", []any{fi.Mode(), fi.ModTime().Unix(), fi.Size()}, []any{os.FileMode(0o640), at.Unix(), 7})
	}
	b := make([]byte, 7)
	_, err = f.ReadAt(b, 0)
	a.ok("read", err)
	a.is("content", string(b), "content")
	fi, err = os.Stat("file")
	a.ok("stat", err)
	if err == nil {
		a.is("stat", []any{fi.Mode(), fi.ModTime().Unix()}, []any{os.FileMode(0o640), at.Unix()})
	}
	a.ok("open again", os.Chmod("file", 0o640))
	g, err := os.OpenFile("file", os.O_RDWR, 0)
	a.ok("open again", err)
	a.ok("close", g.Close())
	a.ok("close", f.Close())
	// Who has a path only needs no help, and gets none.
	a.ok("chmod", os.Chmod("other", 0o600))
	fi, err = os.Stat("other")
	a.ok("stat", err)
	if err == nil {
		a.is("mode", fi.Mode(), os.FileMode(0o600))
	}
}
