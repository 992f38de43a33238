package dump

import (
	"strings"
	"testing"
	"time"
	"unicode"
)

func TestText(t *testing.T) {
	at := time.Date(2026, 1, 2, 12, 0, 0, 0, time.Local)
	for _, c := range []struct {
		name string
		r    Record
		want []string
	}{
		{"open", Record{At: at, Kind: Open, Connection: 3, Client: "10.0.0.5:4242", Server: "10.0.0.7:80"}, []string{"12:00:00.000  #3 open   10.0.0.5:4242 → 10.0.0.7:80"}},
		{"close", Record{At: at, Kind: Close, Connection: 3, Millis: 12.34, Bytes: 7}, []string{"12:00:00.000  #3 close  after 12.3ms, 7 bytes"}},
		{"close early", Record{At: at, Kind: Close, Connection: 3, Error: "the copy ends here: x\x1b[2J"}, []string{"12:00:00.000  #3 close  after 0s, 0 bytes; the copy ends here: x\uFFFD[2J"}},
		{"http", Record{At: at, Kind: Data, Connection: 3, Millis: 1500, Client: "10.0.0.5:4242", Data: []byte("GET / HTTP/1.1\r\nHost: a\\b\r\n\r\n")},
			[]string{"12:00:00.000  #3 +1.5s  29 bytes from 10.0.0.5:4242", `    GET / HTTP/1.1\r\n`, `    Host: a\\b\r\n`, `    \r\n`}},
		{"text that steers", Record{At: at, Kind: Data, Connection: 1, Client: "c", Data: []byte("name: \x1b]0;evil\x07, größe, \u202eright, and more of it")},
			[]string{"12:00:00.000  #1 +0s  50 bytes from c", `    name: \x1b]0;evil\x07, größe, \u202eright, and more of it`}},
		{"binary", Record{At: at, Kind: Data, Connection: 1, Client: "c", Data: append([]byte{0, 1, 2, 0xff, 0x1b, '[', '2', 'J'}, "postgres\x00\x00"...)},
			[]string{"12:00:00.000  #1 +0s  18 bytes from c",
				"    000000  00 01 02 ff 1b 5b 32 4a  70 6f 73 74 67 72 65 73  |.....[2Jpostgres|",
				"    000010  00 00                                             |..|"}},
		{"cut in a letter", Record{At: at, Kind: Data, Connection: 1, Client: "c", Data: []byte("gro\xc3")}, []string{"12:00:00.000  #1 +0s  4 bytes from c", `    gro\xc3`}},
		{"long", Record{At: at, Kind: Data, Connection: 1, Client: "c", Data: []byte(strings.Repeat("x", 150))},
			[]string{"12:00:00.000  #1 +0s  150 bytes from c", "    " + strings.Repeat("x", 100), "    " + strings.Repeat("x", 50)}},
		{"ready", Record{At: at, Kind: Ready}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got, want := strings.Join(Text(c.r), "\n"), strings.Join(c.want, "\n"); got != want {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
		})
	}
}

// FuzzText: whatever strangers send, no line steers a terminal.
func FuzzText(f *testing.F) {
	f.Add([]byte("GET / HTTP/1.1\r\n\x1b[2J\u202e"))
	f.Add([]byte{0, 0xff, 0x9b, 0xc2, 0x9b, 0xe2, 0x80, 0xae})
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, line := range Text(Record{Kind: Data, Data: b, Client: string(b)}) {
			for _, r := range line {
				if unicode.IsControl(r) || unicode.In(r, unicode.Cf, unicode.Zl, unicode.Zp) {
					t.Fatalf("%q has %U", line, r)
				}
			}
		}
	})
}
