package sandbox

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mirrord-go/mirrord/internal/local/sandbox/boot"
	"github.com/mirrord-go/mirrord/internal/local/sandbox/handoff"
)

// The tests play the product: this process starts a front, which launches the
// sandbox and starts a supervisor, both as the user under test. The supervisor
// reports on a pipe and takes orders from another. All are this test binary,
// and so are most of the programs in the sandbox (programs_test.go).

const (
	roleVar    = "SANDBOX_TEST_ROLE"
	specVar    = "SANDBOX_TEST_SPEC"
	programVar = "SANDBOX_TEST_PROGRAM"
	guardVar   = "SANDBOX_TEST_GUARD" // the front ends the tree after the supervisor

	eventsFD, ordersFD = 3, 4 // of front and supervisor
	initFD, frontFD    = 5, 6 // of the supervisor
	doorFD             = 7    // of the supervisor of a sandbox that is kept

	userUID = 1000

	virtioHeader, etherHeader = 10, 14 // before each packet of the device

	// With the race detector every program would wait a second at its end.
	quickExit = "GORACE=atexit_sleep_ms=0"
	slack     = 2 * time.Second // of a busy machine

	variants = 7 // of a session, by asBoth and overBoth

	// patience bounds every wait; nothing comes near it.
	patience = 20 * time.Second

	// Parts of a test's name with which start denies user namespaces, and takes
	// /dev/net/tun away.
	bareRoot   = "root_without_user_namespaces"
	withoutTUN = "without_tun"
	// joined is one with which the command joins a sandbox that is kept.
	joined = "joined"
)

// scenario is what front and supervisor do.
type scenario struct {
	Spec   handoff.Spec
	Refuse map[uint16]syscall.Errno // what the Listen hook says, by port
	Hold   bool                     // the Listen hook waits for the order "release"
	Served bool                     // serve a FUSE root (fuse_test.go)
	Joined bool                     // the command joins (join_test.go)
}

// event is a report of the supervisor or the front.
type event struct {
	Name  string
	Text  string        `json:",omitempty"`
	Step  handoff.Step  `json:",omitempty"`
	Errno syscall.Errno `json:",omitempty"`
	L     Listener
	Data  []byte `json:",omitempty"`
	N     int    `json:",omitempty"`
}

// order is for the supervisor.
type order struct {
	Do       string
	Src, Dst netip.AddrPort
	Data     []byte
}

