package e2e

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// asker asks the target all the time, from another pod's network, without the
// help of anything that is killed here.
type asker struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *output

	read int // bytes of out, whose requests are in all
	all  []asked
}

// asked is one request.
type asked struct {
	path       string // of the URL
	port       string // of the client
	begin, end time.Time
	answer     string // "local", "remote", "open", or what went wrong
}

func (a asked) String() string {
	return fmt.Sprintf("%s from port %s %s+%v %s", a.path, a.port, a.begin.Format("05.000"), a.end.Sub(a.begin), a.answer)
}

func (a asked) failed() bool { return a.answer != "local" && a.answer != "remote" }

// askAll starts an asker. It ends with the test, or with answers.
func askAll(t testing.TB, p *prey) *asker { return askEvery(t, p, 25*time.Millisecond) }

// askEvery is askAll with a pause between two requests.
func askEvery(t testing.TB, p *prey, pause time.Duration) *asker {
	t.Helper()
	a := &asker{out: newOutput()}
	a.cmd = exec.Command("nsenter", "-t", strconv.Itoa(p.client), "--net", filepath.Join(w.dir, "bin", "chaos"), "ask", p.ip+":"+chaosPort, pause.String())
	a.cmd.Stdout, a.cmd.Stderr = a.out, os.Stderr
	var err error
	if a.in, err = a.cmd.StdinPipe(); err == nil {
		err = a.cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.answers() })
	return a
}

// seen waits until a request that began after since was answered so.
func (a *asker) seen(answer string, since time.Time, limit time.Duration) bool {
	for end := time.Now().Add(limit); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		for _, q := range a.soFar() {
			if q.answer == answer && q.begin.After(since) {
				return true
			}
		}
	}
	return false
}

// answers ends the asker and gives all that it asked.
func (a *asker) answers() []asked {
	a.in.Close()
	if a.cmd.ProcessState == nil {
		_ = a.cmd.Wait()
	}
	return a.soFar()
}

// soFar gives all that has been asked until now. It is for one goroutine.
func (a *asker) soFar() []asked {
	text := a.out.from(a.read)
	text = text[:strings.LastIndexByte(text, '\n')+1]
	a.read += len(text)
	for line := range strings.Lines(text) {
		f := strings.SplitN(strings.TrimSpace(line), " ", 5)
		begin, err := strconv.ParseInt(f[2], 10, 64)
		end, err2 := strconv.ParseInt(f[3], 10, 64)
		if err != nil || err2 != nil {
			continue
		}
		a.all = append(a.all, asked{"/" + f[0], f[1], time.UnixMilli(begin), time.UnixMilli(end), f[4]})
	}
	return a.all
}

// held is what the local program has got: the paths that it says to have heard,
// and the clients' ports of the connections that it was given, as far as mirrord
// told with --verbose.
func held(t testing.TB, h *hunted) map[string]bool {
	t.Helper()
	b, err := os.ReadFile(h.log)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	all := map[string]bool{}
	for path := range strings.FieldsSeq(string(b)) {
		all[path] = true
	}
	for _, m := range given.FindAllStringSubmatch(h.stderr.String(), -1) {
		all[m[1]] = true
	}
	return all
}

// given is how mirrord tells of a connection that the program was given.
var given = regexp.MustCompile(`:(\d+) is connected to port ` + chaosPort)

// of reports whether the program had the request.
func (a asked) of(held map[string]bool) bool { return held[a.path] || held[a.port] }
