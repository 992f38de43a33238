package target

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mirrord-go/mirrord/internal/leak"
	"github.com/mirrord-go/mirrord/internal/testnet"
	"github.com/mirrord-go/mirrord/internal/unixsock"
)

// Who the target's process is in these tests.
const targetUID, targetGID, targetGroup = 1234, 99, 50

// rooted is a target with a root directory of its own, and that directory.
func rooted(t *testing.T, flags uintptr) (*Target, string) {
	t.Helper()
	leak.Check(t)
	root := t.TempDir()
	for p := root; p != "/tmp" && p != "/"; p = filepath.Dir(p) { // so that the target's user comes there
		if err := os.Chmod(p, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	pid := testnet.Process(t, flags, []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}, ":")
	tg, err := Open(pid)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tg.Close() })
	tg.Root.Close()
	if tg.Root, err = openPath(root, unix.O_PATH|unix.O_DIRECTORY); err != nil {
		t.Fatal(err)
	}
	tg.UID, tg.GID, tg.Groups = targetUID, targetGID, []int{targetGroup}
	if err := tg.Personate(); err != nil {
		t.Fatal(err)
	}
	return tg, root
}

// listening serves at a path, or an abstract name, and gives what it accepts.
func listening(t *testing.T, network, address string) *net.UnixListener {
	t.Helper()
	ln, err := net.ListenUnix(network, &net.UnixAddr{Name: address, Net: network})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	if !strings.HasPrefix(address, "@") {
		if err := os.Chmod(address, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	return ln
}

func TestDialUnix(t *testing.T) {
	tg, root := rooted(t, 0)
	in := func(p string) string { return filepath.Join(root, p) }
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.MkdirAll(in("run/closed"), 0o755))
	outside := filepath.Join(t.TempDir(), "outside.sock")
	listening(t, "unix", outside)
	stream := listening(t, "unix", in("run/s"))
	packet := listening(t, "unixpacket", in("run/q"))
	listening(t, "unix", in("run/private"))
	must(os.Chmod(in("run/private"), 0o700))
	listening(t, "unix", in("run/group"))
	must(errors.Join(os.Chmod(in("run/group"), 0o070), os.Chown(in("run/group"), 0, targetGroup)))
	listening(t, "unix", in("run/closed/s"))
	must(os.Chmod(in("run/closed"), 0o700))
	dead := listening(t, "unix", in("run/dead"))
	dead.SetUnlinkOnClose(false)
	dead.Close()
	must(errors.Join(os.WriteFile(in("run/file"), nil, 0o777), os.Chmod(in("run/file"), 0o777)))
	must(errors.Join(os.Mkdir(in("proc"), 0o755), unix.Mount("/proc", in("proc"), "", unix.MS_BIND, "")))
	t.Cleanup(func() { must(unix.Unmount(in("proc"), 0)) })
	must(os.Symlink("/run", in("link")))
	must(os.Symlink("s", in("run/other")))
	must(os.Symlink("../../../../../../../../../run/s", in("run/up")))
	must(os.Symlink(outside, in("run/out")))
	must(os.Symlink("/proc/self/root/"+outside, in("run/magic")))
	must(os.Symlink("loop", in("run/loop")))
	long := in("run/" + strings.Repeat("d", 100))
	must(os.Mkdir(long, 0o755))
	must(os.Symlink("/run/s", long+"/s"))

	for _, c := range []struct {
		name, path string
		typ        int
		want       error
	}{
		{"stream", "/run/s", unix.SOCK_STREAM, nil},
		{"packet", "/run/q", unix.SOCK_SEQPACKET, nil},
		{"the wrong type", "/run/q", unix.SOCK_STREAM, unix.EPROTOTYPE},
		{"absolute link", "/link/s", unix.SOCK_STREAM, nil},
		{"link at the end", "/run/other", unix.SOCK_STREAM, nil},
		{"dots", "/run/../link/./s", unix.SOCK_STREAM, nil},
		{"dots beyond the root", "/../../run/s", unix.SOCK_STREAM, nil},
		{"link beyond the root", "/run/up", unix.SOCK_STREAM, nil},
		{"longer than sun_path", strings.TrimPrefix(long, root) + "/s", unix.SOCK_STREAM, nil},
		{"a link out of the root", "/run/out", unix.SOCK_STREAM, unix.ENOENT},
		{"by the process list", "/run/magic", unix.SOCK_STREAM, unix.EXDEV},
		{"outside", outside, unix.SOCK_STREAM, unix.ENOENT},
		{"a loop", "/run/loop", unix.SOCK_STREAM, unix.ELOOP},
		{"nothing", "/run/none", unix.SOCK_STREAM, unix.ENOENT},
		{"below a file", "/run/file/s", unix.SOCK_STREAM, unix.ENOTDIR},
		{"a file", "/run/file", unix.SOCK_STREAM, unix.ECONNREFUSED},
		{"nobody listens", "/run/dead", unix.SOCK_STREAM, unix.ECONNREFUSED},
		{"another's", "/run/private", unix.SOCK_STREAM, unix.EACCES},
		{"the group's", "/run/group", unix.SOCK_STREAM, nil},
		{"in another's directory", "/run/closed/s", unix.SOCK_STREAM, unix.EACCES},
		{"relative", "run/s", unix.SOCK_STREAM, unix.EINVAL},
		{"empty", "", unix.SOCK_STREAM, unix.EINVAL},
		{"with NUL", "/run/s\x00x", unix.SOCK_STREAM, unix.EINVAL},
		{"too long", "/" + strings.Repeat("x", unix.PathMax), unix.SOCK_STREAM, unix.EINVAL},
		{"too long an abstract name", "\x00" + strings.Repeat("x", unixsock.MaxName), unix.SOCK_STREAM, unix.EINVAL},
	} {
		t.Run(c.name, func(t *testing.T) {
			conn, err := tg.DialUnix(t.Context(), c.typ, c.path, true)
			if !errors.Is(err, c.want) || err == nil && c.want != nil {
				t.Errorf("got %v, want %v", err, c.want)
			}
			if err == nil {
				conn.Close()
			}
		})
	}
	for _, ln := range []*net.UnixListener{stream, packet} {
		_ = ln.SetDeadline(time.Now())
	}
}

// A server sees the target's user: who connects, and who sends.
func TestDialUnixIsTheTargetsUser(t *testing.T) {
	tg, root := rooted(t, 0)
	for network, typ := range map[string]int{"unix": unix.SOCK_STREAM, "unixpacket": unix.SOCK_SEQPACKET} {
		t.Run(network, func(t *testing.T) {
			ln := listening(t, network, filepath.Join(root, network))
			c, err := tg.DialUnix(t.Context(), typ, "/"+network, true)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			s, err := ln.AcceptUnix()
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			f, err := s.File()
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			peer, err := unix.GetsockoptUcred(int(f.Fd()), unix.SOL_SOCKET, unix.SO_PEERCRED)
			if err != nil || peer.Uid != targetUID || peer.Gid != targetGID {
				t.Errorf("SO_PEERCRED is %+v, %v, want user %d, group %d", peer, err, targetUID, targetGID)
			}
			if err := unix.SetsockoptInt(int(f.Fd()), unix.SOL_SOCKET, unix.SO_PASSCRED, 1); err != nil {
				t.Fatal(err)
			}
			if network == "unix" {
				_, err = c.Write([]byte("hello"))
			} else {
				err = c.Send([]byte("hello"))
			}
			if err != nil {
				t.Fatal(err)
			}
			p, oob := make([]byte, 10), make([]byte, 100)
			n, oobn, _, _, err := s.ReadMsgUnix(p, oob)
			if err != nil || string(p[:n]) != "hello" {
				t.Fatalf("got %q, %v", p[:n], err)
			}
			all, err := unix.ParseSocketControlMessage(oob[:oobn])
			if err != nil || len(all) != 1 {
				t.Fatalf("%d control messages, %v", len(all), err)
			}
			cred, err := unix.ParseUnixCredentials(&all[0])
			if err != nil || cred.Uid != targetUID || cred.Gid != targetGID {
				t.Errorf("SCM_CREDENTIALS is %+v, %v, want user %d, group %d", cred, err, targetUID, targetGID)
			}
		})
	}
}

// An abstract name is one of the target's network.
func TestDialUnixAbstract(t *testing.T) {
	tg, _ := rooted(t, syscall.CLONE_NEWNET)
	listening(t, "unix", "@mirrord-unix-test") // in ours
	if _, err := tg.DialUnix(t.Context(), unix.SOCK_STREAM, "\x00mirrord-unix-test", true); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("a name of another network: got %v, want ECONNREFUSED", err)
	}
	fd, err := tg.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := errors.Join(unix.Bind(fd, &unix.SockaddrUnix{Name: "@mirrord-unix-test"}), unix.Listen(fd, 1)); err != nil {
		t.Fatal(err)
	}
	c, err := tg.DialUnix(t.Context(), unix.SOCK_STREAM, "\x00mirrord-unix-test", true)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	if _, err := tg.DialUnix(t.Context(), unix.SOCK_STREAM, "\x00mirrord-unix-test\x00", true); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("a longer name: got %v, want ECONNREFUSED", err)
	}
}