func TestMain(m *testing.M) {
	boot.Main()
	if what := os.Getenv(denyVar); what != "" {
		os.Exit(denyRole(what))
	}
	switch os.Getenv(roleVar) {
	case "front":
		os.Exit(frontRole())
	case "joiner":
		os.Exit(joinerRole())
	case "keeper":
		os.Exit(keeperRole())
	case "supervisor":
		os.Exit(supervisorRole())
	case "prober":
		os.Exit(proberRole())
	case "":
	default: // or it would run all tests, and start itself again
		os.Exit(1)
	}
	if p := os.Getenv(programVar); p != "" {
		os.Exit(program(p))
	}
	if os.Getuid() != 0 {
		fmt.Fprintln(os.Stderr, "these tests run the sandbox as root and as an ordinary user: run them as root")
		os.Exit(1)
	}
	inherited, err := inheritedFiles() // of whoever runs the tests
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	for _, fd := range inherited {
		syscall.CloseOnExec(fd)
	}
	for _, dev := range []string{"/dev/fuse", "/dev/net/tun"} { // as on every desktop
		if err := os.Chmod(dev, 0o666); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	// A session mostly waits for its processes: all variants of a test at once.
	if err := flag.Set("test.parallel", strconv.Itoa(variants)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	if path, err := testBinary(); err == nil {
		os.RemoveAll(filepath.Dir(path))
	}
	os.Exit(code)
}

// reporter writes events; safe for concurrent use.
type reporter struct {
	mu sync.Mutex
	f  *os.File
}

func (r *reporter) say(e event) {
	b, _ := json.Marshal(e)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.f.Write(append(b, '\n'))
}

func failed(name string, err error) event {
	e := event{Name: name, Text: err.Error()}
	var h *handoff.Error
	if errors.As(err, &h) {
		e.Step, e.Errno = h.Step, h.Errno
	}
	errors.As(err, &e.Errno)
	return e
}

// ---- front -------------------------------------------------------------------

func frontRole() int {
	syscall.CloseOnExec(eventsFD)
	syscall.CloseOnExec(ordersFD)
	events, orders := os.NewFile(eventsFD, "events"), os.NewFile(ordersFD, "orders")
	r := &reporter{f: events}
	p, sock, err := Launch(As{})
	if err != nil {
		r.say(failed("launch", err))
		return 99
	}
	down, up, err := os.Pipe()
	if err != nil {
		r.say(failed("launch", err))
		return 99
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = []string{"supervisor"}
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(), roleVar+"=supervisor")
	cmd.ExtraFiles = []*os.File{events, orders, sock, down}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		r.say(failed("launch", err))
		return 99
	}
	sock.Close()
	down.Close()
	r.say(event{Name: "front", N: os.Getpid()})
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		cmd.Wait()
	}()
	code := p.Wait()
	if os.Getenv(guardVar) != "" {
		<-gone
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := p.EndTree(ctx); err != nil {
			r.say(failed("broken", err))
		}
	}
	up.Write([]byte{1}) // an orderly end
	return code
}

// ---- supervisor ----------------------------------------------------------------

func supervisorRole() int {
	for fd := eventsFD; fd <= doorFD; fd++ {
		syscall.CloseOnExec(fd)
	}
	r := &reporter{f: os.NewFile(eventsFD, "events")}
	r.say(event{Name: "supervisor", N: os.Getpid()})
	var sc scenario
	text, err := os.ReadFile(os.Getenv(specVar))
	if err == nil {
		err = json.Unmarshal(text, &sc)
	}
	if err != nil {
		r.say(failed("broken", err))
		return 1
	}
	orders := make(chan order)
	go func() { // ends with the process
		for in := bufio.NewScanner(os.NewFile(ordersFD, "orders")); in.Scan(); {
			var o order
			if err := json.Unmarshal(in.Bytes(), &o); err != nil {
				r.say(failed("broken", err))
				continue
			}
			orders <- o
		}
	}()
	if a, b, err := os.Pipe(); err == nil { // the poller's own descriptors
		_ = errors.Join(a.Close(), b.Close())
	}
	fds := countFDs() - 2 // initFD is closed by Attach, frontFD by supervise
	if sc.Joined {
		fds-- // doorFD by admit
	}
	goroutines := runtime.NumGoroutine()
	if err := supervise(r, sc, orders); err != nil {
		r.say(failed("failed", err))
	}
	r.say(event{Name: "left", Text: fmt.Sprintf("%d descriptors, %d goroutines",
		settled(countFDs, fds)-fds, max(0, settled(runtime.NumGoroutine, goroutines)-goroutines))})
	return 0
}

// settled counts again until it is want, for what just goes on to end.
func settled(count func() int, want int) int {
	for end := time.Now().Add(time.Second); count() > want && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	return count()
}

func countFDs() int {
	all, _ := os.ReadDir("/proc/self/fd")
	return len(all)
}

