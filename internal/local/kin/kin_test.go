package kin

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/mirrord-go/mirrord/internal/leak"
)

// Roles of this binary in TestFamily.
const roleVariable = "KIN_TEST_ROLE"

func TestMain(m *testing.M) {
	switch os.Getenv(roleVariable) {
	case "parent":
		parent()
	case "listener":
		listener()
	case "command":
		command()
	default:
		os.Exit(leak.Main(m))
	}
}

// table is a process table written as "pid parent uid name [title]" a line.
func table(t *testing.T, text string) (all []Process) {
	t.Helper()
	for line := range strings.Lines(text) {
		var p Process
		f := strings.Fields(line)
		if len(f) == 0 {
			continue
		}
		p.Name, p.Title = f[3], f[3]
		if len(f) > 4 {
			p.Title = f[4]
		}
		for i, to := range []*int{&p.PID, &p.Parent, &p.UID} {
			n, err := strconv.Atoi(f[i])
			if err != nil {
				t.Fatal(err)
			}
			*to = n
		}
		all = append(all, p)
	}
	return all
}

func TestRelatives(t *testing.T) {
	for _, c := range []struct {
		name, table string
		want        []int // pid 50 is the front
	}{
		{"from a terminal", `
			1 0 0 systemd
			10 1 1000 gnome-terminal-server
			20 10 1000 bash
			50 20 1000 mirrord
			51 50 1000 python3
			52 50 1000 mirrord
			60 20 1000 postgres
			70 10 1000 bash`, []int{50, 51, 52}},
		{"from an editor", `
			1 0 0 systemd
			5 1 1000 systemd
			10 5 1000 code
			20 10 1000 node
			30 20 1000 python3
			50 30 1000 mirrord
			51 50 1000 python3
			40 10 1000 dlv
			41 40 1000 app
			60 5 1000 postgres
			61 1 1000 redis-server`, []int{10, 20, 30, 40, 41, 50, 51}},
		{"from a shell of an editor", `
			1 0 0 systemd
			10 1 1000 code
			20 10 1000 zsh
			30 20 1000 npm
			50 30 1000 mirrord
			40 10 1000 dlv`, []int{30, 50}},
		{"a script is its shell", `
			10 1 1000 code
			20 10 1000 bash run.sh
			50 20 1000 mirrord`, []int{50}},
		{"a terminal in another language", `
			10 1 1000 python3.11 terminator
			50 10 1000 mirrord
			60 10 1000 other`, []int{50}},
		{"another user above", `
			10 1 0 code
			20 10 1000 node
			50 20 1000 mirrord
			60 10 1000 other`, []int{20, 50}},
		{"another user below", `
			10 1 1000 code
			50 10 1000 mirrord
			60 10 0 sudo
			61 60 0 thing
			62 60 1000 back`, []int{10, 50, 62}},
		{"a child of the first process", `
			1 0 1000 code
			50 1 1000 mirrord
			60 1 1000 other`, []int{50}},
		{"its parent has ended", "50 49 1000 mirrord", []int{50}},
		{"it has ended itself", "10 1 1000 code", nil},
		{"somebody else's", "10 1 1000 code\n50 10 0 mirrord", nil},
		{"a table with a circle", `
			10 20 1000 a
			20 10 1000 b
			50 20 1000 mirrord
			60 10 1000 c`, []int{10, 20, 50, 60}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := slices.Sorted(maps.Keys(Relatives(table(t, c.table), 50, 1000)))
			if !slices.Equal(got, c.want) {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}

func TestAccepts(t *testing.T) {
	for _, c := range []struct {
		local, at string
		want      bool
	}{
		{"127.0.0.1:80", "127.0.0.1:80", true},
		{"127.0.0.1:81", "127.0.0.1:80", false},
		{"127.0.0.2:80", "127.0.0.1:80", false},
		{"0.0.0.0:80", "127.0.0.1:80", true},
		{"[::]:80", "127.0.0.1:80", true},
		{"[::ffff:127.0.0.1]:80", "127.0.0.1:80", true},
		{"[::1]:80", "127.0.0.1:80", false},
		{"192.168.1.2:80", "127.0.0.1:80", false},
		{"[::1]:80", "[::1]:80", true},
		{"[::]:80", "[::1]:80", true},
		{"0.0.0.0:80", "[::1]:80", false},
		{"127.0.0.1:80", "[::1]:80", false},
	} {
		if got := accepts(netip.MustParseAddrPort(c.local), netip.MustParseAddrPort(c.at)); got != c.want {
			t.Errorf("%s accepts %s: got %v", c.local, c.at, got)
		}
	}
}

func TestParseSocketSkipsTheRest(t *testing.T) {
	for _, line := range []string{
		"", "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode",
		"   0: 0100007F:1538 0100007F:9999 01 00000000:00000000 00:00000000 00000000  1000        0 77 1",
		"   0: 01007F:1538 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 77 1",
		"   0: ZZ00007F:1538 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 77 1",
		"   0: 0100007F:1538 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 x 1",
	} {
		if local, inode, ok := parseSocket(line); ok {
			t.Errorf("%q is a listener at %v: %d", line, local, inode)
		}
	}
}

// said is what a role tells: its process, and where it listens.
type said struct {
	PID     int
	Address string
}

func tell(v any) {
	if err := json.NewEncoder(os.Stdout).Encode(v); err != nil {
		panic(err)
	}
}

// wait lives as long as the test keeps stdin open.
func wait() { bufio.NewReader(os.Stdin).ReadByte() }

// listener tells where it listens.
func listener() {
	ln, err := net.Listen("tcp", os.Getenv("KIN_TEST_ADDRESS"))
	if err != nil {
		panic(err)
	}
	tell(said{os.Getpid(), ln.Addr().String()})
	wait()
}

// command stands for the front.
func command() {
	tell(said{PID: os.Getpid()})
	wait()
}

// parent is the editor: it listens itself, and starts an adapter and the
// command.
func parent() {
	ln, err := net.Listen("tcp", "[::1]:0")
	if err != nil {
		panic(err)
	}
	tell(said{os.Getpid(), ln.Addr().String()})
	for _, role := range []string{"listener", "command"} {
		cmd := inRole(role)
		cmd.Stdin, cmd.Stdout = os.Stdin, os.Stdout
		if err := cmd.Start(); err != nil {
			panic(err)
		}
		defer cmd.Wait()
	}
	wait()
}

// inRole is this binary in a role.
func inRole(role string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), roleVariable+"="+role, "KIN_TEST_ADDRESS=127.0.0.1:0")
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

// started starts cmd until the test's end and gives what it says.
func started(t *testing.T, cmd *exec.Cmd) io.Reader {
	t.Helper()
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stdin.Close(); cmd.Wait() })
	return out
}

