package e2e

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Whatever starts a session, and from wherever, finds a process like any
// other. The target is a process of this machine: the cluster adds nothing.

// target is a process of the user's, until the test's end.
func target(t testing.TB) string {
	t.Helper()
	cmd := exec.Command("sleep", "1000")
	cmd.Env = environment()
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: user, Gid: user}}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	return fmt.Sprintf("process/%d", cmd.Process.Pid)
}

// mirrord is the beginning of a command line in a shell.
func mirrord(t testing.TB) string { return w.mirrord + " exec -q -t " + target(t) + " -- " }

// shell runs a script, as cron does if env is nil: without a terminal, an
// environment or a directory of its own.
func shell(t testing.TB, script string, env []string) *run {
	t.Helper()
	r := startCommand(t, []string{"/bin/bash", "-c", script}, func(c *exec.Cmd) {
		c.SysProcAttr.Setsid = true
		if env == nil {
			c.Dir = "/"
		}
		c.Env = append([]string{"PATH=/usr/bin:/bin"}, env...) // bash makes up a longer one without
	})
	t.Cleanup(func() { vanish(t) }) // the supervisor goes a moment after the command
	return r
}

// terminal is a shell with job control on a terminal.
type terminal struct {
	*run
	keys *os.File // also what the screen is read from
}

func newTerminal(t testing.TB) *terminal {
	t.Helper()
	keys, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	rc, err := keys.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	_ = rc.Control(func(fd uintptr) {
		if n, err = unix.IoctlGetInt(int(fd), unix.TIOCGPTN); err == nil {
			err = unix.IoctlSetPointerInt(int(fd), unix.TIOCSPTLCK, 0)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	path := fmt.Sprintf("/dev/pts/%d", n)
	tty, err := os.OpenFile(path, os.O_RDWR|unix.O_NOCTTY, 0)
	if err = errors.Join(err, os.Chown(path, user, user)); err != nil {
		t.Fatal(err)
	}
	defer tty.Close()
	r := startCommand(t, []string{"/bin/bash", "--norc", "--noprofile", "-i"}, func(c *exec.Cmd) {
		c.Stdin, c.Stdout, c.Stderr = tty, tty, tty
		c.Env = append(c.Env, "PS1=> ", "HISTFILE=", "TERM=dumb")
		c.SysProcAttr.Setsid, c.SysProcAttr.Setctty = true, true
	})
	read := make(chan struct{})
	go func() {
		defer close(read)
		_, _ = io.Copy(r.stdout, keys) // EIO at the end of the last process
	}()
	t.Cleanup(func() { keys.Close(); vanish(t); <-read })
	x := &terminal{r, keys}
	x.waitFor("> ")
	return x
}

func (x *terminal) types(text string) {
	x.t.Helper()
	if _, err := io.WriteString(x.keys, text); err != nil {
		x.t.Fatal(err)
	}
}

func (x *terminal) resize(rows, columns uint16) {
	x.t.Helper()
	rc, err := x.keys.SyscallConn()
	if err != nil {
		x.t.Fatal(err)
	}
	_ = rc.Control(func(fd uintptr) {
		err = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: columns})
	})
	if err != nil {
		x.t.Fatal(err)
	}
}

// waitCount waits until the screen has text n times.
func (x *terminal) waitCount(text string, n int) {
	x.t.Helper()
	for end := time.Now().Add(runTime); strings.Count(x.stdout.String(), text) < n; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			x.t.Fatalf("the screen has not %d times %q", n, text)
		}
	}
}

// exits ends the shell.
func (x *terminal) exits() {
	x.t.Helper()
	x.types("exit\n")
	if code := x.end(); code != 0 {
		x.t.Errorf("the shell ended with %d", code)
	}
}

// vanish is noProcess, unless the test has failed before that.
func vanish(t testing.TB) {
	t.Helper()
	if !t.Failed() {
		noProcess(t)
	}
}

