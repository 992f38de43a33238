package files

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mirrord-go/mirrord/internal/link"
	"github.com/mirrord-go/mirrord/internal/protocol"
)

// err is the errno with which m is refused.
func (c *client) err(m protocol.Message) error {
	c.t.Helper()
	_, err := c.ask(m)
	return err
}

func content(t *testing.T, p string) string {
	t.Helper()
	b, err := os.ReadFile(p)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

func TestOpenToWrite(t *testing.T) {
	root := tempRoot(t)
	at := func(p string) string { return filepath.Join(root, p) }
	write(t, at("file"), "content")
	must(t, os.Symlink("file", at("link")))
	must(t, os.Symlink("nothing", at("dangling")))
	c := serve(t, root, As{Umask: 0o027})

	o := get[*protocol.Opened](c, &protocol.Open{Path: "/new", Flags: unix.O_WRONLY | unix.O_CREAT, Mode: 0o666})
	if o.Attr.Mode != unix.S_IFREG|0o640 || o.Attr.Size != 0 {
		t.Errorf("created with mode %o, size %d; want 100640 by the umask", o.Attr.Mode, o.Attr.Size)
	}
	must(t, c.err(&protocol.WriteAt{Handle: o.Handle, Off: 2, Data: []byte("written")}))
	if got := content(t, at("new")); got != "\x00\x00written" {
		t.Errorf("got %q", got)
	}
	if a := get[*protocol.Attr](c, &protocol.Stat{Handle: o.Handle}); a.Size != 9 || a.Ino != o.Attr.Ino {
		t.Errorf("stat of the handle: %+v", a)
	}
	must(t, c.err(&protocol.Resize{Handle: o.Handle, Size: 4}))
	must(t, c.err(&protocol.SyncHandle{Handle: o.Handle}))
	if got := content(t, at("new")); got != "\x00\x00wr" {
		t.Errorf("after a truncation: %q", got)
	}
	must(t, os.Remove(at("new"))) // the handle lives
	if a := get[*protocol.Attr](c, &protocol.Stat{Handle: o.Handle}); a.Size != 4 || a.Nlink != 0 {
		t.Errorf("stat of a removed file: %+v", a)
	}
	must(t, c.err(&protocol.CloseHandle{Handle: o.Handle}))

	o = get[*protocol.Opened](c, &protocol.Open{Path: "/file", Flags: unix.O_RDWR, Prefetch: 100})
	if string(o.Data) != "content" || !o.EOF {
		t.Errorf("opened: %q", o.Data)
	}
	must(t, c.err(&protocol.WriteAt{Handle: o.Handle, Off: 3, Data: []byte("---")}))
	if d := get[*protocol.Data](c, &protocol.ReadAt{Handle: o.Handle, N: 100}); string(d.Bytes) != "con---t" {
		t.Errorf("read back %q", d.Bytes)
	}
	app := get[*protocol.Opened](c, &protocol.Open{Path: "/file", Flags: unix.O_WRONLY | unix.O_APPEND})
	must(t, c.err(&protocol.WriteAt{Handle: app.Handle, Off: 0, Data: []byte("end")}))
	if got := content(t, at("file")); got != "con---tend" {
		t.Errorf("appended: %q", got)
	}
	if o := get[*protocol.Opened](c, &protocol.Open{Path: "/link", Flags: unix.O_WRONLY | unix.O_CREAT | unix.O_TRUNC}); o.Attr.Size != 0 || content(t, at("file")) != "" {
		t.Errorf("truncated through a link: size %d, %q", o.Attr.Size, content(t, at("file")))
	}
	for name, tc := range map[string]struct{ got, want error }{
		"write to what is open for reading": {c.err(&protocol.WriteAt{Handle: get[*protocol.Opened](c, &protocol.Open{Path: "/file"}).Handle, Data: []byte("x")}), syscall.EBADF},
		"write without a handle":            {c.err(&protocol.WriteAt{Handle: 99, Data: []byte("x")}), syscall.EBADF},
		"negative offset":                   {c.err(&protocol.WriteAt{Handle: o.Handle, Off: -1, Data: []byte("x")}), syscall.EINVAL},
		"too much":                          {c.err(&protocol.WriteAt{Handle: o.Handle, Data: make([]byte, protocol.MaxData+1)}), syscall.EINVAL},
		"too long":                          {c.err(&protocol.Resize{Handle: o.Handle, Size: 1 << 63}), syscall.EINVAL},
		"sync without a handle":             {c.err(&protocol.SyncHandle{}), syscall.EBADF},
		"stat without a handle":             {c.err(&protocol.Stat{Handle: 99}), syscall.EBADF},
		"a link that leads to nothing":      {c.err(&protocol.Open{Path: "/dangling", Flags: unix.O_CREAT}), syscall.EEXIST},
		"a link, not followed":              {c.err(&protocol.Open{Path: "/link", Flags: unix.O_WRONLY | 0o400000}), syscall.ELOOP},
	} {
		if tc.got != tc.want {
			t.Errorf("%s: got %v, want %v", name, tc.got, tc.want)
		}
	}
}

// TestChangesInOrder: many on one stream, none waited for; after a failure
// nothing is done.
func TestChangesInOrder(t *testing.T) {
	root := tempRoot(t)
	c := serve(t, root, As{})
	o := get[*protocol.Opened](c, &protocol.Open{Path: "/file", Flags: unix.O_WRONLY | unix.O_CREAT | unix.O_APPEND, Mode: 0o644})
	const n = 200
	s, err := c.l.Open(t.Context(), link.Bulk, &protocol.WriteAt{Handle: o.Handle, Data: []byte{0}})
	must(t, err)
	defer s.Close()
	for i := 1; i < n; i++ {
		must(t, s.Send(&protocol.WriteAt{Handle: o.Handle, Data: []byte{byte(i)}}))
	}
	must(t, s.Send(&protocol.SyncHandle{Handle: o.Handle}))
	must(t, s.Send(&protocol.Resize{Handle: o.Handle, Size: 1 << 63})) // fails
	must(t, s.Send(&protocol.WriteAt{Handle: o.Handle, Data: []byte("not any more")}))
	must(t, s.CloseWrite())
	for i := range n + 3 {
		m, err := s.Receive()
		must(t, err)
		a, ok := m.(*protocol.Answer)
		if want := i > n; !ok || (a.Errno != 0) != want || want && a.Errno != syscall.EINVAL {
			t.Fatalf("answer %d: %+v", i, m)
		}
	}
	got := []byte(content(t, filepath.Join(root, "file")))
	if len(got) != n || !bytes.Equal(got[:3], []byte{0, 1, 2}) || got[n-1] != n-1 {
		t.Errorf("%d bytes: %v", len(got), got)
	}
	// Something else between them.
	s, err = c.l.Open(t.Context(), link.Bulk, &protocol.SyncHandle{Handle: o.Handle})
	must(t, err)
	defer s.Close()
	must(t, s.Send(&protocol.Statfs{Path: "/"}))
	for i, want := range []syscall.Errno{0, syscall.EPROTO} {
		if m, err := s.Receive(); err != nil || m.(*protocol.Answer).Errno != want {
			t.Errorf("answer %d: %+v, %v", i, m, err)
		}
	}
}

// TestDiskFull: the errno of what could not be written.
func TestDiskFull(t *testing.T) {
	root := tempRoot(t)
	must(t, unix.Mount("tmpfs", root, "tmpfs", 0, "size=64k"))
	defer unix.Unmount(root, unix.MNT_DETACH)
	c := serve(t, root, As{})
	o := get[*protocol.Opened](c, &protocol.Open{Path: "/file", Flags: unix.O_WRONLY | unix.O_CREAT, Mode: 0o644})
	if err := c.err(&protocol.WriteAt{Handle: o.Handle, Data: make([]byte, 128<<10)}); err != syscall.ENOSPC {
		t.Errorf("got %v, want ENOSPC", err)
	}
	must(t, c.err(&protocol.CloseHandle{Handle: o.Handle}))
}

func TestMakeRemoveRename(t *testing.T) {
	root := tempRoot(t)
	at := func(p string) string { return filepath.Join(root, p) }
	write(t, at("file"), "content")
	c := serve(t, root, As{Umask: 0o077})
	for _, tc := range []struct {
		name string
		make protocol.Make
		mode uint32
		link string
	}{
		{"directory", protocol.Make{Path: "/dir", Mode: unix.S_IFDIR | 0o1777}, unix.S_IFDIR | 0o1700, ""},
		{"FIFO", protocol.Make{Path: "/dir/fifo", Mode: unix.S_IFIFO | 0o666}, unix.S_IFIFO | 0o600, ""},
		{"socket", protocol.Make{Path: "/dir/socket", Mode: unix.S_IFSOCK | 0o755}, unix.S_IFSOCK | 0o700, ""},
		{"file", protocol.Make{Path: "/dir/file", Mode: unix.S_IFREG | 0o644}, unix.S_IFREG | 0o600, ""},
		{"symbolic link", protocol.Make{Path: "/link", Mode: unix.S_IFLNK | 0o777, Text: "/no/where"}, unix.S_IFLNK | 0o777, "/no/where"},
		{"hard link", protocol.Make{Path: "/dir/hard", Old: "/file"}, unix.S_IFREG | 0o644, ""},
		{"hard link of a symbolic one", protocol.Make{Path: "/dir/hardlink", Old: "/link"}, unix.S_IFLNK | 0o777, "/no/where"},
	} {
		if a := get[*protocol.Attr](c, &tc.make); a.Mode != tc.mode || a.Link != tc.link {
			t.Errorf("%s: mode %o, link %q, want %o, %q", tc.name, a.Mode, a.Link, tc.mode, tc.link)
		}
	}
	for name, tc := range map[string]struct{ got, want error }{
		"device":                    {c.err(&protocol.Make{Path: "/null", Mode: unix.S_IFCHR | 0o666}), syscall.EPERM},
		"no type":                   {c.err(&protocol.Make{Path: "/x", Mode: 0o666}), syscall.EPERM},
		"taken":                     {c.err(&protocol.Make{Path: "/dir", Mode: unix.S_IFDIR}), syscall.EEXIST},
		"the root":                  {c.err(&protocol.Make{Path: "/", Mode: unix.S_IFDIR}), syscall.EBUSY},
		"no directory":              {c.err(&protocol.Make{Path: "/no/x", Mode: unix.S_IFDIR}), syscall.ENOENT},
		"relative":                  {c.err(&protocol.Make{Path: "x", Mode: unix.S_IFDIR}), syscall.EINVAL},
		"hard link of a directory":  {c.err(&protocol.Make{Path: "/x", Old: "/dir"}), syscall.EPERM},
		"rmdir of a full one":       {c.err(&protocol.Remove{Path: "/dir", Dir: true}), syscall.ENOTEMPTY},
		"unlink of a directory":     {c.err(&protocol.Remove{Path: "/dir"}), syscall.EISDIR},
		"rmdir of a file":           {c.err(&protocol.Remove{Path: "/file", Dir: true}), syscall.ENOTDIR},
		"rmdir of the root":         {c.err(&protocol.Remove{Path: "/..", Dir: true}), syscall.EBUSY},
		"rename of nothing":         {c.err(&protocol.Rename{Old: "/none", New: "/x"}), syscall.ENOENT},
		"rename over, not replaced": {c.err(&protocol.Rename{Old: "/file", New: "/dir/file", Flags: unix.RENAME_NOREPLACE}), syscall.EEXIST},
		"unknown flags":             {c.err(&protocol.Rename{Old: "/file", New: "/x", Flags: 1 << 30}), syscall.EINVAL},
		"of the root":               {c.err(&protocol.Rename{Old: "/", New: "/x"}), syscall.EBUSY},
	} {
		if tc.got != tc.want {
			t.Errorf("%s: got %v, want %v", name, tc.got, tc.want)
		}
	}
	must(t, c.err(&protocol.Rename{Old: "/file", New: "/dir/file"}))
	if got := content(t, at("dir/file")); got != "content" {
		t.Errorf("renamed: %q", got)
	}
	must(t, c.err(&protocol.Rename{Old: "/dir", New: "/link", Flags: unix.RENAME_EXCHANGE}))
	if fi, err := os.Lstat(at("link")); err != nil || !fi.IsDir() {
		t.Errorf("exchanged: %v, %v", fi, err)
	}
	must(t, c.err(&protocol.Remove{Path: "/dir"})) // the link now, not where it leads
	for _, p := range []string{"fifo", "socket", "file", "hard", "hardlink"} {
		must(t, c.err(&protocol.Remove{Path: "/link/" + p}))
	}
	must(t, c.err(&protocol.Remove{Path: "/link", Dir: true}))
	if list, err := os.ReadDir(root); err != nil || len(list) != 0 {
		t.Errorf("left: %v, %v", list, err)
	}
}

func TestSetAttr(t *testing.T) {
	root := tempRoot(t)
	at := func(p string) string { return filepath.Join(root, p) }
	write(t, at("file"), "content")
	must(t, os.Mkdir(at("dir"), 0o755))
	must(t, os.Symlink("file", at("link")))
	must(t, unix.Mkfifo(at("fifo"), 0o666))
	c := serve(t, root, As{})
	long := time.Date(1965, 4, 3, 2, 1, 0, 987654321, time.UTC).UnixNano()
	const mode, size, atime, mtime = protocol.SetMode, protocol.SetSize, protocol.SetAtime, protocol.SetMtime

	a := get[*protocol.Attr](c, &protocol.SetAttr{Path: "/file", What: mode | size | mtime, Mode: 0o4751, Size: 3, Mtime: long})
	if a.Mode != unix.S_IFREG|0o4751 && a.Mode != unix.S_IFREG|0o751 || a.Size != 3 || a.Mtime != long {
		t.Errorf("got %+v", a)
	}
	if a := get[*protocol.Attr](c, &protocol.SetAttr{Path: "/dir", What: mode | atime, Mode: 0o700, Atime: long}); a.Mode != unix.S_IFDIR|0o700 || a.Atime != long {
		t.Errorf("directory: %+v", a)
	}
	before := get[*protocol.Attr](c, &protocol.Stat{Path: "/file"})
	if a := get[*protocol.Attr](c, &protocol.SetAttr{Path: "/link", What: mtime, Mtime: long}); a.Mtime != long || a.Link != "file" {
		t.Errorf("link: %+v", a)
	}
	a = get[*protocol.Attr](c, &protocol.SetAttr{Path: "/file", What: atime | mtime | protocol.SetAtimeNow | protocol.SetMtimeNow, Mtime: long})
	if now := time.Now(); before.Mtime != long || now.Sub(time.Unix(0, a.Mtime)) > time.Minute || now.Sub(time.Unix(0, a.Atime)) > time.Minute {
		t.Errorf("now is %+v; before, %+v", a, before)
	}
	must(t, c.err(&protocol.SetAttr{Path: "/fifo", What: mode, Mode: 0o600}))
	get[*protocol.Attr](c, &protocol.SetAttr{Path: "/", What: mode, Mode: 0o755})
	for name, tc := range map[string]struct{ got, want error }{
		"mode of a link":      {c.err(&protocol.SetAttr{Path: "/link", What: mode, Mode: 0o600}), syscall.EOPNOTSUPP},
		"size of a directory": {c.err(&protocol.SetAttr{Path: "/dir", What: size}), syscall.EISDIR},
		"size of a FIFO":      {c.err(&protocol.SetAttr{Path: "/fifo", What: size}), syscall.EINVAL},
		"size of a link":      {c.err(&protocol.SetAttr{Path: "/link", What: size}), syscall.EINVAL},
		"negative size":       {c.err(&protocol.SetAttr{Path: "/file", What: size, Size: 1 << 63}), syscall.EINVAL},
		"nothing there":       {c.err(&protocol.SetAttr{Path: "/none", What: mode}), syscall.ENOENT},
	} {
		if tc.got != tc.want {
			t.Errorf("%s: got %v, want %v", name, tc.got, tc.want)
		}
	}
}

// TestWritePermission: a change is the target's user's, and is refused as it
// would be to him.
func TestWritePermission(t *testing.T) {
	root := tempRoot(t)
	at := func(p string) string { return filepath.Join(root, p) }
	for p, uid := range map[string]int{"roots": 0, "mine": 1000} {
		must(t, os.Mkdir(at(p), 0o755))
		write(t, at(p+"/file"), p)
		must(t, os.Chown(at(p), uid, uid))
		must(t, os.Chown(at(p+"/file"), uid, uid))
	}
	write(t, at("groups"), "x")
	must(t, os.Chown(at("groups"), 0, 4242))
	must(t, os.Chmod(at("groups"), 0o664))
	user := serve(t, root, As{UID: 1000, GID: 1000, Groups: []int{4242}, Umask: 0o022})
	const mode, now = protocol.SetMode, protocol.SetAtime | protocol.SetMtime | protocol.SetAtimeNow | protocol.SetMtimeNow
	for name, tc := range map[string]struct{ got, want error }{
		"write":           {user.err(&protocol.Open{Path: "/roots/file", Flags: unix.O_WRONLY}), syscall.EACCES},
		"truncate":        {user.err(&protocol.Open{Path: "/roots/file", Flags: unix.O_TRUNC}), syscall.EACCES},
		"create":          {user.err(&protocol.Open{Path: "/roots/new", Flags: unix.O_CREAT}), syscall.EACCES},
		"mkdir":           {user.err(&protocol.Make{Path: "/roots/new", Mode: unix.S_IFDIR}), syscall.EACCES},
		"symlink":         {user.err(&protocol.Make{Path: "/roots/new", Mode: unix.S_IFLNK, Text: "x"}), syscall.EACCES},
		"unlink":          {user.err(&protocol.Remove{Path: "/roots/file"}), syscall.EACCES},
		"rename":          {user.err(&protocol.Rename{Old: "/roots/file", New: "/mine/x"}), syscall.EACCES},
		"chmod":           {user.err(&protocol.SetAttr{Path: "/roots/file", What: mode, Mode: 0o777}), syscall.EPERM},
		"resize":          {user.err(&protocol.SetAttr{Path: "/roots/file", What: protocol.SetSize}), syscall.EACCES},
		"times":           {user.err(&protocol.SetAttr{Path: "/roots/file", What: now}), syscall.EACCES},
		"times of others": {user.err(&protocol.SetAttr{Path: "/groups", What: protocol.SetMtime}), syscall.EPERM},
		"now":             {user.err(&protocol.SetAttr{Path: "/groups", What: now}), nil}, // who may write may (utimensat(2))
		"group":           {user.err(&protocol.Open{Path: "/groups", Flags: unix.O_WRONLY}), nil},
		"mine":            {user.err(&protocol.Open{Path: "/mine/file", Flags: unix.O_RDWR | unix.O_TRUNC}), nil},
		"mine, chmod":     {user.err(&protocol.SetAttr{Path: "/mine/file", What: mode, Mode: 0o600}), nil},
	} {
		if tc.got != tc.want {
			t.Errorf("%s: got %v, want %v", name, tc.got, tc.want)
		}
	}
	for _, m := range []protocol.Message{&protocol.Open{Path: "/mine/new", Flags: unix.O_CREAT | unix.O_WRONLY, Mode: 0o666}, &protocol.Make{Path: "/mine/dir", Mode: unix.S_IFDIR | 0o777},
		&protocol.Make{Path: "/mine/link", Mode: unix.S_IFLNK, Text: "x"}} {
		must(t, user.err(m))
	}
	for _, p := range []string{"mine/new", "mine/dir", "mine/link"} {
		var st unix.Stat_t
		must(t, unix.Lstat(at(p), &st))
		if st.Uid != 1000 || st.Gid != 1000 || st.Mode&0o022 != 0 && st.Mode&unix.S_IFMT != unix.S_IFLNK {
			t.Errorf("%s: owner %d:%d, mode %o", p, st.Uid, st.Gid, st.Mode)
		}
	}
	// The process itself keeps its own umask.
	old := unix.Umask(0o022)
	unix.Umask(old)
	if c := serve(t, root, As{Umask: 0o777}); c.err(&protocol.Make{Path: "/shut", Mode: unix.S_IFDIR | 0o777}) != nil {
		t.Error("mkdir")
	}
	if now := unix.Umask(old); now != old {
		t.Errorf("the umask of the process is %o, was %o", now, old)
	}
	if fi, err := os.Stat(at("shut")); err != nil || fi.Mode().Perm() != 0 {
		t.Errorf("umask 0777: %v, %v", fi, err)
	}
}

// TestChangesStayBelowTheRoot: no link of the target's, and no race with one,
// leads a change out of it.
func TestChangesStayBelowTheRoot(t *testing.T) {
	outside := tempRoot(t)
	root := filepath.Join(outside, "root")
	write(t, filepath.Join(outside, "victim"), "untouched")
	must(t, os.Mkdir(root, 0o755))
	write(t, filepath.Join(root, "file"), "x")
	must(t, os.Symlink("../victim", filepath.Join(root, "up")))
	must(t, os.Symlink(outside, filepath.Join(root, "abs")))
	must(t, os.Symlink("../../../../../..", filepath.Join(root, "dots")))
	must(t, os.Symlink("../planted", filepath.Join(root, "dangling")))
	c := serve(t, root, As{})
	for _, m := range []protocol.Message{
		&protocol.Open{Path: "/up", Flags: unix.O_WRONLY | unix.O_TRUNC},
		&protocol.Open{Path: "/abs/victim", Flags: unix.O_WRONLY | unix.O_TRUNC},
		&protocol.Open{Path: "/abs/planted", Flags: unix.O_WRONLY | unix.O_CREAT, Mode: 0o644},
		&protocol.Open{Path: "/dangling", Flags: unix.O_WRONLY | unix.O_CREAT, Mode: 0o644},
		&protocol.Make{Path: "/abs/planted", Mode: unix.S_IFDIR | 0o755},
		&protocol.Make{Path: "/stolen", Old: "/abs/victim"},
		&protocol.Remove{Path: "/abs/victim"},
		&protocol.Rename{Old: "/abs/victim", New: "/stolen"},
		&protocol.Rename{Old: "/file", New: "/abs/planted"},
		&protocol.SetAttr{Path: "/abs/victim", What: protocol.SetMode, Mode: 0o777},
		&protocol.SetAttr{Path: "/up", What: protocol.SetSize},
	} {
		if err := c.err(m); err == nil {
			t.Errorf("%T %+v succeeded", m, m)
		}
	}
	for _, m := range []protocol.Message{
		&protocol.Open{Path: "/dots/../../file", Flags: unix.O_WRONLY | unix.O_TRUNC},
		&protocol.Make{Path: "/dots/inside", Mode: unix.S_IFDIR | 0o755},
		&protocol.Make{Path: "/../inside2", Mode: unix.S_IFDIR | 0o755},
	} {
		must(t, c.err(m))
	}
	// While the target exchanges a directory with a link out of it.
	must(t, os.Mkdir(filepath.Join(root, "swap"), 0o755))
	must(t, os.Symlink(outside, filepath.Join(root, "swap2")))
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				_ = unix.Renameat2(unix.AT_FDCWD, filepath.Join(root, "swap"), unix.AT_FDCWD, filepath.Join(root, "swap2"), unix.RENAME_EXCHANGE)
			}
		}
	})
	for range 300 {
		_ = c.err(&protocol.Open{Path: "/swap/victim", Flags: unix.O_WRONLY | unix.O_CREAT | unix.O_TRUNC, Mode: 0o644})
		_ = c.err(&protocol.Make{Path: "/swap/planted", Mode: unix.S_IFDIR | 0o755})
		_ = c.err(&protocol.Remove{Path: "/swap/victim"})
	}
	close(stop)
	wg.Wait()
	if got := content(t, filepath.Join(outside, "victim")); got != "untouched" {
		t.Errorf("the file outside is %q", got)
	}
	list, err := os.ReadDir(outside)
	must(t, err)
	var names []string
	for _, e := range list {
		names = append(names, e.Name())
	}
	if got := strings.Join(names, " "); got != "root victim" {
		t.Errorf("outside: %s", got)
	}
	for _, p := range []string{"inside", "inside2"} {
		if _, err := os.Lstat(filepath.Join(root, p)); errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is not below the root", p)
		}
	}
}
