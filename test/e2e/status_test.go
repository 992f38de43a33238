package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// What mirrord status shows of running sessions.

// shownSession is what status says of one, as far as tests look.
type shownSession struct {
	ID, Target, Mode   string
	Namespace, Context string
	PID                int
	Kept               bool
	Ports              []struct {
		Port, Target int
		Mode         string
	}
	Counts struct {
		Incoming, Outgoing struct{ Connections, Open, Requests, Sent, Received int64 }
		Lookups            int64
		Files              struct{ Opened, Read int64 }
	}
	Commands []struct{ Argv []string }
}

func statusCommand(t testing.TB, args ...string) *run {
	t.Helper()
	return startCommandOnly(t, append([]string{w.mirrord, "status"}, args...))
}

// shown gives all sessions that status shows.
func shown(t testing.TB) (all []shownSession) {
	t.Helper()
	r := statusCommand(t, "-o", "json")
	if code := r.wait(); code != 0 {
		t.Fatalf("status: exit code %d:\n%s", code, r.stderr)
	}
	if err := json.Unmarshal([]byte(r.stdout.String()), &all); err != nil {
		t.Fatalf("%v in %s", err, r.stdout)
	}
	return all
}

// happened is a line of status --events.
type happened struct {
	At                                                                          time.Time
	Session, Kind, Flow, What, Where, Mode, Client, Address, Name, Method, Path string
	Status, Port                                                                int
	Sent, Received                                                              int64
	Ms                                                                          float64
	Answers                                                                     []string
}

func TestStatus(t *testing.T) {
	file := filepath.Join(w.dir, "home", "events.jsonl")
	t.Cleanup(func() { os.Remove(file) })
	r := start(t, "-t", "pod/app", "--steal", "bash", "-c", `python3 ../bin/server.py 8033 & server=$!
		while read -r line; do case $line in
			connect) curl -sS http://`+podIP(t, "probed")+`:8001/out ;;
			lookup) getent hosts dbmaster ;;
			file) cat /data/hello.txt ;;
			end) kill $server; exit 0 ;;
		esac; done`)
	r.waitFor("listening")
	all := shown(t)
	if len(all) != 1 || all[0].Target != "pod/app" || all[0].Kept || all[0].Mode != "steal" || len(all[0].Ports) != 1 || all[0].Ports[0].Port != 8033 || all[0].Ports[0].Target != 8033 || all[0].Ports[0].Mode != "steal" || len(all[0].Commands) != 1 {
		t.Fatalf("status shows %+v", all)
	}
	if all[0].Namespace != w.namespace || all[0].Context == "" { // the context nobody has named
		t.Errorf("it is in namespace %q of context %q", all[0].Namespace, all[0].Context)
	}
	id, before := all[0].ID, all[0].Counts

	watch := statusCommand(t, "--watch", id, "--filter", "kind=request,session")
	events := statusCommand(t, "--events", file, id)
	watch.waitFor("pod/app")
	for end := time.Now().Add(10 * time.Second); ; { // it watches when it has said so
		if b, _ := os.ReadFile(file); strings.Contains(string(b), "session-watched") {
			break
		}
		if time.Now().After(end) {
			t.Fatal("nothing is written to the file of events")
		}
	}
	url := fmt.Sprintf("http://%s:8033/cart?token=secret", podIP(t, "app"))
	if got := request(t, url); !strings.HasPrefix(got, "local python /cart") {
		t.Fatalf("the request is not stolen: %q", got)
	}
	watch.waitFor("GET /cart → 200") // as it happens: the session goes on
	for _, do := range []string{"connect", "lookup", "file"} {
		fmt.Fprintln(r.stdin, do)
	}
	r.waitFor("from-pod")

	after := shown(t)[0].Counts
	in, out := after.Incoming, after.Outgoing
	if in.Requests != before.Incoming.Requests+1 || in.Connections < 1 || in.Received < 50 || in.Sent < 50 {
		t.Errorf("incoming: %+v, before %+v", in, before.Incoming)
	}
	if out.Requests != 1 || out.Connections < 1 || out.Sent < 10 || out.Received < 10 || after.Lookups < 2 || after.Files.Opened < 1 || after.Files.Read < 9 {
		t.Errorf("%+v, before %+v", after, before)
	}
	table := statusCommand(t)
	if code := table.wait(); code != 0 || !regexp.MustCompile(`(?m)^`+id+` +pod/app in \S+ +\d+s +ok +steal +8033 +1 `).MatchString(table.stdout.String()) {
		t.Errorf("exit code %d, table\n%s", code, table.stdout)
	}

	fmt.Fprintln(r.stdin, "end")
	if code := r.end(); code != 0 {
		t.Errorf("exit code %d, stderr:\n%s", code, r.stderr)
	}
	for name, s := range map[string]*run{"watch": watch, "events": events} { // they end with the session
		if code := s.wait(); code != 0 {
			t.Errorf("%s: exit code %d:\n%s", name, code, s.stderr)
		}
	}
	if got := shown(t); len(got) != 0 {
		t.Errorf("after the end status shows %+v", got)
	}
	if left, _ := os.ReadDir(filepath.Join(w.dir, "home", ".local", "state", "mirrord", "running")); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(b), "secret") {
		t.Error("a query is in the events")
	}
	want := map[string]func(happened) bool{
		"the stolen request": func(e happened) bool {
			return e.Kind == "request" && e.Flow == "incoming" && e.Method == "GET" && e.Path == "/cart" && e.Status == 200 && e.Port == 8033 && e.Mode == "steal" && e.Ms > 0
		},
		"its connection's end": func(e happened) bool {
			return e.Kind == "connection" && e.Flow == "incoming" && e.What == "closed" && e.Sent > 50 && e.Received > 50
		},
		"the program's request": func(e happened) bool {
			return e.Kind == "request" && e.Flow == "outgoing" && e.Path == "/out" && e.Status == 200
		},
		"the program's connection": func(e happened) bool {
			return e.Kind == "connection" && e.Flow == "outgoing" && e.What == "opened" && strings.HasSuffix(e.Address, ":8001") && e.Where == "remote"
		},
		"the lookup": func(e happened) bool {
			return e.Kind == "lookup" && strings.HasPrefix(e.Name, "dbmaster."+w.namespace) && len(e.Answers) > 0 && e.Where == "remote"
		},
		"the file": func(e happened) bool {
			return e.Kind == "file" && e.What == "opened" && e.Path == "/data/hello.txt" && e.Where == "remote"
		},
	}
	for line := range strings.Lines(string(b)) {
		var e happened
		if err := json.Unmarshal([]byte(line), &e); err != nil || e.At.IsZero() || e.Session != id {
			t.Errorf("line %q: %v", line, err)
		}
		for what, is := range want {
			if is(e) {
				delete(want, what)
			}
		}
	}
	for what := range want {
		t.Errorf("%s is in no event of\n%s", what, b)
	}
}