// begin starts a role below a shell, which makes it nobody's relative, and
// gives what it and its children say.
func begin(t *testing.T, role string, sayings int) map[string]said {
	t.Helper()
	cmd := inRole(role)
	cmd.Path, cmd.Args = "/bin/sh", []string{"sh", "-c", fmt.Sprintf("/proc/%d/exe; exit", os.Getpid())}
	out := started(t, cmd)
	found := map[string]said{}
	for d := json.NewDecoder(out); len(found) < sayings; {
		var s said
		if err := d.Decode(&s); err != nil {
			t.Fatal(err)
		}
		switch {
		case s.Address == "":
			found["command"] = s
		case strings.HasPrefix(s.Address, "[::1]"):
			found["parent"] = s
		default:
			found["listener"] = s
		}
	}
	return found
}

// beginAs starts a listener with other arguments, which is a child of this
// process.
func beginAs(t *testing.T, argv []string) (s said) {
	t.Helper()
	cmd := inRole("listener")
	cmd.Args = argv
	if err := json.NewDecoder(started(t, cmd)).Decode(&s); err != nil {
		t.Fatal(err)
	}
	return s
}

func TestFamily(t *testing.T) {
	leak.Check(t)
	editor, stranger := begin(t, "parent", 3), begin(t, "listener", 1)
	adopted := beginAs(t, []string{os.Args[0], strconv.Itoa(editor["command"].PID)})
	unknown := beginAs(t, []string{os.Args[0], strconv.Itoa(1 << 30)})
	f := Of(editor["command"].PID)
	own, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	self, _, _ := strings.Cut(os.Args[0][strings.LastIndexByte(os.Args[0], '/')+1:], " ")
	for _, c := range []struct {
		name string
		who  said
		want Listener
		ok   bool
	}{
		{"the editor, on ::1", editor["parent"], Listener{self, editor["parent"].PID, true}, true},
		{"what it has started", editor["listener"], Listener{self, editor["listener"].PID, true}, true},
		{"a supervisor of what it has started", adopted, Listener{self, adopted.PID, true}, true},
		{"a supervisor whose front has ended", unknown, Listener{self, unknown.PID, false}, true},
		{"a stranger", stranger["listener"], Listener{self, stranger["listener"].PID, false}, true},
		{"this process itself", said{os.Getpid(), own.Addr().String()}, Listener{}, false},
		{"nobody", said{0, "127.0.0.1:1"}, Listener{}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			for range 2 { // the second is remembered
				if l, ok := f.Listener(netip.MustParseAddrPort(c.who.Address)); l != c.want || ok != c.ok {
					t.Errorf("got %+v, %v, want %+v, %v", l, ok, c.want, c.ok)
				}
			}
		})
	}
	t.Run("of a process that has ended", func(t *testing.T) {
		if l, ok := Of(1 << 30).Listener(netip.MustParseAddrPort(editor["listener"].Address)); !ok || l.Relative {
			t.Errorf("got %+v, %v", l, ok)
		}
	})
}