const (
	ctrlC         = "\x03"
	ctrlBackslash = "\x1c"
	ctrlZ         = "\x1a"
)

func TestCareStopAndContinue(t *testing.T) {
	x := newTerminal(t)
	x.types(mirrord(t) + `bash -c 'echo re""ady; while read -r l; do echo "got:$l"; done; exit 5'` + "\n")
	x.waitFor("ready")
	for i := range 3 {
		x.types(ctrlZ)
		x.waitCount("Stopped", i+1)
		x.types(fmt.Sprintf("echo she\"\"ll %d\n", i))
		x.waitFor(fmt.Sprintf("shell %d", i))
		x.types("fg\n")
		x.types(fmt.Sprintf("line %d\n", i))
		x.waitFor(fmt.Sprintf("got:line %d", i))
	}
	x.types("\x04") // the end of its input
	x.types("echo co\"\"de $?\n")
	x.waitFor("code 5")
	x.exits()
}

// Ctrl-Z is the program's to take or leave, and it may put its things away
// before it stops.
func TestCareStopIsTheProgramsAffair(t *testing.T) {
	x := newTerminal(t)
	x.types(mirrord(t) + `bash -c 'trap "" TSTP; echo re""ady; while read -r l; do echo "got:$l"; done; exit 5'` + "\n")
	x.waitFor("ready")
	x.types(ctrlZ + "line\n")
	x.waitFor("got:line")
	x.types("\x04")
	x.types("echo co\"\"de $?\n")
	x.waitFor("code 5")
	if strings.Contains(x.stdout.String(), "Stopped") {
		t.Error("a program that ignores Ctrl-Z is stopped")
	}
	x.types(mirrord(t) + `bash -c 'trap "sleep 0.3; echo put aw""ay; kill -STOP \$\$" TSTP; echo al""so; while ! read -r -t 0.1 l; do :; done; echo "got:$l"; exit 6'` + "\n")
	x.waitFor("also")
	x.types(ctrlZ)
	x.waitFor("Stopped")
	if i, j := strings.Index(x.stdout.String(), "put away"), strings.Index(x.stdout.String(), "Stopped"); i < 0 || i > j {
		t.Error("the shell had the terminal before the program had stopped")
	}
	x.types("fg\n")
	x.types("more\n")
	x.waitFor("got:more")
	x.types("echo co\"\"de $?\n")
	x.waitFor("code 6")
	x.exits()
}

