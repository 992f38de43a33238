package sandbox

import (
	"context"
	"errors"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mirrord-go/mirrord/internal/local/sandbox/handoff"
)

// maxParked bounds how many calls are worked on at once, each a goroutine that
// may wait for the network. Further callers wait in the kernel.
const maxParked = 512

// Hooks are told what the program listens on. They may be called concurrently
// for different sockets.
type Hooks struct {
	// Listen is called while listen(2) of the program waits: the socket listens
	// already and its port is local in the sandbox. The program's call returns
	// what Listen does: success, or a syscall.Errno (EIO for other errors); then
	// the socket is put back into the state after bind(2). It is called once per
	// socket; listen(2) again on the same one only changes its backlog. ctx ends
	// when the program is killed.
	Listen func(ctx context.Context, l Listener) error
	// BindUDP is the same for bind(2) of a UDP socket, except that an error
	// leaves the socket bound.
	BindUDP func(ctx context.Context, l Listener) error
	// Closed tells that the kernel has destroyed a socket whose Listen or
	// BindUDP has succeeded. It must not wait for long: others' ends wait for it.
	Closed func(id uint64)
	// Unix is about unix sockets; nil: they are all this machine's.
	Unix *Unix
	// Socket tells that a process asks for a socket of a kind that no session
	// carries ("raw", "SCTP", …; "raw ICMP" where the kernel refuses it), or for an
	// option of sockets ("SO_MARK", …); the kernel answers it. It must not wait.
	// Optional.
	Socket func(kind string, pid int)
}

// watch is one run of Watch.
type watch struct {
	b     *Box
	hooks Hooks
	reg   *registry
	any   *anyPorts
	n     *notifier // nil: no filter
	wg    sync.WaitGroup
	slots chan struct{}

	sweeps sweeps
	unix   *unixes // nil: as in Hooks
}

// Watch serves the program's calls that make listeners, and tells hooks of
// them, until the last process of the tree has ended (nil, and Done is closed)
// or ctx ends (its error). It waits for Go, and is called once.
func (b *Box) Watch(ctx context.Context, hooks Hooks) error {
	w, end, err := b.beginWatch(ctx, hooks)
	if err != nil {
		return err
	}
	defer w.meetUnix()()
	defer end()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if b.notify == nil {
		err = w.poll(ctx, b.tree)
	} else {
		err = w.serve(ctx, b.notify)
	}
	if err != nil {
		return err
	}
	if w.unix != nil {
		w.unix.last(ctx)
	}
	w.awaitUnaccepted(ctx)
	cancel()
	for _, cookie := range w.reg.cookies(unix.IPPROTO_TCP, unix.IPPROTO_UDP) { // whose event has not come yet
		w.closed(cookie)
	}
	close(b.done)
	return nil
}

// beginWatch waits for Go and begins to see sockets end, until end, which waits
// for all that the watch has started.
func (b *Box) beginWatch(ctx context.Context, hooks Hooks) (w *watch, end func(), err error) {
	select {
	case <-b.started:
	case <-ctx.Done():
		return nil, nil, ctx.Err()
	}
	w = &watch{b: b, hooks: hooks, reg: newRegistry(b.SetLocal), any: &anyPorts{}, slots: make(chan struct{}, maxParked)}
	w.sweeps.of = map[int]bool{}
	w.wg.Go(func() { w.watchDestroyed(handoff.EventsTCP, unix.IPPROTO_TCP) })
	w.wg.Go(func() { w.watchDestroyed(handoff.EventsUDP, unix.IPPROTO_UDP) })
	return w, func() {
		for _, f := range []*os.File{b.files[handoff.EventsTCP], b.files[handoff.EventsUDP]} { // ends the goroutines above
			_ = f.SetReadDeadline(time.Unix(1, 0))
		}
		w.wg.Wait()
	}, nil
}

// meetUnix makes ready for unix sockets, if hooks want them; the result is called
// when nobody is served any more.
func (w *watch) meetUnix() (end func()) {
	if w.hooks.Unix == nil {
		return func() {}
	}
	w.unix = newUnixes(w, *w.hooks.Unix)
	return w.unix.meet.close
}

