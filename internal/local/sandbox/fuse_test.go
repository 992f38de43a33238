package sandbox

import (
	"encoding/binary"
	"errors"
	"hash/fnv"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/mirrord-go/mirrord/internal/local/ids"
)

// serveRoot serves a FUSE root that holds the mount points and nothing else,
// with the few calls of the protocol (linux/fuse.h) that this takes.
func serveRoot(binds []string) (onFUSE func(*os.File, ids.Known) error, stop func()) {
	root := &fuseRoot{dirs: map[uint64]string{1: "/"}, ids: map[string]uint64{"/": 1}, links: map[uint64]string{}}
	for i, l := range []string{"/bin", "/sbin", "/lib", "/lib64"} { // programs need them
		if to, err := os.Readlink(l); err == nil {
			id := uint64(1001 + i)
			root.ids[l], root.dirs[id], root.links[id] = id, l, to
		}
	}
	for _, b := range binds {
		for p := path.Clean(b); p != "/"; p = path.Dir(p) {
			h := fnv.New64a()
			h.Write([]byte(p))
			root.ids[p] = h.Sum64() | 2
			root.dirs[root.ids[p]] = p
		}
	}
	var f *os.File
	done := make(chan struct{})
	return func(dev *os.File, _ ids.Known) error {
			f = dev
			go func() { defer close(done); root.serve(dev) }()
			return nil
		}, func() {
			<-done // the last user of the mount is gone, and with it the connection
			f.Close()
		}
}

type fuseRoot struct {
	dirs  map[uint64]string
	ids   map[string]uint64
	links map[uint64]string
}

func (r *fuseRoot) attr(id uint64) []byte {
	ne := binary.NativeEndian
	b := make([]byte, 88)
	ne.PutUint64(b, id)
	ne.PutUint32(b[60:], unix.S_IFDIR|0o755)
	if r.links[id] != "" {
		ne.PutUint32(b[60:], unix.S_IFLNK|0o777)
	}
	ne.PutUint32(b[64:], 2)
	return b
}

func (r *fuseRoot) serve(dev *os.File) {
	ne := binary.NativeEndian
	buf := make([]byte, 1<<17)
	for {
		n, err := unix.Read(int(dev.Fd()), buf)
		if errors.Is(err, unix.EINTR) || errors.Is(err, unix.ENOENT) {
			continue
		}
		if err != nil { // ENODEV: unmounted
			return
		}
		op, unique, node := ne.Uint32(buf[4:]), ne.Uint64(buf[8:]), ne.Uint64(buf[16:])
		body := buf[40:n]
		var out []byte
		errno := unix.Errno(0)
		const ever = 1 << 40
		switch op {
		case 26: // INIT
			out = make([]byte, 64)
			ne.PutUint32(out, 7)
			ne.PutUint32(out[4:], 31)
			ne.PutUint32(out[20:], 1<<16) // max_write
		case 1: // LOOKUP
			id, ok := r.ids[path.Join(r.dirs[node], strings.TrimRight(string(body), "\x00"))]
			if !ok {
				errno = unix.ENOENT
				break
			}
			out = make([]byte, 40)
			ne.PutUint64(out, id)
			ne.PutUint64(out[16:], ever)
			ne.PutUint64(out[24:], ever)
			out = append(out, r.attr(id)...)
		case 3: // GETATTR
			out = append(make([]byte, 16), r.attr(node)...)
			ne.PutUint64(out, ever)
		case 5: // READLINK
			out = []byte(r.links[node])
		case 17: // STATFS
			out = make([]byte, 80)
		case 27: // OPENDIR
			out = make([]byte, 16)
		case 28: // READDIR: nothing to see
		case 29, 34: // RELEASEDIR, ACCESS
		case 2, 42, 36: // FORGET, BATCH_FORGET, INTERRUPT: no answer
			continue
		default:
			errno = unix.ENOSYS
		}
		head := make([]byte, 16)
		ne.PutUint32(head, uint32(16+len(out)))
		ne.PutUint32(head[4:], uint32(-int32(errno)))
		ne.PutUint64(head[8:], unique)
		_, _ = unix.Write(int(dev.Fd()), append(head, out...))
	}
}

// localDirs are what a program needs of this machine, as a planner would list
// them: those that exist and are no links.
func localDirs() (dirs []string) {
	for _, d := range []string{"/usr", "/bin", "/sbin", "/lib", "/lib64", "/proc", "/sys", "/dev", "/etc", "/tmp"} {
		if real, err := filepath.EvalSymlinks(d); err == nil && real == d {
			dirs = append(dirs, d)
		}
	}
	return dirs
}

// TestFUSERoot: the root is ours, local directories are this machine's, and
// nothing of it reaches the host.
func TestFUSERoot(t *testing.T) {
	asBoth(t, func(t *testing.T, uid int) {
		before, _ := os.ReadFile("/proc/self/mountinfo")
		dir, err := os.MkdirTemp("", "sandbox-root-")
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(dir)
		os.Chmod(dir, 0o777)
		sc := scenario{Served: true}.prog(t, "root", dir)
		sc.Spec.FUSE, sc.Spec.Dir = true, dir
		sc.Spec.Binds = append(localDirs(), "/removed-since-it-was-listed")
		r := start(t, uid, sc)
		if got := r.code(); got != 3 {
			t.Errorf("exit code: got %d, want 3; output %s", got, r.output)
		}
		<-r.printed
		for _, want := range []string{"root fuse", "home gone", "wd " + dir, "word"} {
			if !strings.Contains(r.output.String(), want) {
				t.Errorf("output %q lacks %q", r.output, want)
			}
		}
		r.await("done")
		if b, err := os.ReadFile(filepath.Join(dir, "file")); err != nil || string(b) != "word" {
			t.Errorf("file written inside: got %q, %v; want word", b, err)
		}
		after, _ := os.ReadFile("/proc/self/mountinfo")
		if string(before) != string(after) {
			t.Errorf("mounts of the host have changed:\n%s", after)
		}
	})
}

// TestFUSESupervisorKilled: with a dead server behind the root the helper
// still ends the tree.
func TestFUSESupervisorKilled(t *testing.T) {
	asBoth(t, func(t *testing.T, uid int) {
		sc := scenario{Served: true}.prog(t, "count-signals")
		sc.Spec.FUSE, sc.Spec.Binds = true, localDirs()
		r := start(t, uid, sc)
		supervisor := r.await("supervisor").N
		r.await("running")
		r.prints("ready")
		unix.Kill(supervisor, unix.SIGKILL)
		if got := r.code(); got != 7 { // it obeys SIGTERM in its own way
			t.Errorf("exit code: got %d, want 7", got)
		}
		r.vanish(patience)
	})
}
