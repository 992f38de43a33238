package redirect_test

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"os/exec"
	"regexp"
	"testing"
	"time"

	"github.com/mirrord-go/mirrord/internal/agent/redirect"
	"github.com/mirrord-go/mirrord/internal/agent/target"
	"github.com/mirrord-go/mirrord/internal/relay"
	"github.com/mirrord-go/mirrord/internal/testnet"
)

// word is what a client says, and passed that which is meant for the target.
const word, passed = "hello", "pass!"

// hears reads a word and answers who has it, from where, and what it was.
func hears(c net.Conn, name string) {
	defer c.Close()
	b := make([]byte, len(word))
	if _, err := io.ReadFull(c, b); err != nil {
		return
	}
	peer := netip.MustParseAddrPort(c.RemoteAddr().String()).Addr().Unmap()
	fmt.Fprintf(c, "%s %v %s", name, peer, b)
}

// says connects from a network, says a word and gives the answer.
func says(from *target.Target, port uint16, sealed bool, text string) (string, error) {
	var c net.Conn
	err := from.Do(func() (err error) {
		c, err = net.DialTimeout("tcp", net.JoinHostPort(testnet.PodAddr, fmt.Sprint(port)), 5*time.Second)
		return err
	})
	if err != nil {
		return "", err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	seal := func(p []byte) []byte { return p }
	if sealed {
		seal = testnet.Sealed
	}
	if _, err := c.Write(seal([]byte(text))); err != nil {
		return "", err
	}
	b, err := io.ReadAll(c)
	return string(seal(b)), err
}

// Behind a mesh's proxy its clients' connections are stolen in the clear, where
// the proxy calls the port; what its rules leave out is stolen as it comes in. What
// is passed on reaches the target as the proxy's.
func TestBehindMesh(t *testing.T) {
	for _, m := range testnet.Meshes {
		t.Run(m.Name, func(t *testing.T) {
			ways(t, func(t *testing.T, open func(*pod) (*redirect.Redirect, error)) {
				inside, outside := m.Meshed(t)
				tg, client := testnet.Opened(t, target.Open, inside), testnet.Opened(t, target.Open, outside)
				for _, port := range []uint16{80, testnet.LeftPort} {
					var ln net.Listener
					err := tg.Do(func() (err error) { ln, err = net.Listen("tcp", fmt.Sprintf(":%d", port)); return err })
					if err != nil {
						t.Fatal(err)
					}
					testnet.Serve(t, ln, func(c net.Conn) { hears(c, "target") })
				}
				m.Proxy(t, tg.Do)
				before := saved(t, m, inside)

				r, err := open(&pod{tg})
				if err != nil {
					t.Fatal(err)
				}
				defer r.Close()
				go func() {
					for {
						c, err := r.Accept(t.Context())
						if err != nil {
							return
						}
						go stolen(t, r, c)
					}
				}()
				check := func(port uint16, text, want string) {
					t.Helper()
					if port == testnet.LeftPort && !m.Leaves {
						return
					}
					got, err := says(client, port, port != testnet.LeftPort, text)
					if err != nil || got != want+" "+text {
						t.Errorf("port %d answers %q, %v, want %q", port, got, err, want)
					}
				}
				check(80, word, "target "+m.Caller())
				check(testnet.LeftPort, word, "target "+testnet.ClientAddr)
				for _, port := range []uint16{80, testnet.LeftPort} {
					if err := r.Add(port); err != nil {
						t.Fatal(err)
					}
				}
				check(80, word, "agent "+m.Caller())
				check(80, passed, "target "+m.Caller())
				check(testnet.LeftPort, word, "agent "+testnet.ClientAddr)
				check(testnet.LeftPort, passed, "target "+testnet.ClientAddr)
				if err := r.Close(); err != nil {
					t.Error(err)
				}
				check(80, word, "target "+m.Caller())
				check(testnet.LeftPort, word, "target "+testnet.ClientAddr)
				if after := saved(t, m, inside); after != before {
					t.Errorf("the mesh's rules are\n%s\nwere\n%s", after, before)
				}
			})
		})
	}
}

// stolen owns c: what is meant for the target goes there.
func stolen(t *testing.T, r *redirect.Redirect, c net.Conn) {
	b := make([]byte, len(word))
	if _, err := io.ReadFull(c, b); err != nil {
		c.Close()
		return
	}
	if string(b) != passed {
		peer := netip.MustParseAddrPort(c.RemoteAddr().String()).Addr().Unmap()
		fmt.Fprintf(c, "agent %v %s", peer, b)
		c.Close()
		return
	}
	defer c.Close()
	o, err := r.Original(t.Context(), c)
	if err != nil {
		t.Error(err)
		return
	}
	defer o.Close()
	_, _ = o.Write(b)
	_, _ = io.Copy(c, o)
	_ = c.(relay.Conn).CloseWrite()
}

// saved are the mesh's rules as they are now, without comments and counters.
func saved(t *testing.T, m testnet.Mesh, pid int) string {
	t.Helper()
	out, err := exec.Command("nsenter", "-t", fmt.Sprint(pid), "-n", m.Tool+"-save", "-t", "nat").Output()
	if err != nil {
		t.Fatal(err)
	}
	return regexp.MustCompile(`(?m)^#.*\n| \[\d+:\d+\]`).ReplaceAllString(string(out), "")
}
