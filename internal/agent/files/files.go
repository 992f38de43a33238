// Package files is the agent's half of the file flow: it reads and changes the
// target's files as the target's own process would.
//
// The server hands it the requests of a link. Every path is resolved below the
// target's root by openat2(2) with RESOLVE_IN_ROOT, so symbolic links mean
// what they mean in the target and none leads out of it. Threads of its own
// carry the ids and the umask of the target's process, so permission is what
// the target's kernel says.
//
// Hazards. Opening a FIFO or a device does something: it blocks, wakes a writer
// of the target's, rewinds a tape. So every path is first opened with O_PATH,
// and what that turns out to be is opened only if it is a regular file or a
// directory. A disk that never answers (a dead NFS server, a FUSE server of the
// target's) keeps its thread; Close waits for those a moment only.
package files

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mirrord-go/mirrord/internal/agent/threadpool"
	"github.com/mirrord-go/mirrord/internal/link"
	"github.com/mirrord-go/mirrord/internal/protocol"
	"github.com/mirrord-go/mirrord/internal/pwrite"
	"github.com/mirrord-go/mirrord/internal/statx"
)

const (
	// maxHandles bounds the files that a session has open at once, each a
	// descriptor of the agent's.
	maxHandles = 4096
	// maxRead bounds one ReadAt, in bytes: what docs/protocol-messages.md allows.
	maxRead = 512 << 10
	// maxPrefetch bounds the content that comes with an answer, in bytes: it
	// goes before other streams' data.
	maxPrefetch = 128 << 10
	// batchBytes is about the size of one message of a listing.
	batchBytes = 32 << 10
)

// As says in whose name files are used.
type As struct {
	UID, GID uint32
	Groups   []int
	Umask    uint32 // permissions that new files do not get
}

// Server answers file requests. Its methods may be called concurrently.
type Server struct {
	root       *os.File
	pool       *threadpool.Pool
	memory     Memory
	answerTime time.Duration // the constant, but in tests
	surveyors  chan struct{} // a place for each survey that is answered
	surveyTime time.Duration // the constant, but in tests
	namesTime  time.Duration // alike
	sayTime    time.Duration // alike

	mu      sync.Mutex
	handles map[uint64]*handle
	last    uint64 // the newest handle's number; begins anywhere: a session may have numbers of an earlier agent
}

// handle is an open regular file; busy counts the calls that use it.
type handle struct {
	f      *os.File
	busy   sync.WaitGroup
	writes pwrite.Order
}

// New serves what is below root, which the caller keeps open until Close. It
// fails if the agent may not act as the target's process.
func New(root *os.File, as As, memory Memory) (*Server, error) {
	p, err := threadpool.New(threads, errEnded, as.become)
	if err != nil {
		return nil, err
	}
	return &Server{root: root, pool: p, memory: memory, answerTime: answerTime, surveyors: make(chan struct{}, surveyors), surveyTime: surveyTime, namesTime: namesTime, sayTime: sayTime, handles: map[uint64]*handle{}, last: uint64(rand.Uint32())}, nil
}

// Close ends all handles. Calls under way end first; those that the target's
// storage holds up go with the process, and so do all handles then.
func (s *Server) Close() error {
	if !s.pool.Close() {
		return fmt.Errorf("a request hangs in the target's storage: %w", syscall.ETIMEDOUT)
	}
	s.mu.Lock()
	all := s.handles
	s.handles = nil
	s.mu.Unlock()
	for _, h := range all {
		h.busy.Wait()
		h.f.Close()
	}
	return nil
}

