package incoming

import (
	"bufio"
	"io"
	"net"
	"testing"

	"github.com/mirrord-go/mirrord/internal/protocol"
)

// words are of no protocol that is known.
const words = "\x00\x01 no request\n"

// TestClientDecides: a filter about the client alone takes or leaves whole
// connections, whatever they carry; with others it takes requests.
func TestClientDecides(t *testing.T) {
	echo := func(name string) func(net.Conn) {
		return func(c net.Conn) {
			_, _ = io.WriteString(c, name+" ") // it speaks first
			_, _ = io.Copy(c, c)
			_ = c.(*recorded).Conn.(interface{ CloseWrite() error }).CloseWrite()
		}
	}
	for _, c := range []struct{ name, filter, want string }{
		{"is meant", `{"client":{"text":"192.0.2.0/24"}}`, "local " + words},
		{"is another", `{"client":{"text":"192.0.3.0/24"}}`, "original " + words},
		{"is not another", `{"not":{"client":{"text":"192.0.3.1"}}}`, "local " + words},
		{"is enough", `{"any_of":[{"client":{"text":"192.0.2.7"}},{"path":{"text":"^/local"}}]}`, "local " + words},
		{"is not enough", `{"all_of":[{"client":{"text":"192.0.2.7"}},{"path":{"text":"^/local"}}]}`, "original " + words},
	} {
		t.Run(c.name, func(t *testing.T) {
			st := setStage(t, stageOptions{subscribe: protocol.Subscribe{Port: 80, Mode: protocol.ModeSteal, Filter: c.filter}, local: echo("local"), orig: echo("original")})
			conn := st.client()
			go func() { _, _ = io.WriteString(conn, words); _ = conn.CloseWrite() }()
			if got, err := io.ReadAll(conn); string(got) != c.want || err != nil {
				t.Errorf("got %q, %v, want %q", got, err, c.want)
			}
		})
	}
	t.Run("requests of the client", func(t *testing.T) {
		st := setStage(t, stageOptions{subscribe: protocol.Subscribe{Port: 80, Mode: protocol.ModeSteal,
			Filter: `{"all_of":[{"client":{"text":"192.0.2.7"}},{"path":{"text":"^/local"}}]}`}})
		conn := st.client()
		br := bufio.NewReader(conn)
		for path, want := range map[string]string{"/local": "200 local GET /local 0 map[]", "/other": "200 original GET /other 0 map[]"} {
			ask(t, conn, "GET "+path+" HTTP/1.1\r\nHost: a\r\n\r\n")
			if got := answer(t, br, "GET"); got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		}
	})
	t.Run("a probe stays the target's", func(t *testing.T) {
		st := setStage(t, stageOptions{subscribe: protocol.Subscribe{Port: 80, Mode: protocol.ModeSteal, Filter: `{"client":{"text":"192.0.2.7"}}`, Probes: []string{"/health"}}})
		for line, want := range map[string]string{
			"GET /health HTTP/1.1\r\nHost: a\r\nUser-Agent: kube-probe/1.36\r\n\r\n": "200 original GET /health 0 map[]",
			"GET /health HTTP/1.1\r\nHost: a\r\nUser-Agent: curl\r\n\r\n":            "200 local GET /health 0 map[]",
		} {
			conn := st.client()
			ask(t, conn, line)
			if got := answer(t, bufio.NewReader(conn), "GET"); got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		}
	})
}

// TestClientsAreShared: the sessions of one pod may divide its clients.
func TestClientsAreShared(t *testing.T) {
	n := newNode(t)
	ana, bob := n.session("ana", 0, nil), n.session("bob", 1, nil)
	ana.subscribed(&protocol.Subscribe{Port: 80, Mode: protocol.ModeSteal, Filter: `{"client":{"text":"192.0.3.0/24"}}`})
	bob.subscribed(&protocol.Subscribe{Port: 80, Mode: protocol.ModeSteal, Filter: `{"client":{"text":"192.0.2.0/24"}}`})
	visit(ana).gets("/x", "200 bob GET /x")
}

// TestCopiesOfClients: so are copies.
func TestCopiesOfClients(t *testing.T) {
	for _, c := range []struct {
		filter string
		want   bool
	}{{"2001:db8::/32", true}, {"2001:db9::/32", false}} {
		t.Run(c.filter, func(t *testing.T) {
			b := setUp(t)
			b.subscribed(&protocol.Subscribe{Port: 8080, Mode: protocol.ModeMirror, Filter: `{"client":{"text":"` + c.filter + `"}}`})
			copied := newCopied()
			b.mirror.conns <- copied
			if !c.want {
				within(t, "the close of the copy", copied.closed)
				if !copied.ignored.Load() {
					t.Error("what comes behind is not ignored")
				}
				return
			}
			go func() { copied.say(words); close(copied.data) }()
			s, _ := b.arrived()
			if got, err := io.ReadAll(s); string(got) != words || err != nil {
				t.Errorf("got %q, %v", got, err)
			}
			s.Close()
		})
	}
}
