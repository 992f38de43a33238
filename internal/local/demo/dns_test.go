package demo

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

func query(t testing.TB, name string, kind dnsmessage.Type, size int) []byte {
	t.Helper()
	m := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: 4711, RecursionDesired: true},
		Questions: []dnsmessage.Question{{Name: dnsmessage.MustNewName(name), Type: kind, Class: dnsmessage.ClassINET}},
	}
	if size > 0 {
		var opt dnsmessage.ResourceHeader
		if err := opt.SetEDNS0(size, dnsmessage.RCodeSuccess, false); err != nil {
			t.Fatal(err)
		}
		m.Additionals = []dnsmessage.Resource{{Header: opt, Body: &dnsmessage.OPTResource{}}}
	}
	b, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// show is an answer as text: its code, then name, type and data of each record.
func show(t *testing.T, b []byte) string {
	t.Helper()
	var m dnsmessage.Message
	if err := m.Unpack(b); err != nil {
		t.Fatalf("%x: %v", b, err)
	}
	if !m.Response || m.ID != 4711 {
		t.Errorf("header: %+v", m.Header)
	}
	out := strings.TrimPrefix(m.RCode.String(), "RCode")
	if m.Truncated {
		out += " cut"
	}
	for _, a := range m.Answers {
		out += " " + a.Header.Name.String() + " "
		switch d := a.Body.(type) {
		case *dnsmessage.AResource:
			out += net.IP(d.A[:]).String()
		case *dnsmessage.AAAAResource:
			out += net.IP(d.AAAA[:]).String()
		case *dnsmessage.CNAMEResource:
			out += "= " + d.CNAME.String()
		case *dnsmessage.SRVResource:
			out += d.Target.String() + ":" + strconv.Itoa(int(d.Port))
		case *dnsmessage.TXTResource:
			out += strings.Join(d.TXT, ",")
		}
	}
	for _, a := range m.Authorities {
		out += " " + strings.TrimPrefix(a.Header.Type.String(), "Type")
	}
	return out
}

func TestAnswers(t *testing.T) {
	r := newRecords()
	const a, aaaa, srv, txt, mx, cname = dnsmessage.TypeA, dnsmessage.TypeAAAA, dnsmessage.TypeSRV, dnsmessage.TypeTXT,
		dnsmessage.TypeMX, dnsmessage.TypeCNAME
	db := "db.demo.svc.cluster.local."
	for _, c := range []struct {
		name string
		kind dnsmessage.Type
		want string
	}{
		{db, a, "Success " + db + " 10.245.0.20"},
		{db, aaaa, "Success " + db + " fd00:245::20"},
		{"Db.DEMO.svc.cluster.local.", a, "Success Db.DEMO.svc.cluster.local. 10.245.0.20"},
		{db, txt, "Success " + db + " team=orders,engine=demo"},
		{db, mx, "Success SOA"},
		{"shop.demo.svc.cluster.local.", a, "Success shop.demo.svc.cluster.local. 10.245.0.7"},
		{"shop-demo-0.shop.demo.svc.cluster.local.", aaaa, "Success shop-demo-0.shop.demo.svc.cluster.local. fd00:245::7"},
		{"v4only.demo.svc.cluster.local.", a, "Success v4only.demo.svc.cluster.local. 10.245.0.20"},
		{"v4only.demo.svc.cluster.local.", aaaa, "Success SOA"},
		{"database.demo.svc.cluster.local.", a, "Success database.demo.svc.cluster.local. = " + db + " " + db + " 10.245.0.20"},
		{"database.demo.svc.cluster.local.", cname, "Success database.demo.svc.cluster.local. = " + db},
		{"database.demo.svc.cluster.local.", mx, "Success database.demo.svc.cluster.local. = " + db + " SOA"},
		{"_postgres._tcp." + db, srv, "Success _postgres._tcp." + db + " " + db + ":5432"},
		{"_tcp." + db, a, "Success SOA"}, // exists, because something is below it
		{"cluster.local.", a, "Success SOA"},
		{"db.", a, "NameError SOA"}, // short names are the search list's
		{"nobody.demo.svc.cluster.local.", a, "NameError SOA"},
		{"www.example.com.", aaaa, "NameError SOA"},
		{db, dnsmessage.TypeALL, "NotImplemented"},
	} {
		if got := show(t, r.answer(query(t, c.name, c.kind, 0), true)); got != c.want {
			t.Errorf("%s %v: got %q, want %q", c.name, c.kind, got, c.want)
		}
	}
}