// Serve answers m on stream, which it then owns. It returns false, and owns
// nothing, when m is no file request.
func (s *Server) Serve(ctx context.Context, stream *link.Stream, m protocol.Message) bool {
	switch m := m.(type) {
	case *protocol.Survey:
		s.survey(ctx, stream, m)
		stream.Close()
		return true
	case *protocol.Open:
		s.opens(ctx, stream, m)
		stream.Close()
		return true
	case *protocol.ReadAt:
		s.reads(ctx, stream, m)
		stream.Close()
		return true
	}
	var reply protocol.Message
	leave, err := s.room(ctx, m)
	if err != nil {
		_ = stream.Send(&protocol.Answer{Errno: errnoOf(err)})
		stream.Close()
		return true
	}
	defer leave()
	switch m := m.(type) {
	case *protocol.Stat:
		reply, err = do(ctx, s, func() (*protocol.Attr, error) { return s.stat(m) })
	case *protocol.CloseHandle:
		reply, err = s.closeHandle(m)
	case *protocol.Readlink:
		reply, err = do(ctx, s, func() (*protocol.Data, error) { return s.readlink(m) })
	case *protocol.Statfs:
		reply, err = do(ctx, s, func() (*protocol.Fsinfo, error) { return s.statfs(m) })
	case *protocol.ReadDir:
		err = s.readDir(ctx, stream, m)
	case *protocol.WriteAt, *protocol.Resize, *protocol.SyncHandle, *protocol.Allocate:
		s.changes(ctx, stream, m)
	case *protocol.Make:
		reply, err = do(ctx, s, func() (*protocol.Attr, error) { return s.make(m) })
	case *protocol.SetAttr:
		reply, err = do(ctx, s, func() (*protocol.Attr, error) { return s.setAttr(m) })
	case *protocol.Seek:
		reply, err = do(ctx, s, func() (*protocol.Position, error) { return s.seek(m) })
	case *protocol.CopyRange:
		reply, err = do(ctx, s, func() (*protocol.Position, error) { return s.copyRange(m) })
	case *protocol.GetXattr:
		reply, err = do(ctx, s, func() (*protocol.Data, error) { return s.getXattr(m) })
	case *protocol.ListXattr:
		reply, err = do(ctx, s, func() (*protocol.Data, error) { return s.listXattr(m) })
	case *protocol.SetXattr:
		reply, err = do(ctx, s, func() (*protocol.Answer, error) { return &protocol.Answer{}, s.setXattr(m) })
	case *protocol.RemoveXattr:
		reply, err = do(ctx, s, func() (*protocol.Answer, error) { return &protocol.Answer{}, s.removeXattr(m) })
	case *protocol.Remove:
		reply, err = do(ctx, s, func() (*protocol.Answer, error) { return &protocol.Answer{}, s.remove(m) })
	case *protocol.Rename:
		reply, err = do(ctx, s, func() (*protocol.Answer, error) { return &protocol.Answer{}, s.rename(m) })
	default:
		return false
	}
	if err != nil {
		reply = &protocol.Answer{Errno: errnoOf(err)}
	}
	if reply != nil {
		_ = stream.Send(reply)
	}
	stream.Close()
	return true
}

// errnoOf is what the program gets for err.
func errnoOf(err error) syscall.Errno {
	if e := syscall.Errno(0); errors.As(err, &e) && e != 0 {
		return e
	}
	return syscall.EIO
}

// do runs f on a thread with the target's ids.
func do[T any](ctx context.Context, s *Server, f func() (T, error)) (v T, err error) {
	perr := s.pool.Do(ctx, func() { v, err = f() })
	if perr != nil {
		return v, perr
	}
	return v, err
}

// at finds p below the root and opens it with O_PATH, which does nothing to it.
func (s *Server) at(p string, flags uint64) (int, error) {
	return s.openat(p, &unix.OpenHow{Flags: flags | unix.O_PATH})
}

// openat is openat2(2) of p below the root.
func (s *Server) openat(p string, how *unix.OpenHow) (int, error) {
	// A rename or a mount anywhere may race with the walk, which then has to be
	// tried again (openat2(2)); a target that does nothing else shall not keep us.
	const tries = 100
	p, err := clean(p)
	if err != nil {
		return -1, err
	}
	rel := strings.TrimPrefix(p, "/")
	if rel == "" {
		rel = "."
	}
	how.Flags |= unix.O_CLOEXEC
	how.Resolve = unix.RESOLVE_IN_ROOT
	for range tries {
		fd, err := unix.Openat2(int(s.root.Fd()), rel, how)
		if !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.EAGAIN) {
			return fd, err
		}
	}
	return -1, syscall.EAGAIN
}

// clean checks a path from the wire.
func clean(p string) (string, error) {
	if !strings.HasPrefix(p, "/") || strings.ContainsRune(p, 0) {
		return "", fmt.Errorf("path %q: %w", p, syscall.EINVAL)
	}
	return path.Clean(p), nil
}

func (s *Server) stat(m *protocol.Stat) (*protocol.Attr, error) {
	if m.Handle != 0 {
		h, err := s.use(m.Handle)
		if err != nil {
			return nil, err
		}
		defer h.busy.Done()
		return statx.At(int(h.f.Fd()), "")
	}
	flags := uint64(unix.O_NOFOLLOW)
	if m.Follow {
		flags = 0
	}
	fd, err := s.at(m.Path, flags)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	attr, err := statx.At(fd, "")
	if err != nil {
		return nil, err
	}
	limit := uint64(min(m.Prefetch, maxPrefetch))
	switch {
	case attr.Mode&unix.S_IFMT == unix.S_IFLNK:
		attr.Link, err = linkAt(fd, "")
	case attr.Mode&unix.S_IFMT == unix.S_IFREG && attr.Size <= limit && limit > 0:
		addContent(fd, attr, limit)
	}
	return attr, err
}

