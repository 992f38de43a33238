package target

import (
	"net/netip"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/mirrord-go/mirrord/internal/leak"
	"github.com/mirrord-go/mirrord/internal/testnet"
)

func TestStock(t *testing.T) {
	leak.Check(t)
	k := kind{unix.AF_INET, unix.SOCK_DGRAM}
	made := make(chan int, 10)
	next := make(chan int)
	s := newStock(func(_ kind, n int) (fds []int) {
		made <- n
		for range min(n, <-next) {
			fd, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
			if err != nil {
				t.Error(err)
			}
			fds = append(fds, fd)
		}
		return fds
	})
	if _, ok := s.take(k); ok {
		t.Error("an empty stock gives a socket")
	}
	if _, ok := s.take(k); ok { // and orders no more while the first order is out
		t.Error("an empty stock gives a socket")
	}
	if got := <-made; got != stockSize {
		t.Errorf("%d were ordered, want %d", got, stockSize)
	}
	next <- stockSize
	s.wg.Wait()
	taken := map[int]bool{}
	for range stockSize / 2 {
		fd, ok := s.take(k)
		if !ok || taken[fd] {
			t.Errorf("got %d, %v", fd, ok)
		}
		taken[fd] = true
	}
	if got := <-made; got != stockSize/2 {
		t.Errorf("%d were ordered, want %d", got, stockSize/2)
	}
	next <- 1 // there are no more to be had
	s.wg.Wait()
	for range stockSize/2 + 1 {
		fd, ok := s.take(k)
		if !ok {
			t.Error("the stock is empty too early")
		}
		taken[fd] = true
	}
	for fd := range taken {
		unix.Close(fd)
	}
	<-made
	closed := make(chan struct{})
	go func() { s.close(); close(closed) }()
	for !s.ended() {
	}
	next <- stockSize // arrive too late: leak.Check misses none of them
	<-closed
	if _, ok := s.take(k); ok || len(made) > 0 {
		t.Error("after its end the stock gives sockets, or orders some")
	}
}

func (s *stock) ended() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}

// What lies ready is the target's, and ends with it.
func TestStockIsTheTargets(t *testing.T) {
	leak.Check(t)
	tg, err := Open(testnet.Process(t, syscall.CLONE_NEWNET, nil, testnet.Addressed))
	if err != nil {
		t.Fatal(err)
	}
	defer tg.Close()
	for range 3 * stockSize {
		c, err := tg.Dial(t.Context(), "udp", netip.MustParseAddrPort("127.0.0.1:53"))
		if err != nil {
			t.Fatal(err)
		}
		if err := c.(*udpPort).inside(tg); err != nil {
			t.Error(err)
		}
		c.Close()
		tg.stock.wg.Wait() // so that the next is out of it
	}
	if n := len(tg.stock.ready[kind{unix.AF_INET, unix.SOCK_DGRAM}]); n == 0 || n > stockSize {
		t.Errorf("%d lie ready, want up to %d", n, stockSize)
	}
}

// inside looks whether a socket is in the target's network namespace.
func (c *udpPort) inside(tg *Target) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var own, want unix.Stat_t
	cerr := raw.Control(func(fd uintptr) {
		var ns int
		if ns, err = unix.IoctlRetInt(int(fd), unix.SIOCGSKNS); err != nil {
			return
		}
		defer unix.Close(ns)
		err = unix.Fstat(ns, &own)
	})
	if err == nil {
		err = cerr
	}
	if err == nil {
		err = tg.Handle(func(fd int) error { return unix.Fstat(fd, &want) })
	}
	if err == nil && own.Ino != want.Ino {
		return syscall.EXDEV
	}
	return err
}