func supervise(r *reporter, sc scenario, orders <-chan order) error {
	ctx := context.Background()
	front := os.NewFile(frontFD, "front")
	defer front.Close()
	options := Options{}
	if sc.Served {
		var stop func()
		options.OnFUSE, stop = serveRoot(sc.Spec.Binds)
		defer stop()
	}
	first := sc.Spec
	var door *os.File
	if sc.Joined {
		door = os.NewFile(doorFD, "door")
		defer door.Close()
		first.Argv, first.Env, first.Dir = nil, nil, "/"
	}
	b, err := Attach(ctx, os.NewFile(initFD, "init"), first, options)
	if err != nil {
		return err
	}
	defer b.Close()
	var ns unix.Stat_t
	control(b.files[handoff.Space], func(fd int) error { return unix.Fstat(fd, &ns) })

	watching, stopWatching := context.WithCancel(ctx)
	defer stopWatching()
	release := make(chan struct{})
	hooks := Hooks{
		Listen: func(ctx context.Context, l Listener) error {
			r.say(event{Name: "listen", L: l})
			if sc.Hold {
				select {
				case <-release:
				case <-ctx.Done():
					r.say(event{Name: "cancelled", L: l})
					return ctx.Err()
				}
			}
			if e := sc.Refuse[l.Addr.Port()]; e != 0 {
				return e
			}
			return nil
		},
		BindUDP: func(ctx context.Context, l Listener) error {
			r.say(event{Name: "udp", L: l})
			if e := sc.Refuse[l.Addr.Port()]; e != 0 {
				return e
			}
			return nil
		},
		Closed: func(id uint64) { r.say(event{Name: "closed", L: Listener{ID: id}}) },
		Unix:   unixRole(r, sc),
		Socket: func(kind string, pid int) { r.say(event{Name: "socket", Text: kind, N: pid}) },
	}
	kept := make(chan struct{})
	go func() {
		defer close(kept)
		if err := b.Keep(watching, func() { r.say(event{Name: "helper-woken"}) }); err != nil {
			r.say(event{Name: "helper-lost", Text: err.Error()})
		}
	}()
	defer func() { stopWatching(); <-kept }()
	watched := make(chan error, 1)
	watch, done, endTree := b.Watch, b.Done(), b.End
	if sc.Joined {
		watch = b.Hold
	}
	go func() { watched <- watch(watching, hooks) }()
	err = b.Go()
	if err == nil && sc.Joined {
		var c *Command
		if c, err = admit(ctx, b, door, sc.Spec); err == nil {
			done, endTree = c.Done(), c.End
		}
	}
	if err != nil {
		stopWatching()
		<-watched
		return err
	}
	r.say(event{Name: "running", N: int(ns.Ino)})
	go tunRole(r, b)
	var ending sync.WaitGroup // it needs the box until it has seen that all is gone
	defer ending.Wait()
	go func() {
		for {
			select {
			case o := <-orders:
				if o.Do == "end" {
					ending.Add(1)
				}
				go func() {
					obey(r, b, endTree, o, release)
					if o.Do == "end" {
						ending.Done()
					}
				}()
			case <-done:
				return
			}
		}
	}()
	frontEnded := make(chan struct{})
	go func() {
		defer close(frontEnded)
		if n, _ := front.Read(make([]byte, 1)); n == 0 {
			r.say(event{Name: "front-gone"})
			if err := endTree(ctx); err != nil {
				r.say(failed("broken", err))
			}
			return
		}
		r.say(event{Name: "front-done"})
	}()
	<-done
	r.say(event{Name: "done"})
	<-frontEnded // its descriptor is in use until then
	if sc.Joined {
		stopWatching()
		<-watched
		return nil
	}
	return <-watched
}

func obey(r *reporter, b *Box, endTree func(context.Context) error, o order, release chan struct{}) {
	switch o.Do {
	case "release":
		close(release)
	case "end":
		if err := endTree(context.Background()); err != nil {
			r.say(failed("broken", err))
		}
		r.say(event{Name: "ended"})
	case "dial":
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		c, err := b.DialLocal(ctx, "tcp", o.Src, o.Dst)
		if err != nil {
			r.say(failed("dialed", err))
			return
		}
		defer c.Close()
		line, err := bufio.NewReader(c).ReadString('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			r.say(failed("dialed", err))
			return
		}
		r.say(event{Name: "dialed", Text: strings.TrimSpace(line)})
	case "follow":
		r.say(follow(r, b, o))
	case "place":
		r.say(place(r, b, o))
	case "packet":
		device, address := b.Device()
		head := make([]byte, virtioHeader)
		if address != nil {
			head = append(append(head, address...), make([]byte, 6)...)
			proto := uint16(unix.ETH_P_IP)
			if o.Data[0]>>4 == 6 {
				proto = unix.ETH_P_IPV6
			}
			head = binary.BigEndian.AppendUint16(head, proto)
		}
		if _, err := device.Write(append(head, o.Data...)); err != nil {
			r.say(failed("broken", err))
		}
	}
}