// Content gives all of the regular file p, which has most bytes at most, for the agent
// itself. It may hang as long as the target's storage does.
func (s *Server) Content(ctx context.Context, p string, most int) ([]byte, error) {
	return do(ctx, s, func() ([]byte, error) {
		at, err := s.at(p, 0)
		if err != nil {
			return nil, err
		}
		defer unix.Close(at)
		attr, err := statx.At(at, "")
		switch {
		case err != nil:
			return nil, err
		case attr.Mode&unix.S_IFMT != unix.S_IFREG: // to open it might do something
			return nil, fmt.Errorf("it is no regular file: %w", syscall.EINVAL)
		}
		fd, err := reopen(at, unix.O_RDONLY)
		if err != nil {
			return nil, err
		}
		defer unix.Close(fd)
		buf := make([]byte, min(attr.Size, uint64(most))+1)
		n, err := readFull(fd, buf, 0)
		if err == nil && n > most {
			err = fmt.Errorf("it is too large: %w", syscall.EFBIG)
		}
		return buf[:n], err
	})
}

// addContent adds a small file's content to its attributes. What cannot be
// read is left out: opening it will tell why.
func addContent(path int, attr *protocol.Attr, limit uint64) {
	fd, err := reopen(path, unix.O_RDONLY)
	if err == nil {
		defer unix.Close(fd)
		addContentOf(fd, attr, limit)
	}
}

// addContentOf is addContent of an open file.
func addContentOf(fd int, attr *protocol.Attr, limit uint64) {
	at := clock()
	now, err := statx.At(fd, "")
	if err != nil || now.Size > limit {
		return
	}
	// One byte more than the size: files that say 0 and have content (procfs)
	// or have grown must not look complete.
	buf := make([]byte, now.Size+1)
	n, err := readFull(fd, buf, 0)
	if err != nil || uint64(n) != now.Size {
		return
	}
	*attr = *now
	attr.Data, attr.HasData, attr.Settled = buf[:n], true, settled(fd, now, at)
}

func (s *Server) open(m *protocol.Open) (*protocol.Opened, error) {
	fd, err := s.openFile(m)
	if err != nil {
		return nil, err
	}
	h := &handle{f: os.NewFile(uintptr(fd), "")}
	reply := &protocol.Opened{}
	at := clock()
	attr, err := statx.At(fd, "")
	if err == nil {
		attr.Settled = m.Prefetch > 0 && settled(fd, attr, at)
		reply.Attr = *attr
		reply.Handle, err = s.keep(h)
	}
	if err != nil {
		h.f.Close()
		return nil, err
	}
	if n := min(m.Prefetch, maxPrefetch); n > 0 {
		buf := make([]byte, n)
		if got, err := readFull(fd, buf, 0); err == nil {
			reply.Data, reply.EOF = buf[:got], got < len(buf)
		}
	}
	return reply, nil
}

// openFile opens a regular file, or makes it.
func (s *Server) openFile(m *protocol.Open) (int, error) {
	const (
		noFollow = 0o400000   // O_NOFOLLOW of x86-64, which all systems send
		tmpFile  = 0o20200000 // O_TMPFILE of x86-64
		how      = unix.O_ACCMODE | unix.O_APPEND | unix.O_TRUNC
		// tries bounds how often a name may come and go while it is opened.
		tries = 10
	)
	if m.Flags&tmpFile == tmpFile {
		return s.openUnnamed(m)
	}
	flags := uint64(0)
	if m.Flags&noFollow != 0 {
		flags = unix.O_NOFOLLOW
	}
	for range tries {
		found, err := s.at(m.Path, flags)
		if errors.Is(err, unix.ENOENT) && m.Flags&unix.O_CREAT != 0 {
			fd, err := s.openat(m.Path, &unix.OpenHow{Flags: uint64(m.Flags&how) | unix.O_CREAT | unix.O_EXCL | unix.O_NONBLOCK, Mode: uint64(m.Mode & 0o7777)})
			if errors.Is(err, unix.EEXIST) && m.Flags&unix.O_EXCL == 0 {
				continue // somebody was faster
			}
			return fd, err
		}
		if err != nil {
			return -1, err
		}
		fd, err := openFound(found, m.Flags&unix.O_CREAT != 0 && m.Flags&unix.O_EXCL != 0, int(m.Flags&how))
		unix.Close(found)
		return fd, err
	}
	return -1, syscall.EEXIST // a link that leads to nothing
}

