package interleave

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode"
)

func TestLines(t *testing.T) {
	for _, c := range []struct {
		name  string
		place Place
		steps string // a:text, b:text; a! shows what is unfinished, a. closes
		want  string
	}{
		{"whole lines", Place{}, "a:one\ntwo\n|b:three\n", "a  | one\na  | two\nbb | three\n"},
		{"pieces", Place{}, "a:on|b:x\n|a:e\n", "bb | x\na  | one\n"},
		{"no end", Place{}, "a:one|a.|b:x|b.", "a  | one\nbb | x\n"},
		{"nothing", Place{}, "a.|a.", ""},
		{"empty lines", Place{}, "a:\n\n", "a  | \na  | \n"},
		{"bytes as they are", Place{}, "a:\x1b[2J\x00\xff\r\n", "a  | \x1b[2J\x00\xff\r\n"},
		{"a file is not shown what is unfinished", Place{}, "a:on|a!|b:x\n|a:e\n", "bb | x\na  | one\n"},

		{"terminal, unfinished", Place{Terminal: true}, "a:name? |a!|a:ana\n|b:x\n", "a  | name? ana\nbb | x\n"},
		{"terminal, unfinished and another", Place{Terminal: true}, "a:..|a!|b:x\n|a:.done\n", "a  | ..\nbb | x\na  | .done\n"},
		{"terminal, unfinished at the end", Place{Terminal: true}, "a:..|a!|a.", "a  | ..\n"},
		{"terminal, unfinished at the end, ended by another", Place{Terminal: true}, "a:..|a!|b:x\n|a.", "a  | ..\nbb | x\n"},
		{"terminal, shown twice", Place{Terminal: true}, "a:.|a!|a!|a:.|a!|a:\n", "a  | ..\n"},
		{"terminal, two unfinished", Place{Terminal: true}, "a:1|a!|b:2|b!|a:3\n|b:4\n", "a  | 1\nbb | 2\na  | 3\nbb | 4\n"},
		{"terminal, windows", Place{Terminal: true}, "a:one\r\n", "a  | one\n"},
		{"terminal, progress", Place{Terminal: true}, "a:1%\r50%\r100%\r\n", "a  | 100%\n"},
		{"terminal, colours", Place{Terminal: true}, "a:\x1b[1;31mred\n", "a  | \x1b[1;31mred\x1b[0m\n"},
		{"terminal, orders", Place{Terminal: true}, "a:\x1b[2J\x1b[H\x1b]0;title\x07x\x1bc\x1b[?25ly\x1b\n", "a  | xy\n"},
		{"terminal, binary", Place{Terminal: true}, "a:\x00\x07\xff\u009bz\n", "a  | ����z\n"},

		{"colour", Place{Colour: true}, "a:x\n|b:y\n", "\x1b[36ma  | \x1b[0mx\n\x1b[33mbb | \x1b[0my\n"},
		{"json", Place{JSON: true, Terminal: true}, "a:\"x\"\r\n|b:\xffy|b!|b.", `{"service":"a","stream":"stdout","text":"\"x\""}` + "\n" + `{"service":"bb","stream":"stdout","text":"\ufffdy"}` + "\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got bytes.Buffer
			c.place.W = &got
			var o Output
			streams := map[byte]*Stream{'a': o.Stream(c.place, "a", 0, 2, "stdout"), 'b': o.Stream(c.place, "bb", 1, 2, "stdout")}
			for step := range strings.SplitSeq(c.steps, "|") {
				s := streams[step[0]]
				var err error
				switch step[1] {
				case ':':
					_, err = s.Write([]byte(step[2:]))
				case '!':
					err = s.show()
				case '.':
					err = s.Close()
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			if got.String() != c.want {
				t.Errorf("got %q, want %q", got.String(), c.want)
			}
		})
	}
}

func TestLongLines(t *testing.T) {
	var got bytes.Buffer
	var o Output
	s := o.Stream(Place{W: &got}, "a", 0, 1, "stdout")
	long := bytes.Repeat([]byte("x"), 2*maxLine+3)
	_, _ = s.Write(long)
	_, _ = s.Write(append(long, '\n'))
	if cap(s.rest) > 4*maxLine {
		t.Errorf("%d bytes are kept", cap(s.rest))
	}
	var lengths []int
	for line := range strings.Lines(got.String()) {
		if !strings.HasPrefix(line, "a | x") {
			t.Fatalf("a line begins with %q", line[:8])
		}
		lengths = append(lengths, len(line)-len("a | \n"))
	}
	sum := 0
	for _, n := range lengths {
		sum += n
	}
	if sum != 2*len(long) || len(lengths) != 5 {
		t.Errorf("lines of %v", lengths)
	}
}

// TestCopy: lines of programs that write at once are never mixed, and an
// unfinished one is shown.
func TestCopy(t *testing.T) {
	var got locked
	var o Output
	var wg sync.WaitGroup
	for n, name := range []string{"a", "b", "c"} {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		s := o.Stream(Place{W: &got, Terminal: true}, name, n, 1, "stdout")
		wg.Go(func() {
			defer r.Close()
			if err := s.Copy(r); err != nil {
				t.Error(err)
			}
		})
		wg.Go(func() {
			defer w.Close()
			for range 200 {
				for _, piece := range []string{name + name, name, name + "\n" + name, name + name + name + "\n"} {
					_, _ = w.WriteString(piece)
				}
			}
		})
	}
	wg.Wait()
	lines := strings.Split(strings.TrimSuffix(got.String(), "\n"), "\n")
	whole := regexp.MustCompile(`^(a \| aaaa|b \| bbbb|c \| cccc)$`)
	for _, line := range lines {
		if !whole.MatchString(line) {
			t.Fatalf("a mixed line: %q", line)
		}
	}
	if len(lines) != 3*400 {
		t.Errorf("%d lines", len(lines))
	}

	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	got = locked{}
	s := o.Stream(Place{W: &got, Terminal: true}, "a", 0, 1, "stdout")
	wg.Go(func() { _ = s.Copy(r) })
	_, _ = w.WriteString("name? ")
	for deadline := time.Now().Add(10 * time.Second); got.String() != "a | name? "; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("an unfinished line is not shown: %q", got.String())
		}
	}
	w.Close()
	wg.Wait()
	r.Close()
}

