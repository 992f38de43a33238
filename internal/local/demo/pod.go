package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	// neighbourRole is os.Args[1] of the second process.
	neighbourRole = "neighbours"
	// commName is the main process's name, as ps(1) shows it: 15 bytes at most.
	commName = "demo-pod"
	// neighbourHost is its host name.
	neighbourHost = "demo-cluster"

	// Descriptors of the re-executed processes.
	mainSocket   = 3 // calls to the main process; to the neighbour in its own
	clientSocket = 4 // calls to the neighbour, handed on by the main process
	stepsSocket  = 4 // in the neighbour: its steps with the main process
)

// environment is that of the pod's main process.
func environment() []string {
	return []string{
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"HOME=/root",
		"HOSTNAME=" + Hostname,
		"COLOR=blue",
		"GREETING=hello\nfrom the pod",
		"EMPTY=",
		"DATABASE_URL=postgres://shop:secret@db:5432/orders",
		"KUBERNETES_SERVICE_HOST=10.245.0.1",
		"KUBERNETES_SERVICE_PORT=443",
		"POD_NAME=" + Hostname,
		"POD_NAMESPACE=demo",
	}
}

// Main is the whole program when os.Args[0] is Name. It does not return.
func Main() {
	var err error
	if len(os.Args) > 1 && os.Args[1] == neighbourRole {
		err = neighbourMain()
	} else {
		err = podMain()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// podMain is PID 1 of the pod: it makes the pod around itself, then serves.
func podMain() error {
	unix.Umask(0o022)
	unix.CloseOnExec(mainSocket)
	unix.CloseOnExec(clientSocket)
	// Else it is "exe" in ps and in messages; where that cannot be, it stays so.
	_ = os.WriteFile("/proc/self/comm", []byte(commName), 0)
	if err := unix.Sethostname([]byte(Hostname)); err != nil {
		return fmt.Errorf("set the host name: %w", err)
	}
	steps, neighbour, err := startNeighbour(os.NewFile(clientSocket, "client"))
	if err != nil {
		return err
	}
	go func() { // as long as this process: half a pod is none
		err := neighbour.Wait()
		fmt.Fprintln(os.Stderr, "the neighbours have ended:", err)
		os.Exit(1)
	}()
	// It runs: from here on it needs nothing of the old root.
	if err := enterRoot(); err != nil {
		return err
	}
	addrs, err := podNetwork(neighbour.Process.Pid, steps)
	if err != nil {
		return err
	}
	if err := steps.wait(); err != nil { // its services answer
		return fmt.Errorf("start the neighbours: %w", err)
	}
	close, err := podServices()
	if err != nil {
		return err
	}
	defer close()
	return serveCalls(os.NewFile(mainSocket, "calls"), func(_ context.Context, c call) (answer, error) {
		switch c.Op {
		case opReady:
			return answer{Addresses: addrs}, nil
		case opInventory:
			list, err := inventory()
			return answer{Inventory: list}, err
		}
		return answer{}, fmt.Errorf("%q: %w", c.Op, syscall.EOPNOTSUPP)
	})
}

// steps synchronise the two processes: each side sends a byte when it has got
// where the other waits for it.
type steps struct{ c net.Conn }

func (s steps) done() error {
	_, err := s.c.Write([]byte{'.'})
	return err
}

func (s steps) wait() error {
	_, err := io.ReadFull(s.c, make([]byte, 1))
	if errors.Is(err, io.EOF) {
		return errors.New("it ended")
	}
	return err
}

// startNeighbour owns client. The neighbour has a network of its own; it ends
// when the main process does, as its PID namespace does. The caller waits for
// it.
func startNeighbour(client *os.File) (steps, *exec.Cmd, error) {
	defer client.Close()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return steps{}, nil, fmt.Errorf("make a socket pair: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "steps"), os.NewFile(uintptr(fds[1]), "steps")
	defer ours.Close()
	defer theirs.Close()
	conn, err := net.FileConn(ours)
	if err != nil {
		return steps{}, nil, fmt.Errorf("open the socket of steps: %w", err)
	}
	cmd := &exec.Cmd{
		Path:        "/proc/self/exe",
		Args:        []string{Name, neighbourRole},
		Env:         []string{},
		Stderr:      os.Stderr,
		ExtraFiles:  []*os.File{client, theirs},
		SysProcAttr: &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWUTS},
	}
	if err := cmd.Start(); err != nil {
		return steps{}, nil, fmt.Errorf("start the neighbours: %w", err)
	}
	theirs.Close() // or its end would not be seen
	s := steps{conn}
	if err := s.wait(); err != nil {
		return steps{}, nil, fmt.Errorf("start the neighbours: %w", err)
	}
	return s, cmd, nil
}

// podNetwork joins the pod and its neighbours by a veth pair, eth0 to eth0,
// and returns the pod's addresses.
func podNetwork(neighbour int, s steps) ([]netip.Addr, error) {
	n, err := openNetwork()
	if err != nil {
		return nil, err
	}
	defer n.close()
	if err := n.addVeth(device, device, neighbour); err != nil {
		return nil, err
	}
	if err := s.done(); err != nil {
		return nil, fmt.Errorf("tell the neighbours: %w", err)
	}
	return n.configure(podHost)
}