// tunRole reports each packet that leaves the sandbox. It ends with the Box.
func tunRole(r *reporter, b *Box) {
	head := virtioHeader
	device, address := b.Device()
	if address != nil {
		head += etherHeader
	}
	buf := make([]byte, 1<<16+head)
	for {
		n, err := device.Read(buf)
		if err != nil {
			return
		}
		r.say(event{Name: "packet", Data: buf[head:n]})
	}
}

// ---- the test's side -------------------------------------------------------------

// run is a session under test.
type run struct {
	t       *testing.T
	cmd     *exec.Cmd
	events  chan event
	orders  *os.File
	output  *output
	printed chan struct{} // closed when nobody holds the output any more
	seen    []event       // taken from events
	used    map[int]bool  // of seen, by await
	ns      int
	exited  bool
}

// output collects what the command prints.
type output struct {
	mu   sync.Mutex
	text strings.Builder
	more chan struct{} // holds one
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.text.Write(b)
	select {
	case o.more <- struct{}{}:
	default:
	}
	return len(b), nil
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// testBinary is this test binary at a place where every user may execute it.
var testBinary = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "sandbox-test-")
	if err != nil {
		return "", err
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return "", err
	}
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		return "", err
	}
	defer self.Close()
	f, err := os.OpenFile(filepath.Join(dir, "sandbox.test"), os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o755)
	if err != nil {
		return "", err
	}
	_, err = io.Copy(f, self)
	return f.Name(), errors.Join(err, f.Close())
})

func binaryPath(t *testing.T) string {
	t.Helper()
	path, err := testBinary()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// asBoth runs a test as root, as an ordinary user, and as root where user
// namespaces are forbidden; and as commands that join a sandbox, of the latter
// two.
func asBoth(t *testing.T, f func(t *testing.T, uid int)) {
	for name, uid := range map[string]int{"root": 0, "user": userUID, bareRoot: 0,
		joined + "_user": userUID, joined + "_" + bareRoot: 0} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f(t, uid)
		})
	}
}

// overBoth is asBoth, also without /dev/net/tun.
func overBoth(t *testing.T, f func(t *testing.T, uid int)) {
	asBoth(t, f)
	for name, uid := range map[string]int{"user_" + withoutTUN: userUID, withoutTUN + "_" + bareRoot: 0} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f(t, uid)
		})
	}
}

// takeTUN takes /dev/net/tun away from the front, and only from it.
func takeTUN(uid int) adjust {
	return func(c *exec.Cmd) {
		c.Args = []string{"sh", "-c", fmt.Sprintf(`mount -t tmpfs none /dev/net && exec setpriv --reuid %d --regid %[1]d --clear-groups "$0"`, uid), c.Path}
		c.Path = "/bin/sh"
		c.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS}
	}
}

// prog is the command line of one of this binary's programs.
func (sc scenario) prog(t *testing.T, args ...string) scenario {
	sc.Spec.Argv = append([]string{binaryPath(t)}, args[1:]...)
	sc.Spec.Env = append(sc.Spec.Env, programVar+"="+args[0])
	return sc
}

func (sc scenario) sh(script string) scenario {
	sc.Spec.Argv = []string{"/bin/sh", "-c", script}
	return sc
}

// adjust changes how the front is started.
type adjust func(*exec.Cmd)