func TestCopyFails(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	_, _ = w.WriteString("x\n")
	var o Output
	if err := o.Stream(Place{W: full{}}, "a", 0, 1, "stdout").Copy(r); !errors.Is(err, errFull) {
		t.Errorf("got %v", err)
	}
}

var errFull = errors.New("full")

type full struct{}

func (full) Write([]byte) (int, error) { return 0, errFull }

type locked struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *locked) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *locked) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// FuzzStreams: whatever two programs write in whatever pieces, a file holds each
// one's bytes in order, and a terminal gets nothing that it would obey.
func FuzzStreams(f *testing.F) {
	f.Add([]byte("one\ntw"), []byte("o\n\x1b[2Jx"), uint8(3))
	f.Add([]byte("\x1b[31mred\x1b[0\n"), []byte("\r\r\n\xff\x9b"), uint8(0))
	f.Add([]byte("\x1b\x1b[m\x1b]x"), []byte("\x1b[1;1"), uint8(1))
	f.Fuzz(func(t *testing.T, a, b []byte, cut uint8) {
		for _, terminal := range []bool{false, true} {
			var got bytes.Buffer
			var o Output
			x := o.Stream(Place{W: &got, Terminal: terminal}, "x", 0, 1, "stdout")
			y := o.Stream(Place{W: &got, Terminal: terminal}, "y", 1, 1, "stdout")
			for i, j := 0, 0; i < len(a) || j < len(b); {
				n := min(int(cut)%5+1, len(a)-i)
				_, _ = x.Write(a[i : i+n])
				i += n
				if cut&8 != 0 {
					_ = x.show()
				}
				m := min(int(cut)%7+1, len(b)-j)
				_, _ = y.Write(b[j : j+m])
				j += m
			}
			_, _ = x.Close(), y.Close()
			if terminal {
				obeys(t, got.Bytes())
				continue
			}
			parts := map[byte][]byte{}
			for line := range bytes.Lines(got.Bytes()) {
				if !bytes.HasPrefix(line[1:], []byte(" | ")) || line[len(line)-1] != '\n' {
					t.Fatalf("the line %q", line)
				}
				parts[line[0]] = append(parts[line[0]], line[4:]...)
			}
			for name, want := range map[byte][]byte{'x': a, 'y': b} {
				if len(want) > 0 && want[len(want)-1] != '\n' {
					want = append(bytes.Clone(want), '\n')
				}
				if !bytes.Equal(parts[name], want) {
					t.Errorf("%c: got %q, want %q", name, parts[name], want)
				}
			}
		}
	})
}

// obeys fails for what a terminal would do something for but colours and lines.
func obeys(t *testing.T, out []byte) {
	t.Helper()
	plain := regexp.MustCompile(`\x1b\[[0-9;:]*m`).ReplaceAll(out, nil)
	for _, r := range string(plain) {
		if unicode.IsControl(r) && r != '\n' && r != '\t' {
			t.Fatalf("%q in %q", r, out)
		}
	}
}

func TestObject(t *testing.T) {
	var v map[string]string
	if err := json.Unmarshal(object("a", "stderr", []byte("x\x1b\n")), &v); err != nil || v["text"] != "x\x1b\n" {
		t.Errorf("%v, %v", v, err)
	}
}
