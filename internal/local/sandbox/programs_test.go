package sandbox

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mirrord-go/mirrord/internal/local/sandbox/handoff"
)

// program is what runs in the sandbox; its arguments are in os.Args.
func program(name string) int {
	var err error
	switch name {
	case "listen": // as Go does it by default, MPTCP where the kernel has it
		err = listenProgram("tcp", os.Args[1], true)
	case "listen4":
		err = listenProgram("tcp4", os.Args[1], true)
	case "listen6":
		err = listenProgram("tcp6", os.Args[1], true)
	case "listen-once": // listen, then close, again and again
		for range 2 {
			if err = listenProgram("tcp4", os.Args[1], false); err != nil {
				break
			}
		}
	case "listen-raw":
		err = listenRaw(os.Args[1], os.Args[2])
	case "sockets":
		err = socketsProgram(os.Args[1:])
	case "leave":
		err = leaveProgram(os.Args[1], os.Args[2])
	case "udp":
		err = udpProgram(os.Args[1])
	case "send":
		err = sendProgram(os.Args[1], os.Args[2])
	case "count-signals":
		return countSignals()
	case "stop":
		unix.Kill(os.Getpid(), unix.SIGSTOP)
		fmt.Println("continued")
		return 5
	case "root":
		return rootProgram(os.Args[1])
	case "nested":
		err = nestedProgram(os.Args[1])
	case "uring":
		err = uringProgram()
	case "unix":
		err = unixProgram(os.Args[1:])
	case "unix-many":
		err = unixMany(os.Args[1])
	case "unix-mix":
		err = unixMix(os.Args[1])
	default:
		err = fmt.Errorf("no program %q", name)
	}
	if err != nil {
		fmt.Println("error:", err)
		var errno syscall.Errno
		if errors.As(err, &errno) {
			return int(errno)
		}
		return 1
	}
	return 0
}

// listenProgram says "listening" as soon as listen(2) has returned, then tells
// each client who it is.
func listenProgram(network, addr string, stay bool) error {
	ln, err := net.Listen(network, addr)
	if err != nil {
		return err
	}
	defer ln.Close()
	proto := 0
	rc, err := ln.(*net.TCPListener).SyscallConn()
	if err != nil {
		return err
	}
	rc.Control(func(fd uintptr) { proto, err = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PROTOCOL) })
	fmt.Printf("listening on %s protocol %d\n", ln.Addr(), proto)
	for stay {
		c, err := ln.Accept()
		if err != nil {
			return err
		}
		fmt.Fprintf(c, "peer %s local %s\n", c.RemoteAddr(), c.LocalAddr())
		c.Close()
	}
	return err
}

// listenRaw does with bare system calls what its second argument says.
func listenRaw(addr, what string) error {
	a := netip.MustParseAddrPort(addr)
	socket := func() (int, error) {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err == nil {
			err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
		}
		if err == nil {
			err = unix.Bind(fd, sockaddr(a))
		}
		return fd, err
	}
	fd, err := socket()
	if err != nil {
		return err
	}
	begin := time.Now()
	err = unix.Listen(fd, 5)
	fmt.Printf("first: %v\n", err)
	switch what {
	case "twice":
		err = unix.Listen(fd, 7)
		fmt.Printf("second: %v\n", err)
	case "reuseport":
		other, e := socket()
		if e != nil {
			return e
		}
		err = unix.Listen(other, 5)
		fmt.Printf("second: %v\n", err)
		unix.Close(other)
	case "retry": // was refused: may listen again where the hook allows
		accepting, e := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
		fmt.Printf("accepting %d, %v\n", accepting, e)
		err = nil
	case "time":
		fmt.Printf("took %d ms\n", time.Since(begin).Milliseconds())
	}
	if err != nil {
		return err
	}
	sa, err := unix.Getsockname(fd)
	if err != nil {
		return err
	}
	fmt.Printf("bound to %s\n", addrPort(sa))
	unix.Close(fd)
	fmt.Println("closed")
	wait()
	return nil
}

// wait waits for SIGTERM.
func wait() {
	ch := make(chan os.Signal, 1)
	signal.Notify(ch, unix.SIGTERM)
	<-ch
}

// udpProgram answers each datagram with its sender.
func udpProgram(addr string) error {
	c, err := net.ListenPacket("udp", addr)
	if err != nil {
		return err
	}
	defer c.Close()
	fmt.Println("bound to", c.LocalAddr())
	buf := make([]byte, 1500)
	for {
		n, from, err := c.ReadFrom(buf)
		if err != nil {
			return err
		}
		fmt.Printf("got %q from %s\n", buf[:n], from)
		if _, err := c.WriteTo([]byte("answer"), from); err != nil {
			return err
		}
	}
}

// sendProgram sends a datagram and prints the answer.
func sendProgram(addr, text string) error {
	c, err := net.Dial("udp", addr)
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := c.Write([]byte(text)); err != nil {
		return err
	}
	c.SetReadDeadline(time.Now().Add(patience))
	buf := make([]byte, 1500)
	n, err := c.Read(buf)
	if err != nil {
		return err
	}
	fmt.Printf("answer %q from %s\n", buf[:n], c.RemoteAddr())
	return nil
}

// countSignals prints what arrives, until SIGTERM.
func countSignals() int {
	ch := make(chan os.Signal, 10)
	signal.Notify(ch, unix.SIGINT, unix.SIGUSR1, unix.SIGWINCH, unix.SIGHUP, unix.SIGTERM)
	fmt.Println("ready")
	n := map[os.Signal]int{}
	for s := range ch {
		n[s]++
		fmt.Printf("%s %s\n", unix.SignalName(s.(syscall.Signal)), strconv.Itoa(n[s]))
		if s == unix.SIGTERM {
			return 7
		}
	}
	return 1
}

// rootProgram looks at the FUSE root and writes below dir, a local one.
func rootProgram(dir string) int {
	var st unix.Statfs_t
	if err := unix.Statfs("/", &st); err == nil && st.Type == unix.FUSE_SUPER_MAGIC {
		fmt.Println("root fuse")
	}
	if _, err := os.Stat("/root"); errors.Is(err, os.ErrNotExist) {
		fmt.Println("home gone")
	}
	wd, err := os.Getwd()
	fmt.Println("wd", wd, err)
	err = os.WriteFile(dir+"/file", []byte("word"), 0o644)
	b, rerr := os.ReadFile("file")
	fmt.Printf("%s %v %v\n", b, err, rerr)
	return 3
}

// nestedProgram runs a sandbox inside of the sandbox: front and supervisor in
// one process. The inner program listens at addr.
func nestedProgram(addr string) error {
	p, sock, err := Launch(As{})
	if err != nil {
		return err
	}
	b, err := Attach(context.Background(), sock, handoff.Spec{
		Argv: []string{"/proc/self/exe", addr}, Env: []string{programVar + "=listen"}, Dir: "/",
		Addrs: []netip.Prefix{netip.MustParsePrefix("10.9.9.9/24")},
	}, Options{})
	if err != nil {
		return err
	}
	defer b.Close()
	if err := b.Go(); err != nil {
		return err
	}
	fmt.Println("inner filter:", b.Filtered())
	watched := make(chan error)
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		watched <- b.Watch(ctx, Hooks{Listen: func(ctx context.Context, l Listener) error {
			fmt.Println("inner listener", l.Addr)
			p.Kill()
			return nil
		}})
	}()
	fmt.Println("inner code", p.Wait())
	<-b.Done()
	cancel()
	return <-watched
}