// overdue has ended, but whoever looks at a timer and at it sees the timer.
type overdue struct{ context.Context }

func (overdue) Done() <-chan struct{} { return nil }
func (overdue) Err() error            { return context.DeadlineExceeded }

// A busy server is waited for, or not.
func TestDialUnixBusy(t *testing.T) {
	tg, root := rooted(t, 0)
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	path := filepath.Join(root, "s")
	if err := errors.Join(unix.Bind(fd, &unix.SockaddrUnix{Name: path}), os.Chmod(path, 0o777), unix.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	first, err := tg.DialUnix(t.Context(), unix.SOCK_STREAM, "/s", false)
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	if _, err := tg.DialUnix(t.Context(), unix.SOCK_STREAM, "/s", false); !errors.Is(err, unix.EAGAIN) {
		t.Errorf("a full queue: got %v, want EAGAIN", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	if _, err := tg.DialUnix(ctx, unix.SOCK_STREAM, "/s", true); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("waiting for room: got %v, want the deadline", err)
	}
	cancel()
	if _, err := tg.DialUnix(overdue{t.Context()}, unix.SOCK_STREAM, "/s", true); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the deadline passes with the next look: got %v, want the deadline", err)
	}
	dialed := make(chan error, 1)
	go func() {
		c, err := tg.DialUnix(t.Context(), unix.SOCK_STREAM, "/s", true)
		if err == nil {
			c.Close()
		}
		dialed <- err
	}()
	n, _, err := unix.Accept(fd)
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(n)
	if err := <-dialed; err != nil {
		t.Errorf("with room: %v", err)
	}
}

// Bytes arrive as they were sent, by the threads of the target's user too.
func TestDialUnixCarries(t *testing.T) {
	tg, root := rooted(t, 0)
	ln := listening(t, "unix", filepath.Join(root, "s"))
	want := bytes.Repeat([]byte("0123456789"), 300_000)
	var wg sync.WaitGroup
	wg.Go(func() {
		for range 20 {
			c, err := ln.AcceptUnix()
			if err != nil {
				t.Error(err)
				return
			}
			wg.Go(func() {
				defer c.Close()
				if got, err := io.ReadAll(c); err != nil || !bytes.Equal(got, want) {
					t.Errorf("got %d bytes, %v, want %d", len(got), err, len(want))
				}
			})
		}
	})
	for range 20 {
		wg.Go(func() {
			c, err := tg.DialUnix(t.Context(), unix.SOCK_STREAM, "/s", true)
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			if n, err := c.Write(want); n != len(want) || err != nil {
				t.Errorf("wrote %d, %v", n, err)
			}
		})
	}
	wg.Wait()
}

// Without the right to be the target's user there is nothing to dial with.
func TestPersonateNeedsTheRight(t *testing.T) {
	tg := &Target{UID: targetUID}
	if _, err := tg.DialUnix(t.Context(), unix.SOCK_STREAM, "/s", true); !errors.Is(err, unix.EACCES) || tg.Personates() {
		t.Errorf("got %v, want EACCES", err)
	}
}