// TestStrangersAtSessions: another user of this machine who gets at the sockets of
// a session, since their directories are open by mistake, is told nothing; and
// where they are as mirrord makes them, gets at none.
func TestStrangersAtSessions(t *testing.T) {
	id := kept(t, "-t", "pod/app")
	r := start(t, "-t", "pod/app", "bash", "-c", "echo ready; read -r line")
	r.waitFor("ready")
	state := filepath.Join(w.dir, "home", ".local", "state", "mirrord")
	sockets, _ := filepath.Glob(state + "/*/??????")
	if len(sockets) != 3 { // two to look at, one to join
		t.Fatalf("sockets: %q, want three", sockets)
	}
	visit := func(uid uint32, path string) string {
		c := exec.Command("/usr/bin/python3", "-c", `import socket, sys
s = socket.socket(socket.AF_UNIX)
s.settimeout(10)
try:
    s.connect(sys.argv[1])
    s.sendall(b"\0" + b'{"ask": {}}\n' if "kept" in sys.argv[1] else b'{"watch": {}}\n')
    print("got", len(s.recv(1000)) > 0)
except PermissionError:
    print("no way")
except (BrokenPipeError, ConnectionResetError):
    print("got False")`, path)
		c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
		out, err := c.CombinedOutput()
		if err != nil {
			t.Errorf("user %d: %v: %s", uid, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	for _, s := range sockets {
		if got := visit(1001, s); got != "no way" {
			t.Errorf("another user at %s: %s, want no way", s, got)
		}
	}
	for _, p := range append(sockets, filepath.Join(w.dir, "home", ".local"), filepath.Dir(state), state, state+"/kept", state+"/running") {
		fi, err := os.Stat(p)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(p, 0o777); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = os.Chmod(p, fi.Mode().Perm()) })
	}
	for _, s := range sockets {
		for _, uid := range []uint32{1001, 65534} {
			if got := visit(uid, s); got != "got False" {
				t.Errorf("user %d at %s: %s, want nothing", uid, s, got)
			}
		}
		if got := visit(user, s); got != "got True" {
			t.Errorf("its own user at %s: %s", s, got)
		}
	}
	fmt.Fprintln(r.stdin)
	if code := r.end(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	sessionCommand(t, "stop", id)
}

// TestLostCopies: what the program does not read of mirrored traffic is lost, which
// is said once, counted, and no business of the target's.
func TestLostCopies(t *testing.T) {
	r := start(t, "-t", "pod/app", "python3", "-u", "-c", `import socket, sys
s = socket.create_server(("", 8034))
print("listening")
c = s.accept()[0] # and never reads
sys.stdin.read()`)
	r.waitFor("listening")
	post := "head -c 64M /dev/zero | curl -sS --max-time 60 --data-binary @- http://" + podIP(t, "app") + ":8034/much"
	if got := kubectl(t, "exec", "tools", "--", "sh", "-c", post); !strings.HasPrefix(got, "remote ") {
		t.Errorf("the target answers %q", got)
	}
	if !r.stderr.waitFor("not copied as a whole", 20*time.Second) {
		t.Errorf("nothing is said of the loss:\n%s", r.stderr)
	}
	s := statusCommand(t)
	s.wait()
	id := strings.Fields(s.stdout.String()[strings.Index(s.stdout.String(), "\n"):])[0]
	s = statusCommand(t, id)
	if s.wait(); !regexp.MustCompile(`(?m)^lost +\d+ packets? of mirrored traffic; [1-9]\d* connections? not copied as a whole$`).MatchString(s.stdout.String()) {
		t.Errorf("status shows\n%s", s.stdout)
	}
	r.stdin.Close()
	r.end()
}