// serve takes calls until there is nobody left to make one.
func (w *watch) serve(ctx context.Context, notify *os.File) error {
	n, err := newNotifier(notify)
	if err != nil {
		return err
	}
	w.n = n
	stop := context.AfterFunc(ctx, func() { _ = notify.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	for {
		c, err := n.next()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if c == nil || err != nil {
			return err
		}
		w.take(ctx, c)
	}
}

// take answers a call, later if that may take long: others must not wait.
func (w *watch) take(ctx context.Context, c *call) {
	if c.Data.NR == unix.SYS_CONNECT && !c.foreign() && w.unix != nil {
		w.unix.take(ctx, c)
		return
	}
	later := w.begin(ctx, c)
	if later == nil {
		w.n.answer(c, answer{pass: true})
		return
	}
	w.slots <- struct{}{}
	w.wg.Go(func() {
		defer func() { <-w.slots }()
		w.n.answer(c, later())
	})
}

// begin looks at a call. The result does what is asked for; nil lets the kernel
// run the call.
//
// The supervisor runs the call itself on a duplicate of the descriptor, which
// refers to the same socket in the sandbox's network namespace. So the real
// port is known, also after bind to port 0, and nothing can change between
// check and use.
func (w *watch) begin(ctx context.Context, c *call) func() answer {
	if c.foreign() || c.Data.NR == sysIOUringSetup {
		w.sweepFor(ctx, c)
		if w.unix != nil && !c.foreign() {
			w.unix.Missed(Missed{Why: MissedRing, PID: c.pid()})
		}
		return nil
	}
	if c.Data.NR == unix.SYS_SOCKET || c.Data.NR == unix.SYS_SETSOCKOPT {
		w.tellKind(c)
		return nil
	}
	isBind := c.Data.NR == unix.SYS_BIND
	var addr []byte
	var port uint16
	if isBind {
		var err error
		if addr, err = c.sockaddr(); err != nil {
			if errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOSYS) { // a process that we may not look into
				w.sweepFor(ctx, c)
			}
			return nil // else the kernel will say what is wrong with it
		}
		inet := false
		if port, inet = inetPort(addr); !inet {
			return nil // unix sockets: paths mean something only in the caller's view
		}
	}
	pid := c.pid()
	fd, err := c.socket(pid)
	if err != nil {
		if !errors.Is(err, unix.EBADF) && !errors.Is(err, unix.ESRCH) { // a process that we may not look into
			w.sweepFor(ctx, c)
		}
		return nil
	}
	act := w.act(ctx, c, fd, pid, addr, port)
	if act == nil || !w.n.waiting(c) {
		unix.Close(fd)
		return nil
	}
	return func() answer {
		defer unix.Close(fd)
		return verdict(act())
	}
}

// act chooses what to do with the caller's socket; nil: nothing.
func (w *watch) act(ctx context.Context, c *call, fd, pid int, addr []byte, port uint16) func() error {
	// A container or sandbox that the command started has a network of its own.
	if id, err := netOf(fd); err != nil || id != w.b.net {
		return nil
	}
	domain, _ := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	proto, _ := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PROTOCOL)
	if domain != unix.AF_INET && domain != unix.AF_INET6 {
		return nil
	}
	tcp := proto == unix.IPPROTO_TCP || proto == unix.IPPROTO_MPTCP
	switch {
	case addr == nil && tcp:
		return func() error { return w.listen(ctx, c, fd, pid, proto) }
	case addr != nil && proto == unix.IPPROTO_UDP:
		return func() error { return w.bindUDP(ctx, fd, pid, addr, port == 0) }
	case addr != nil && tcp && port == 0:
		return func() error { return w.bindAny(fd, addr) }
	case addr != nil && port > 0 && port < 1024:
		// The supervisor owns the user namespace: it may bind any port, also
		// where the sandbox's sysctl could not be written.
		return func() error { return bind(fd, addr) }
	}
	return nil
}

// verdict is the answer for the outcome of a call that was made here.
func verdict(err error) answer {
	var errno syscall.Errno
	switch {
	case err == nil:
		return answer{}
	case errors.As(err, &errno):
		return answer{errno: errno}
	}
	return answer{errno: unix.EIO}
}

// listen makes the socket listen, and its listener known.
func (w *watch) listen(ctx context.Context, c *call, fd, pid, proto int) error {
	unbound, _ := unix.Getsockname(fd)
	if err := unix.Listen(fd, int(int32(c.Data.Args[1]))); err != nil {
		return err
	}
	cookie, l, err := w.describe(fd, pid, unix.IPPROTO_TCP)
	l.AnyPort = w.any.take(cookie) || unbound != nil && addrPort(unbound).Port() == 0
	if err == nil && proto == unix.IPPROTO_MPTCP { // what Go programs use by default
		cookie, err = w.subflow(fd, cookie)
	}
	if err != nil {
		return err
	}
	err = w.announce(ctx, cookie, l, w.hooks.Listen)
	if err != nil {
		// The way back: a listening socket that is shut down stays bound and
		// may listen again (inet_shutdown, tcp_disconnect).
		_ = unix.Shutdown(fd, unix.SHUT_RDWR)
	}
	return err
}

