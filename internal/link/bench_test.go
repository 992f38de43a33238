package link

import (
	"context"
	"crypto/ed25519"
	"io"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mirrord-go/mirrord/internal/link/resume"
	"github.com/mirrord-go/mirrord/internal/link/seal"
	"github.com/mirrord-go/mirrord/internal/protocol"
)

// stacks are the ways to build a link over a TCP connection on loopback.
var stacks = []struct {
	name          string
	link, resumed bool
	sealed        bool
}{
	{name: "tcp"},
	{name: "link", link: true},
	{name: "link+resume", link: true, resumed: true},
	{name: "link+resume+seal", link: true, resumed: true, sealed: true},
}

func tcpPair(b testing.TB) (near, far net.Conn) {
	b.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer ln.Close()
	near, err = net.Dial("tcp", ln.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	far, err = ln.Accept()
	if err != nil {
		b.Fatal(err)
	}
	return near, far
}

// overTCP makes the pipes below a link.
func overTCP(b testing.TB, resumed, sealed bool) (near, far io.ReadWriteCloser) {
	b.Helper()
	x, y := tcpPair(b)
	if !resumed {
		return x, y
	}
	ck, _ := seal.NewKey()
	sk, _ := seal.NewKey()
	server := resume.NewServer(resume.Options{})
	go func() {
		var rw io.ReadWriteCloser = y
		if sealed {
			var err error
			if rw, err = seal.Server(context.Background(), y, sk, ck.Public().(ed25519.PublicKey)); err != nil {
				b.Error(err)
				return
			}
		}
		if err := server.Attach(context.Background(), rw); err != nil {
			b.Error(err)
		}
	}()
	p, err := resume.Dial(b.Context(), func(ctx context.Context) (io.ReadWriteCloser, error) {
		if sealed {
			return seal.Client(ctx, x, ck, sk.Public().(ed25519.PublicKey))
		}
		return x, nil
	}, resume.Options{})
	if err != nil {
		b.Fatal(err)
	}
	q, err := server.Accept(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	return p, q
}

// cpuTime is what this process has used, in user space and kernel: it says
// more than the clock where other work goes on.
func cpuTime(b *testing.B) time.Duration {
	var r unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &r); err != nil {
		b.Fatal(err)
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// carry makes a way through a stack, and what ends it.
func carry(b testing.TB, link, resumed, sealed bool) (w io.WriteCloser, r io.Reader, end func()) {
	b.Helper()
	if !link {
		x, y := tcpPair(b)
		return x, y, func() { y.Close() }
	}
	x, y := overTCP(b, resumed, sealed)
	near, far := New(x, Local, Options{}), New(y, Agent, Options{})
	out, err := near.Open(b.Context(), Bulk, &protocol.Dial{})
	if err != nil {
		b.Fatal(err)
	}
	in, _, err := far.Accept(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	return out, in, func() {
		near.Close("")
		far.Close("")
	}
}

// TestAllocationsBelow: nor do the layers below allocate for what they carry;
// crypto/tls does so for each record that it reads, of 16 KiB.
func TestAllocationsBelow(t *testing.T) {
	const part = 64 << 10
	for _, s := range stacks[2:] {
		t.Run(s.name, func(t *testing.T) {
			w, r, end := carry(t, s.link, s.resumed, s.sealed)
			defer end()
			most := 6.0 // under the race detector pools lose some of what they are given (sync.Pool)
			if s.sealed {
				most += 2 * part / maxPayload // records end where writes end, too
			}
			there, back := make([]byte, part), make([]byte, part)
			exchange := func() {
				if _, err := w.Write(there); err != nil {
					t.Fatal(err)
				}
				if _, err := io.ReadFull(r, back); err != nil {
					t.Fatal(err)
				}
			}
			for range 100 { // buffers and windows have grown
				exchange()
			}
			if got := testing.AllocsPerRun(200, exchange); got > most {
				t.Errorf("%v allocations for each %d KiB, want %v", got, part>>10, most)
			}
		})
	}
}

func BenchmarkThroughput(b *testing.B) {
	for _, s := range stacks {
		b.Run(s.name, func(b *testing.B) {
			w, r, end := carry(b, s.link, s.resumed, s.sealed)
			defer end()
			const part = 64 << 10
			b.SetBytes(part)
			b.ReportAllocs()
			done := make(chan struct{})
			go func() {
				defer close(done)
				buf := make([]byte, part)
				for {
					if _, err := r.Read(buf); err != nil {
						return
					}
				}
			}()
			buf := make([]byte, part)
			before := cpuTime(b)
			for b.Loop() {
				if _, err := w.Write(buf); err != nil {
					b.Fatal(err)
				}
			}
			w.Close()
			<-done
			b.ReportMetric((cpuTime(b)-before).Seconds()/(float64(b.N)*part/1e9), "cpu-s/GB")
		})
	}
}

func BenchmarkCall(b *testing.B) {
	for _, s := range stacks[1:] {
		b.Run(s.name, func(b *testing.B) {
			x, y := overTCP(b, s.resumed, s.sealed)
			near, far := New(x, Local, Options{}), New(y, Agent, Options{})
			defer far.Close("")
			defer near.Close("")
			go func() {
				reply := &protocol.Data{Bytes: make([]byte, 4<<10)}
				for {
					s, _, err := far.Accept(context.Background())
					if err != nil {
						return
					}
					_ = s.Send(reply)
					s.Close()
				}
			}()
			b.ReportAllocs()
			for b.Loop() {
				if _, err := near.Call(b.Context(), question("/")); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
