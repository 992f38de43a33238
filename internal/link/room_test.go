package link

import (
	"io"
	"testing"

	"github.com/mirrord-go/mirrord/internal/protocol"
)

// sized is a pipe that keeps how long each Write was.
type sized struct {
	io.ReadWriteCloser
	writes chan int
}

func (p *sized) Write(b []byte) (int, error) {
	p.writes <- len(b)
	return p.ReadWriteCloser.Write(b)
}

// withRoom is one that says how much it takes at once.
type withRoom struct {
	*sized
	room int
}

func (p withRoom) Room() int { return p.room }

// TestRoom: what a relay reads at once is one write, and one frame of package resume
// (63 KiB), where the pipe has room for it; elsewhere it can be overtaken in the middle.
func TestRoom(t *testing.T) {
	const much, frame = 62 << 10, 63 << 10
	for _, c := range []struct {
		name string
		pipe func(p *sized) io.ReadWriteCloser
		one  bool
	}{
		{"room", func(p *sized) io.ReadWriteCloser { return withRoom{p, 256 << 10} }, true},
		{"little room", func(p *sized) io.ReadWriteCloser { return withRoom{p, 16 << 10} }, false},
		{"no room", func(p *sized) io.ReadWriteCloser { return withRoom{p, -5} }, false},
		{"it does not say", func(p *sized) io.ReadWriteCloser { return p }, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, b := tcpPair(t)
			p := &sized{a, make(chan int, 100)}
			near, far := New(c.pipe(p), Local, Options{}), New(b, Agent, Options{})
			defer near.Close("")
			defer far.Close("")
			out, err := near.Open(t.Context(), Bulk, &protocol.Dial{})
			if err != nil {
				t.Fatal(err)
			}
			in, _, err := far.Accept(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			in.Expect(1 << 20)
			go io.Copy(io.Discard, in)
			data := make([]byte, much)
			for range 10 { // the window is open then
				if _, err := out.Write(data); err != nil {
					t.Fatal(err)
				}
			}
			most := 0
			for len(p.writes) > 0 {
				most = max(most, <-p.writes)
			}
			if most > frame || most > much != c.one {
				t.Errorf("the longest write has %d bytes; want one for all %d: %v", most, much, c.one)
			}
		})
	}
}