// start starts a session.
func start(t *testing.T, uid int, sc scenario, how ...adjust) *run {
	t.Helper()
	if sc.Spec.Dir == "" {
		sc.Spec.Dir = "/"
	}
	if sc.Spec.Addrs == nil {
		sc.Spec.Addrs = []netip.Prefix{netip.MustParsePrefix("10.1.2.3/24"), netip.MustParsePrefix("fd00:1::3/64")}
	}
	sc.Joined = strings.Contains(t.Name(), joined)
	sc.Spec.Env = append(sc.Spec.Env, "PATH=/usr/bin:/bin:/usr/sbin:/sbin", quickExit)
	text, err := json.Marshal(sc)
	if err != nil {
		t.Fatal(err)
	}
	spec, err := os.CreateTemp(filepath.Dir(binaryPath(t)), "spec-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove(spec.Name()) })
	_, err = spec.Write(text)
	if err = errors.Join(err, spec.Chmod(0o644), spec.Close()); err != nil {
		t.Fatal(err)
	}
	eventsR, eventsW, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	ordersR, ordersW, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r := &run{t: t, used: map[int]bool{}, printed: make(chan struct{}), events: make(chan event), orders: ordersW, output: &output{more: make(chan struct{}, 1)}}
	r.cmd = exec.Command(binaryPath(t))
	r.cmd.Dir = "/"
	r.cmd.Env = []string{roleVar + "=front", specVar + "=" + spec.Name(), "PATH=/usr/bin:/bin", quickExit}
	outR, outW, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r.cmd.Stdout, r.cmd.Stderr = outW, outW
	r.cmd.ExtraFiles = []*os.File{eventsW, ordersR}
	r.cmd.SysProcAttr = &syscall.SysProcAttr{}
	if strings.Contains(t.Name(), withoutTUN) {
		how = append(how, takeTUN(uid))
	}
	if sc.Joined {
		r.cmd.Env[0] = roleVar + "=joiner"
	}
	if strings.Contains(t.Name(), bareRoot) {
		r.cmd.Env = append(r.cmd.Env, denyVar+"=user namespaces")
	}
	if uid != 0 {
		r.cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}
	}
	for _, f := range how {
		f(r.cmd)
	}
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	eventsW.Close()
	ordersR.Close()
	outW.Close()
	go func() {
		defer close(r.printed)
		defer outR.Close()
		io.Copy(r.output, outR)
	}()
	go func() {
		defer close(r.events)
		defer eventsR.Close()
		in := bufio.NewScanner(eventsR)
		in.Buffer(nil, 1<<20)
		for in.Scan() {
			var e event
			if json.Unmarshal(in.Bytes(), &e) == nil {
				r.events <- e
			}
		}
	}()
	t.Cleanup(r.clean)
	return r
}

// clean ends whatever is left, and complains about it.
func (r *run) clean() {
	r.orders.Close()
	for _, e := range r.seen {
		if e.Name == "front" && !r.exited && e.N != r.cmd.Process.Pid { // a shell lies between
			unix.Kill(e.N, unix.SIGKILL)
		}
	}
	if r.cmd.ProcessState == nil {
		r.cmd.Process.Kill()
		r.cmd.Wait()
	}
	r.drain()
	left := ""
	for _, e := range r.seen {
		switch e.Name {
		case "broken":
			r.t.Errorf("supervisor: %s", e.Text)
		case "left":
			left = e.Text
		}
	}
	if left != "" && left != "0 descriptors, 0 goroutines" {
		r.t.Errorf("supervisor leaks %s", left)
	}
	if r.ns != 0 {
		pids := inNamespace(r.ns)
		for end := time.Now().Add(5 * slack); len(pids) > 0 && time.Now().Before(end); pids = inNamespace(r.ns) {
			time.Sleep(5 * time.Millisecond) // the helper is on its way
		}
		if len(pids) > 0 {
			r.t.Errorf("processes left in the sandbox: %v", pids)
			for _, pid := range pids {
				unix.Kill(pid, unix.SIGKILL)
			}
		}
	}
	if r.t.Failed() {
		r.t.Logf("output: %s", r.output)
		for _, e := range r.seen {
			if e.Name != "packet" {
				r.t.Logf("event: %+v", e)
			}
		}
	}
}