// bindAny binds a socket to a port of the kernel's choice, and remembers that:
// nothing at the socket tells it later.
func (w *watch) bindAny(fd int, addr []byte) error {
	if err := bind(fd, addr); err != nil {
		return err
	}
	if cookie, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_COOKIE); err == nil {
		w.any.put(cookie)
	}
	return nil
}

// bindUDP binds a UDP socket and keeps its port in the sandbox.
func (w *watch) bindUDP(ctx context.Context, fd, pid int, addr []byte, anyPort bool) error {
	if err := bind(fd, addr); err != nil {
		return err
	}
	cookie, l, err := w.describe(fd, pid, unix.IPPROTO_UDP)
	if err != nil {
		return err
	}
	l.AnyPort = anyPort
	return w.announce(ctx, cookie, l, w.hooks.BindUDP)
}

func (w *watch) describe(fd, pid, proto int) (cookie uint64, l Listener, err error) {
	sa, err := unix.Getsockname(fd)
	if err != nil {
		return 0, l, err
	}
	cookie, err = unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_COOKIE)
	return cookie, Listener{Proto: proto, Addr: addrPort(sa), PID: pid}, err
}

// subflow finds the TCP socket behind an MPTCP listener: it is the one whose
// end sock_diag reports. The kernel gives it the inode of the socket that the
// program sees (mptcp_subflow_create_socket).
func (w *watch) subflow(fd int, msk uint64) (uint64, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return 0, err
	}
	all, err := w.b.dump(unix.IPPROTO_TCP, stateListen)
	if err != nil {
		return 0, err
	}
	for _, s := range all {
		if uint64(s.inode) == st.Ino {
			return s.cookie, nil
		}
	}
	return msk, nil // its end will not be seen; the tree's will
}

// announce enters a listener and calls its hook, once per socket.
func (w *watch) announce(ctx context.Context, cookie uint64, l Listener, hook func(context.Context, Listener) error) error {
	e, fresh, err := w.reg.add(cookie, l)
	if err != nil {
		return err
	}
	if !fresh {
		return e.wait(ctx)
	}
	w.reg.announced(e, w)
	if hook != nil {
		ctx, done := whileAlive(ctx, l.PID)
		err = hook(ctx, e.Listener)
		done()
	}
	if w.reg.settle(cookie, e, err) {
		w.tellClosed(e)
	}
	return err
}

func (w *watch) tellClosed(e *entry) {
	if w.hooks.Closed != nil {
		w.hooks.Closed(e.ID)
	}
	close(e.over)
}

// whileAlive gives a context that ends with the process. done must be called.
func whileAlive(ctx context.Context, pid int) (_ context.Context, done func()) {
	ctx, cancel := context.WithCancel(ctx)
	if pid == 0 {
		return ctx, cancel
	}
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if errors.Is(err, unix.ESRCH) {
		cancel()
	}
	if err != nil {
		return ctx, cancel
	}
	f := os.NewFile(uintptr(fd), "pidfd")
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if waitReadable(f) == nil {
			cancel()
		}
	}()
	return ctx, func() {
		f.Close()
		<-ended
		cancel()
	}
}

// waitReadable waits for a descriptor, in the poller, until it is closed or its
// deadline has come.
func waitReadable(f *os.File) error {
	rc, err := f.SyscallConn()
	if err != nil {
		return err
	}
	return rc.Read(func(fd uintptr) bool {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
		return n > 0 && err == nil
	})
}

// watchDestroyed withdraws what the kernel has destroyed. It ends with the
// events socket's deadline.
func (w *watch) watchDestroyed(label handoff.Label, proto int) {
	_ = w.b.events(label, func(s socket) { w.b.peers.destroyed(s); w.closed(s.cookie) }, func() { w.resync(proto) })
}

func (w *watch) closed(cookie uint64) {
	w.any.take(cookie)
	if e := w.reg.destroyed(cookie); e != nil {
		w.tellClosed(e)
	}
}

// awaitClosed waits until the end of listeners has been told, for limit at most.
func (w *watch) awaitClosed(ctx context.Context, all []*entry, limit time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for _, e := range all {
		select {
		case <-e.over:
		case <-ctx.Done():
		}
	}
}

// resync compares with the sockets that there are, after events were lost, or
// may be late.
func (w *watch) resync(proto int) {
	known := w.reg.cookies(proto) // first: what is made meanwhile is not missing
	there, err := w.b.sockets(proto)
	if err != nil {
		return
	}
	for _, cookie := range missing(known, there) {
		w.closed(cookie)
	}
}

// sockets are those that count as listeners.
func (b *Box) sockets(proto int) ([]socket, error) {
	if proto == unix.IPPROTO_TCP {
		return b.dump(proto, stateListen)
	}
	return b.dump(proto, stateClose, stateEstablished) // a bound one may have got a peer since
}