// A signal to what the user started alone reaches the program.
func TestCareStopFromElsewhere(t *testing.T) {
	r := shell(t, "exec "+mirrord(t)+`sh -c 'echo ready; read -r x; echo "got:$x"'`, environment())
	r.waitFor("ready")
	r.signal(syscall.SIGTSTP)
	r.signal(syscall.SIGCONT)
	fmt.Fprintln(r.stdin, "on")
	r.waitFor("got:on")
	if code := r.end(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

func TestCareBackgroundJob(t *testing.T) {
	x := newTerminal(t)
	// Who reads from the terminal in the background is stopped.
	x.types(mirrord(t) + `bash -c 'read -r l; echo "got:$l"' &` + "\n")
	x.waitFor("[1]")
	for end := time.Now().Add(runTime); !strings.Contains(x.stdout.String(), "Stopped"); time.Sleep(50 * time.Millisecond) {
		if x.types("jobs\n"); time.Now().After(end) {
			t.Fatal("the job is not stopped")
		}
	}
	x.types("fg\n")
	x.types("word\n")
	x.waitFor("got:word")
	x.types(mirrord(t) + "sleep 1000 &\n")
	x.waitCount("[1]", 2)
	x.types("kill %1; wait %1; echo co\"\"de $?\n")
	x.waitFor("code 143")
	x.exits()
}

func TestCareShellInside(t *testing.T) {
	x := newTerminal(t)
	x.types(mirrord(t) + "env PS1='in''side> ' bash --norc --noprofile -i\n")
	x.waitFor("inside> ")
	x.types("sh -c 'echo st\"\"arted; exec sleep 1000'\n")
	x.waitFor("started")
	x.types(ctrlZ)
	x.waitFor("Stopped")
	x.types("fg\n")
	x.waitCount("sh -c", 3) // typed, stopped, fg
	x.types(ctrlC)
	x.types("echo co\"\"de $?\n")
	x.waitFor("code 130")
	x.resize(33, 101)
	x.types("stty size\n")
	x.waitFor("33 101")
	x.types("exit 9\n")
	x.types("echo out\"\"side $?\n")
	x.waitFor("outside 9")
	x.types("sh -c 'echo ag\"\"ain; exec sleep 1000'\n") // the terminal is the outer shell's again
	x.waitFor("again")
	x.types(ctrlC)
	x.types("echo co\"\"de $?\n")
	x.waitCount("code 130", 2)
	x.exits()
}

func TestCareWindowAndInterrupts(t *testing.T) {
	x := newTerminal(t)
	x.types(mirrord(t) + "python3 " + filepath.Join(w.dir, "bin", "signals.py") + "\n")
	x.waitFor("ready")
	x.types(ctrlC)
	x.waitFor("int1")
	x.resize(9, 99)
	x.waitFor("winch")
	x.types(ctrlC)
	x.waitFor("int2")
	x.types("echo co\"\"de $?\n")
	x.waitFor("code 3")
	if n := strings.Count(x.stdout.String(), "winch\r"); n != 1 {
		t.Errorf("the new size arrived %d times", n)
	}
	x.types(mirrord(t) + `sh -c 'echo be""gun; exec sleep 1000'` + "\n")
	x.waitFor("begun")
	x.types(ctrlBackslash)
	x.types("echo co\"\"de $?\n")
	x.waitFor("code 131")
	x.exits()
}

// The window is closed: the program hears of it, and nothing stays.
func TestCareHangUp(t *testing.T) {
	for name, c := range map[string]struct {
		ignores bool
		want    string
	}{"a program that ends": {false, "hup"}, "nohup": {true, ""}} {
		t.Run(name, func(t *testing.T) {
			said := filepath.Join(w.dir, "work", "said")
			os.Remove(said)
			x := newTerminal(t)
			line := mirrord(t) + fmt.Sprintf(`bash -c 'trap "echo hup >%s; exit" HUP; echo re""ady; while :; do sleep 0.02; done'`, said)
			if c.ignores {
				line = "nohup " + mirrord(t) + `bash -c 'echo re""ady >/dev/tty; sleep 1; echo lived >` + said + `'`
			}
			x.types(line + "\n")
			x.waitFor("ready")
			x.keys.Close()
			x.end()
			vanish(t)
			b, _ := os.ReadFile(said)
			want := "hup\n"
			if c.ignores {
				want = "lived\n"
			}
			if string(b) != want {
				t.Errorf("the program said %q, want %q", b, want)
			}
		})
	}
}

// Descriptors are the command's, open or closed.
func TestCareDescriptors(t *testing.T) {
	for _, c := range []struct{ name, script, want string }{
		{"3 and 5", `M bash -c 'echo three >&3; cat <&5' 3>&1 5<<<five`, "three\nfive\n"},
		{"a pipe on both sides", `printf 'a\nb\n' | M tac | cat`, "b\na\n"},
		{"closed stdin", `M sh -c 'echo out; cat' <&-; echo $?`, "out\n0\n"},
		{"closed stdout", `M sh -c 'exit 6' >&-; echo $?`, "6\n"},
		{"all closed", `(M sh -c 'exit 6' <&- >&- 2>&-); echo $?`, "6\n"},
		{"a reader that has enough", `M yes | head -n 2; echo ${PIPESTATUS[0]}`, "y\ny\n141\n"},
		{"nothing more is open", `A=$(M ls /proc/self/fd) B=$(ls /proc/self/fd); [ "$A" = "$B" ] && echo same || echo "$A"`, "same\n"},
		{"an end is an end", `M sh -c 'sleep 1000 >/dev/null 2>&1 <&- & echo $!' | (read pid; cat; kill $pid; echo end)`, "end\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := shell(t, `M() { `+mirrord(t)+`"$@"; }; `+c.script, environment())
			r.end()
			if got := r.stdout.String(); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestCareExitCodes(t *testing.T) {
	r := shell(t, `M() { `+mirrord(t)+`"$@" 2>/dev/null; echo -n "$? "; }
		M true; M false; M sh -c 'exit 255'; M /etc/passwd; M /etc; M nothing-of-that-name; M /nothing/there
		for s in HUP INT QUIT KILL TERM SEGV PIPE; do M sh -c "kill -$s \$\$"; done`, environment())
	r.end()
	if got, want := r.stdout.String(), "0 1 255 126 126 127 127 129 130 131 137 143 139 141 "; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// Who starts it does not matter.
func TestCareWrappers(t *testing.T) {
	for _, c := range []struct{ name, script, want string }{
		{"cron", `M sh -c 'pwd; tty; exit 4'; echo $?`, "/\nnot a tty\n4\n"},
		{"no environment at all", `env -i MM /bin/echo word`, "word\n"},
		{"no home", `HOME=/nowhere M echo word`, "word\n"},
		{"make", `cd $D && printf 'all:\n\t@%s\n\t@%s\n' "MM echo one" "MM sh -c 'exit 3'" >Makefile && make -s 2>/dev/null; echo $?`, "one\n2\n"},
		{"make -j, with its jobserver", `cd $D && printf 'all: a b\na b:\n\t+@MM $(MAKE) -s -f inner\n' >Makefile && printf 'all: x y\nx y:\n\t@echo made\n' >inner && make -s -j4 2>&1`, "made\nmade\nmade\nmade\n"},
		{"npm run", `cd $D && printf '{"scripts":{"hi":"MM node -e \\"console.log(process.argv.length)\\""}}' >package.json && npm run -s hi`, "1\n"},
		{"timeout", `timeout 1 MM sleep 1000; echo $?`, "124\n"},
		{"timeout --foreground", `timeout --foreground -s INT 1 MM sleep 1000; echo $?`, "124\n"},
		{"timeout -s KILL", `(timeout -s KILL 1 MM sleep 1000) 2>/dev/null; echo $?`, "137\n"},
		{"nohup", `nohup MM sh -c 'kill -HUP $$; echo lives' 2>/dev/null`, "lives\n"},
		{"setsid", `setsid -w MM sh -c 'exit 9'; echo $?`, "9\n"},
		{"setsid -f", `setsid -f MM sh -c "sleep 0.2; echo done >$D/file"; until [ -s $D/file ]; do sleep 0.02; done; cat $D/file`, "done\n"},
		{"in the background", `sh -c 'MM sh -c "sleep 0.2; echo done" & wait'`, "done\n"},
		{"its shell has gone", `sh -c 'MM sh -c "sleep 0.2; echo done >$D/file" &'; until [ -s $D/file ]; do sleep 0.02; done; cat $D/file`, "done\n"},
		{"script", `script -qec "MM sh -c 'tty >/dev/null && echo tty; exit 3'" /dev/null </dev/null; echo $?`, "tty\r\n3\n"},
		{"xargs", `seq 3 | xargs -P 3 -n 1 MM echo | sort`, "1\n2\n3\n"},
		{"nice, env, exec", `exec nice -n 5 env X=y MM sh -c 'echo $X; nice'`, "y\n5\n"},
		{"ulimit", `ulimit -n 100 -c 0; M sh -c 'ulimit -n'`, "100\n"},
		{"umask", `umask 027; cd $D; M sh -c 'umask; touch made'; stat -c %a made`, "0027\n640\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := strings.TrimSpace(mirrord(t))
			dir, err := os.MkdirTemp(filepath.Join(w.dir, "work"), "care-")
			if err != nil {
				t.Fatal(err)
			}
			if err := os.Chown(dir, user, user); err != nil {
				t.Fatal(err)
			}
			env := environment()
			if c.name == "cron" {
				env = nil
			}
			script := strings.ReplaceAll(`M() { MM "$@"; }; export D=`+dir+`; `+c.script, "MM", m)
			r := shell(t, script, env)
			r.end()
			if got := r.stdout.String(); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestCareTmux(t *testing.T) {
	out := filepath.Join(w.dir, "work", "tmux.out")
	socket := filepath.Join(w.dir, "work", "tmux")
	tmux := "TERM=xterm tmux -f /dev/null -S " + socket
	r := shell(t, fmt.Sprintf(`%s new-session -d -x 90 -y 30 "%s sh -c 'stty size >%s; read -r x; echo \$x >>%s'"
		until [ -s %s ]; do sleep 0.05; done; %s send-keys word Enter; until grep -q word %s; do sleep 0.05; done; cat %s; while %s ls 2>/dev/null >&2; do sleep 0.05; done`,
		tmux, mirrord(t), out, out, out, tmux, out, out, tmux), environment())
	r.end()
	if got := r.stdout.String(); !strings.Contains(got, " 90\nword\n") {
		t.Errorf("got %q", got)
	}
	// A pane that is killed takes its session along.
	r = shell(t, fmt.Sprintf(`rm -f %s; %s new-session -d "%s sh -c 'echo \$\$ >%s; sleep 1000'"; until [ -s %s ]; do sleep 0.05; done; %s kill-server; cat %s`,
		out, tmux, mirrord(t), out, out, tmux, out), environment())
	r.end()
	pid, err := strconv.Atoi(strings.TrimSpace(r.stdout.String()))
	if err != nil {
		t.Fatal(err)
	}
	gone(t, pid)
}

// Several sessions on one machine, each with the same port: none disturbs
// another, and each is published at a number of its own.
func TestCareSessionsAtOnce(t *testing.T) {
	const sessions, port = 5, 8041
	began := make([]*run, sessions)
	to := target(t)
	for i := range began {
		began[i] = startCommand(t, []string{w.mirrord, "exec", "-t", to, "--", "sh", "-c", fmt.Sprintf(`NAME=%d exec python3 -u -c '
import http.server, os
class H(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(os.environ["NAME"].encode())
    def log_message(self, *args): pass
http.server.HTTPServer(("127.0.0.1", %d), H).serve_forever()'`, i, port)}, nil)
	}
	published := map[string]bool{}
	at := make([]string, sessions)
	for i, r := range began {
		if !r.stderr.waitFor("open here at ", runTime) {
			t.Fatalf("session %d does not listen:\n%s", i, r.stderr)
		}
		_, rest, _ := strings.Cut(r.stderr.String(), "open here at ")
		at[i] = strings.Fields(rest)[0]
		published[at[i]] = true
	}
	if len(published) != sessions || !published[fmt.Sprintf("127.0.0.1:%d", port)] {
		t.Errorf("published at %v, want %d addresses, one of them of port %d", at, sessions, port)
	}
	for i, r := range began { // each one's end leaves the others alone
		for j := i; j < sessions; j++ {
			if got, err := httpGet("http://" + at[j]); err != nil || got != fmt.Sprint(j) {
				t.Errorf("after %d ends, session %d answers %q, %v", i, j, got, err)
			}
		}
		r.signal(syscall.SIGTERM)
		if code := r.end(); code != 143 {
			t.Errorf("session %d ended with %d", i, code)
		}
	}
	vanish(t)
}