// drain takes events until the supervisor has ended.
func (r *run) drain() {
	timeout := time.After(patience)
	for {
		select {
		case e, ok := <-r.events:
			if !ok {
				return
			}
			r.take(e)
		case <-timeout:
			r.t.Errorf("the supervisor does not end")
			return
		}
	}
}

func (r *run) take(e event) {
	r.seen = append(r.seen, e)
	if e.Name == "running" {
		r.ns = e.N
	}
}

// await waits for an event that matches.
func (r *run) await(name string, match ...func(event) bool) event {
	r.t.Helper()
	timeout := time.After(patience)
	for i := 0; ; {
		for ; i < len(r.seen); i++ {
			e := r.seen[i]
			good := e.Name == name && !r.used[i]
			for _, m := range match {
				good = good && m(e)
			}
			if good {
				r.used[i] = true
				return e
			}
		}
		select {
		case e, ok := <-r.events:
			if !ok {
				r.t.Fatalf("no event %q came; output: %s", name, r.output)
			}
			r.take(e)
		case <-timeout:
			r.t.Fatalf("no event %q within %v; output: %s", name, patience, r.output)
		}
	}
}

func (r *run) order(o order) {
	r.t.Helper()
	b, _ := json.Marshal(o)
	if _, err := r.orders.Write(append(b, '\n')); err != nil {
		r.t.Fatal(err)
	}
}

// prints waits until the command's output contains text.
func (r *run) prints(text string) {
	r.t.Helper()
	timeout := time.After(patience)
	for !strings.Contains(r.output.String(), text) {
		select {
		case <-r.output.more:
		case e, ok := <-r.events:
			if ok {
				r.take(e)
			} else {
				r.events = nil
			}
		case <-timeout:
			r.t.Fatalf("output lacks %q: %q", text, r.output)
		}
	}
}

// code waits for the front's end and gives its exit code.
func (r *run) code() int {
	r.t.Helper()
	ended := make(chan error, 1)
	go func() { ended <- r.cmd.Wait() }()
	timeout := time.After(patience)
	for {
		select {
		case e, ok := <-r.events:
			if ok {
				r.take(e)
			} else {
				r.events = nil
			}
		case <-ended:
			if r.events == nil {
				done := make(chan event)
				close(done)
				r.events = done
			}
			r.exited = true
			return r.cmd.ProcessState.ExitCode()
		case <-timeout:
			r.t.Fatalf("the front does not end; output: %s", r.output)
		}
	}
}

// inNamespace lists living processes of a user or network namespace.
func inNamespace(ino int) (pids []int) {
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		user, _ := os.Readlink("/proc/" + e.Name() + "/ns/user")
		network, _ := os.Readlink("/proc/" + e.Name() + "/ns/net")
		if user != fmt.Sprintf("user:[%d]", ino) && network != fmt.Sprintf("net:[%d]", ino) {
			continue
		}
		stat, _ := os.ReadFile("/proc/" + e.Name() + "/stat")
		if !strings.Contains(string(stat), ") Z ") {
			pids = append(pids, pid)
		}
	}
	return pids
}

// vanish waits until nobody is left in the sandbox.
func (r *run) vanish(limit time.Duration) {
	r.t.Helper()
	for end := time.Now().Add(limit + slack); ; time.Sleep(10 * time.Millisecond) {
		pids := inNamespace(r.ns)
		if len(pids) == 0 {
			return
		}
		if time.Now().After(end) {
			r.t.Fatalf("still in the sandbox after %v: %v", limit, pids)
		}
	}
}
