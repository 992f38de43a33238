package group

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/mirrord-go/mirrord/internal/leak"
)

func TestMain(m *testing.M) { os.Exit(leak.Main(m)) }

func TestCourse(t *testing.T) {
	for _, c := range []struct {
		name  string
		steps string // end NAME CODE, SIGNAL, tty SIGNAL, hint, late
		want  string // what is done, and the code
	}{
		{"one ends", "end a 0", "term+ 0"},
		{"one fails", "end a 3|end b 143|end c 0", "term+ 3"},
		{"one is killed, and the rest is late", "end a 137|late|end b 137|end c 137", "term+ kill 137"},
		{"Ctrl-C", "tty int|end a 0|end b 130|end c 1", "+ 130"},
		{"Ctrl-C that nobody heard", "tty int|hint|end a 143|end b 143|end c 143", "+ term 130"},
		{"Ctrl-C twice", "tty int|tty int|end a 137|end b 137|end c 137", "+ kill 130"},
		{"Ctrl-C three times", "tty int|tty int|tty int|late|hint", "+ kill 130"},
		{"interrupted without a terminal", "int|hint|end a 130", "int+ 130"},
		{"terminated", "term|late", "term+ kill 143"},
		{"terminated twice", "term|term", "term+ kill 143"},
		{"the terminal closes", "hup|hup|end a 129|end b 129|end c 129", "hup+ 129"},
		{"the terminal closes, and its shell says so", "tty hup|hup", "hup+ 129"},
		{"a member hears Ctrl-C first", "end a 0|tty int|end b 0|end c 0", "term+ 130"},
		{"Ctrl-C while they end, twice", "end a 0|tty int|tty int", "term+ kill 130"},
	} {
		t.Run(c.name, func(t *testing.T) {
			k := course{running: 3}
			var did []string
			for step := range strings.SplitSeq(c.steps, "|") {
				words := strings.Fields(step)
				signals := map[string]syscall.Signal{"int": syscall.SIGINT, "term": syscall.SIGTERM, "hup": syscall.SIGHUP}
				var does action
				switch words[0] {
				case "end":
					code, _ := strconv.Atoi(words[2])
					does = k.ended(words[1], code)
				case "tty":
					does = k.told(signals[words[1]], true)
				case "hint":
					does = k.hint()
				case "late":
					does = k.late()
				default:
					does = k.told(signals[words[0]], false)
				}
				word := map[syscall.Signal]string{0: "", syscall.SIGINT: "int", syscall.SIGTERM: "term", syscall.SIGHUP: "hup", syscall.SIGKILL: "kill"}[does.signal]
				if does.ending {
					word += "+"
				}
				if word != "" {
					did = append(did, word)
				}
			}
			if got := fmt.Sprint(strings.Join(did, " "), " ", k.code); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

// recorder keeps what members write.
type recorder struct {
	mu    sync.Mutex
	texts map[string]string
	said  []string
}

func (r *recorder) read(name string) func(*os.File) error {
	return func(f *os.File) error {
		b, err := io.ReadAll(f)
		r.mu.Lock()
		defer r.mu.Unlock()
		r.texts[name] += string(b)
		return err
	}
}

func (r *recorder) say(text string) { r.said = append(r.said, text) }

func (r *recorder) member(name, script string) Member {
	return Member{Name: name, Path: "/bin/sh", Argv: []string{"sh", "-c", script}, Env: os.Environ(), Config: []byte("config of " + name),
		Stdout: r.read(name + " out"), Stderr: r.read(name + " err"), Progress: r.read(name + " progress")}
}

func newRecorder() *recorder { return &recorder{texts: map[string]string{}} }

func TestRun(t *testing.T) {
	r := newRecorder()
	dir := t.TempDir()
	a := r.member("a", `trap 'echo told; exit 0' TERM; cat <&3; pwd; echo progress >&4; echo err >&2; echo >ready; while :; do sleep 0.01; done`)
	a.Dir = dir
	b := r.member("b", `while ! [ -e ready ]; do sleep 0.01; done; exit 7`)
	b.Dir = dir
	code, err := Run([]Member{a, b}, r.say)
	if err != nil || code != 7 {
		t.Errorf("code %d, %v", code, err)
	}
	if got, want := r.texts["a out"], "config of a"+dir+"\ntold\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if r.texts["a err"] != "err\n" || r.texts["a progress"] != "progress\n" {
		t.Errorf("got %q", r.texts)
	}
	if want := "b has ended with code 7; the others are told to end"; len(r.said) != 1 || r.said[0] != want {
		t.Errorf("said %q", r.said)
	}
}

// TestRunLeft: a process that a member left, and that holds its output, keeps
// nobody.
func TestRunLeft(t *testing.T) {
	r := newRecorder()
	pidFile := filepath.Join(t.TempDir(), "pid")
	began := time.Now()
	code, err := Run([]Member{r.member("a", `sleep 1000 & echo $! >`+pidFile+`; echo x`)}, r.say)
	if err != nil || code != 0 || time.Since(began) > 20*drainTime {
		t.Errorf("code %d, %v, after %v", code, err, time.Since(began))
	}
	text, _ := os.ReadFile(pidFile)
	if pid, err := strconv.Atoi(strings.TrimSpace(string(text))); err == nil {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	if r.texts["a out"] != "x\n" {
		t.Errorf("got %q", r.texts)
	}
}

// TestRunNotStarted: where one cannot be started, none is left.
func TestRunNotStarted(t *testing.T) {
	r := newRecorder()
	b := r.member("b", "true")
	b.Dir = filepath.Join(t.TempDir(), "not-there")
	_, err := Run([]Member{r.member("a", "sleep 1000"), b}, r.say)
	if err == nil || !strings.Contains(err.Error(), "service b") {
		t.Errorf("got %v", err)
	}
}

// TestRunTold: a signal for this process is one for all.
func TestRunTold(t *testing.T) {
	r := newRecorder()
	dir := t.TempDir()
	a := r.member("a", `trap 'echo told; exit 3' TERM; echo >a; while :; do sleep 0.01; done`)
	b := r.member("b", `while ! [ -e a ]; do sleep 0.01; done; kill -TERM $PPID; exec sleep 1000`)
	a.Dir, b.Dir = dir, dir
	code, err := Run([]Member{a, b}, r.say)
	if err != nil || code != 128+int(syscall.SIGTERM) || r.texts["a out"] != "told\n" {
		t.Errorf("code %d, %v, %q", code, err, r.texts)
	}
}