func TestAnswerSizes(t *testing.T) {
	r := newRecords()
	big := "big.demo.svc.cluster.local."
	for _, c := range []struct {
		size int
		udp  bool
		most int
		cut  bool
	}{
		{0, true, udpPlain, true}, {4096, true, udpMost, true}, {100, true, udpPlain, true}, {0, false, 65535, false},
	} {
		b := r.answer(query(t, big, dnsmessage.TypeTXT, c.size), c.udp)
		var m dnsmessage.Message
		if err := m.Unpack(b); err != nil {
			t.Fatal(err)
		}
		if len(b) > c.most || m.Truncated != c.cut || !c.cut && len(m.Answers) != 20 {
			t.Errorf("client takes %d, udp %v: got %d bytes, %d answers, cut %v", c.size, c.udp, len(b), len(m.Answers), m.Truncated)
		}
		if (c.size > 0) != (len(m.Additionals) == 1) {
			t.Errorf("client takes %d: got %d additional records", c.size, len(m.Additionals))
		}
	}
}

func TestStrangeQueries(t *testing.T) {
	r := newRecords()
	plain := query(t, "db.demo.svc.cluster.local.", dnsmessage.TypeA, 0)
	change := func(at int, b byte) []byte {
		c := bytes.Clone(plain)
		c[at] = b
		return c
	}
	if got := r.answer(nil, true); got != nil {
		t.Errorf("empty: got %x", got)
	}
	if got := r.answer(change(2, 0x80), true); got != nil {
		t.Errorf("an answer instead of a query: got %x", got)
	}
	for name, c := range map[string]struct {
		query []byte
		want  string
	}{
		"status":       {change(2, 0x10), "NotImplemented"},
		"no question":  {change(5, 0), "FormatError"},
		"two of them":  {change(5, 2), "FormatError"},
		"other class":  {change(len(plain)-1, 3), "Refused"},
		"cut off":      {plain[:20], "FormatError"},
		"no OPT there": {change(11, 1), "FormatError"},
	} {
		if got := show(t, r.answer(c.query, true)); got != c.want {
			t.Errorf("%s: got %q, want %q", name, got, c.want)
		}
	}
}

// TestResolver asks the running server, over UDP and, for what is too long,
// TCP, with the standard library's resolver as the client.
func TestResolver(t *testing.T) {
	server, client := net.Pipe()
	r := newRecords()
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.serveTCP(server)
	}()
	if err := client.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	for range 2 { // more than one on a connection
		q := query(t, "db.demo.svc.cluster.local.", dnsmessage.TypeA, 0)
		if _, err := client.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(q))), q...)); err != nil {
			t.Fatal(err)
		}
		var length [2]byte
		if _, err := io.ReadFull(client, length[:]); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, binary.BigEndian.Uint16(length[:]))
		if _, err := io.ReadFull(client, b); err != nil {
			t.Fatal(err)
		}
		if got, want := show(t, b), "Success db.demo.svc.cluster.local. 10.245.0.20"; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	client.Close()
	<-done
	server.Close()

	p := startPod(t)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	q := query(t, "big.demo.svc.cluster.local.", dnsmessage.TypeTXT, 0)
	for _, address := range []string{"10.245.0.10:53", "[fd00:245::10]:53"} {
		b, err := p.Exchange(ctx, "udp", address, q)
		if err != nil {
			t.Fatal(err)
		}
		if got := show(t, b); got != "Success cut" {
			t.Errorf("%s, udp: got %q", address, got)
		}
		b, err = p.Exchange(ctx, "tcp", address, append(binary.BigEndian.AppendUint16(nil, uint16(len(q))), q...))
		if err != nil {
			t.Fatal(err)
		}
		if got := show(t, b[2:]); !strings.HasPrefix(got, "Success big") {
			t.Errorf("%s, tcp: got %q", address, got)
		}
	}
}

func FuzzAnswer(f *testing.F) {
	f.Add(query(f, "db.demo.svc.cluster.local.", dnsmessage.TypeA, 0))
	f.Add(query(f, "database.demo.svc.cluster.local.", dnsmessage.TypeAAAA, 1232))
	f.Add(query(f, "big.demo.svc.cluster.local.", dnsmessage.TypeTXT, 4096))
	f.Add([]byte{0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0xc0, 12, 0, 1, 0, 1})
	r := newRecords()
	f.Fuzz(func(t *testing.T, q []byte) {
		b := r.answer(q, true)
		if len(b) > udpMost {
			t.Errorf("%d bytes over UDP", len(b))
		}
		var m dnsmessage.Message
		if b != nil && m.Unpack(b) != nil {
			t.Errorf("answer %x cannot be read", b)
		}
	})
}