// openUnnamed makes a file without a name, in the file system of a directory.
func (s *Server) openUnnamed(m *protocol.Open) (int, error) {
	how := uint64(m.Flags&(unix.O_ACCMODE|unix.O_APPEND|unix.O_EXCL)) | unix.O_TMPFILE
	return s.openat(m.Path, &unix.OpenHow{Flags: how, Mode: uint64(m.Mode & 0o7777)})
}

// openFound opens what an O_PATH descriptor stands for, if that is a regular
// file.
func openFound(found int, exclusive bool, flags int) (int, error) {
	attr, err := statx.At(found, "")
	if err != nil {
		return -1, err
	}
	if exclusive {
		return -1, syscall.EEXIST
	}
	switch attr.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		return reopen(found, flags)
	case unix.S_IFDIR:
		return -1, syscall.EISDIR
	case unix.S_IFLNK:
		return -1, syscall.ELOOP
	}
	return -1, syscall.ENXIO
}

func (s *Server) keep(h *handle) (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.handles == nil {
		return 0, errEnded
	}
	if len(s.handles) >= maxHandles {
		return 0, syscall.ENFILE
	}
	s.last++
	s.handles[s.last] = h
	return s.last, nil
}

// errEnded is what requests get that come after Close.
var errEnded = fmt.Errorf("the file server has ended: %w", syscall.EIO)

// use gives a handle, which cannot be closed before the caller calls busy.Done.
func (s *Server) use(number uint64) (*handle, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.handles[number]
	if h == nil {
		return nil, syscall.EBADF
	}
	h.busy.Add(1)
	return h, nil
}

func (s *Server) closeHandle(m *protocol.CloseHandle) (protocol.Message, error) {
	s.mu.Lock()
	h := s.handles[m.Handle]
	delete(s.handles, m.Handle)
	s.mu.Unlock()
	if h == nil {
		return nil, syscall.EBADF
	}
	h.busy.Wait()
	h.f.Close()
	return &protocol.Answer{}, nil
}

func (s *Server) readlink(m *protocol.Readlink) (*protocol.Data, error) {
	fd, err := s.at(m.Path, unix.O_NOFOLLOW)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	to, err := linkAt(fd, "")
	if err != nil {
		return nil, err
	}
	return &protocol.Data{Bytes: []byte(to)}, nil
}

func (s *Server) statfs(m *protocol.Statfs) (*protocol.Fsinfo, error) {
	fd, err := s.at(m.Path, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	var st unix.Statfs_t
	if err := unix.Fstatfs(fd, &st); err != nil {
		return nil, err
	}
	return &protocol.Fsinfo{Type: uint64(st.Type), Bsize: uint64(st.Bsize), Blocks: st.Blocks, Bfree: st.Bfree, Bavail: st.Bavail,
		Files: st.Files, Ffree: st.Ffree, Namelen: uint64(st.Namelen), Frsize: uint64(st.Frsize), Flags: uint64(st.Flags)}, nil
}

// readDir sends a listing in batches. The thread is given back between them:
// whoever is slow to take a listing holds up nobody.
func (s *Server) readDir(ctx context.Context, stream *link.Stream, m *protocol.ReadDir) error {
	dir, err := do(ctx, s, func() (*os.File, error) {
		found, err := s.at(m.Path, unix.O_DIRECTORY)
		if err != nil {
			return nil, err
		}
		defer unix.Close(found)
		fd, err := reopen(found, unix.O_RDONLY|unix.O_DIRECTORY)
		if err != nil {
			return nil, err
		}
		return os.NewFile(uintptr(fd), m.Path), nil
	})
	if err != nil {
		return err
	}
	defer dir.Close()
	before, err := do(ctx, s, func() (*protocol.Attr, error) { return statx.At(int(dir.Fd()), "") })
	if err != nil {
		return err
	}
	end := &protocol.Entries{End: protocol.EndWhole, Attr: *before}
	for {
		batch, err := do(ctx, s, func() ([]protocol.Entry, error) { return entries(dir) })
		if err != nil {
			return err
		}
		if len(batch) == 0 {
			break
		}
		if slices.ContainsFunc(batch, func(e protocol.Entry) bool { return e.Attr.Mode == 0 }) {
			end.End = protocol.EndPart
		}
		if err := stream.Send(&protocol.Entries{List: batch}); err != nil {
			return nil // nobody listens any more
		}
	}
	same, err := do(ctx, s, func() (bool, error) { return unchanged(int(dir.Fd()), before), nil })
	if err != nil || !same || end.End == protocol.EndPart {
		end = &protocol.Entries{End: protocol.EndPart}
	}
	_ = stream.Send(end)
	return nil
}
