package demo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mirrord-go/mirrord/internal/failure"
	"github.com/mirrord-go/mirrord/internal/leak"
	"github.com/mirrord-go/mirrord/internal/shell"
)

// standIn plays the mirrord command without sandbox and agent: enough for the
// story to go on, with real answers for all but incoming traffic. It pretends
// to mirror, and it does not steal.
func standIn(args []string) {
	if args[0] == "demo" {
		exit(Ask(args[2:]))
	}
	pid := strings.TrimPrefix(args[2], "process/")
	args = args[3:]
	steal := args[0] == "--steal"
	if steal {
		args = args[1:]
	}
	proc := "/proc/" + pid
	switch args[0] {
	case "printenv":
		b, err := os.ReadFile(proc + "/environ")
		for v := range strings.SplitSeq(string(b), "\x00") {
			if value, ok := strings.CutPrefix(v, args[1]+"="); ok {
				fmt.Println(value)
			}
		}
		exit(err)
	case "cat":
		b, err := os.ReadFile(proc + "/root" + args[1])
		os.Stdout.Write(b)
		exit(err)
	case "getent":
		fmt.Println(dbHost.v4(), args[2]+"."+zone)
		exit(nil)
	}
	if len(args) > 1 && args[1] == "demo" {
		fmt.Println("listening on port 80")
		fmt.Fprintln(os.Stderr, "port 80: the target's traffic is mirrored")
		if !steal {
			fmt.Println("local GET /mirrored client 10.245.0.1")
		}
		time.Sleep(time.Hour) // until SIGTERM
	}
	for i := range args {
		args[i] = strings.NewReplacer("//catalog", "//"+catalogHost.v4().String(), "/db/", "/"+dbHost.v4().String()+"/").Replace(args[i])
	}
	cmd := exec.Command("nsenter", append([]string{"-t", pid, "-U", "-n", "-u", "--preserve-credentials", "--"}, args...)...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	exit(cmd.Run())
}

func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// self makes this executable the mirrord command.
func self(t *testing.T) string {
	t.Helper()
	exe, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), roleSelf)
	if err := os.WriteFile(path, exe, 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestStory(t *testing.T) {
	leak.Check(t)
	path := self(t)
	var out bytes.Buffer
	err := Run(t.Context(), &out, path, Options{})
	text := out.String()
	if f, ok := errors.AsType[*failure.Error](err); !ok || f.Code != "demo-failed" || f.Why != "1 of 11 steps failed" {
		t.Errorf("got %v, want the failure of stealing only\n%s", err, text)
	}
	for _, want := range []string{
		"addresses 10.245.0.7 and fd00:245::7, main process ",
		" printenv COLOR\n    blue\n    ✓ COLOR comes from the pod; on this machine it is not set\n",
		" uname -n\n    shop-demo-0\n    ✓ ",
		" cat /etc/app/config.yaml\n    color: blue\n    replicas: 3\n    ✓ ",
		"    client 10.245.0.7\n",
		"    demo-db ready, you are 10.245.0.7\n    ✓ ",
		path + " demo serve 80\n    listening on port 80\n    10.245.0.1 asks the pod: GET /mirrored\n    the answer: remote GET /mirrored\n" +
			"    local GET /mirrored client 10.245.0.1\n    ✓ ",
		"    the answer: remote GET /stolen\n    port 80: the target's traffic is mirrored\n    ✗ the pod answered instead of this machine\n",
		"    ✓ no process, table, rule, route or address: ",
		"10 of 11 steps are as they should be.\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the story lacks %q:\n%s", want, text)
		}
	}
	if strings.Contains(text, "\x1b") {
		t.Errorf("colours without being asked:\n%q", text)
	}
}

func TestStoryOfABrokenCommand(t *testing.T) {
	leak.Check(t)
	var out bytes.Buffer
	err := Run(t.Context(), &out, "/bin/false", Options{Colour: true})
	if f, ok := errors.AsType[*failure.Error](err); !ok || f.Why != "10 of 11 steps failed" {
		t.Errorf("got %v, want 10 failed steps\n%s", err, &out)
	}
	if got := strings.Count(out.String(), "\x1b[31m✗\x1b[0m"); got != 10 {
		t.Errorf("got %d red marks, want 10:\n%s", got, &out)
	}
}

func TestStoryInterrupted(t *testing.T) {
	leak.Check(t)
	ctx, cancel := context.WithCancel(t.Context())
	err := Run(ctx, writer(func(b []byte) {
		if bytes.Contains(b, []byte("cat /data/hello.txt")) {
			cancel()
		}
	}), self(t), Options{})
	if f, ok := errors.AsType[*failure.Error](err); !ok || f.Code != "demo-interrupted" || f.ExitCode() != exitInterrupted {
		t.Errorf("got %v, want an interruption", err)
	}
	if f, ok := errors.AsType[*failure.Error](Run(ctx, io.Discard, "/bin/false", Options{})); !ok || f.Code != "demo-interrupted" {
		t.Errorf("called off before it began: got %v, want an interruption", err)
	}
}

func TestStoryKept(t *testing.T) {
	leak.Check(t)
	ctx, cancel := context.WithCancel(t.Context())
	var out bytes.Buffer
	path := self(t)
	err := Run(ctx, writer(func(b []byte) {
		out.Write(b)
		if bytes.Contains(b, []byte("/hello\n")) { // the last line
			cancel()
		}
	}), path, Options{Keep: true})
	if f, ok := errors.AsType[*failure.Error](err); !ok || f.Code != "demo-failed" {
		t.Errorf("got %v, want the failed step", err)
	}
	for _, want := range []string{"The pod stays until Ctrl-C.", " bash\n", " --steal " + path + " demo serve 80\n", " http://10.245.0.7/hello\n"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("lacks %q:\n%s", want, &out)
		}
	}
}

// writer is a function as an io.Writer.
type writer func([]byte)

func (w writer) Write(b []byte) (int, error) {
	w(b)
	return len(b), nil
}

func TestAskWithProxy(t *testing.T) {
	for _, name := range []string{"http_proxy", "all_proxy", "ALL_PROXY"} {
		t.Setenv(name, "")
	}
	var s story
	if got, want := shell.Line(s.ask("http://x/")...), "curl --silent --show-error http://x/"; got != want {
		t.Errorf("without a proxy: got %s, want %s", got, want)
	}
	t.Setenv("http_proxy", "http://192.0.2.1:3128")
	if got, want := shell.Line(s.ask("http://x/")...), "curl --silent --show-error --noproxy '*' http://x/"; got != want {
		t.Errorf("with one: got %s, want %s", got, want)
	}
}

func TestUnconfigured(t *testing.T) {
	got := unconfigured([]string{"A=1", "MIRRORD_AGENT_TCP_STEAL_TRAFFIC=true", "MIRRORD_SUPERVISOR_LOG=/x", "XMIRRORD_=1"})
	if want := []string{"A=1", "MIRRORD_SUPERVISOR_LOG=/x", "XMIRRORD_=1"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestShown(t *testing.T) {
	path := self(t)
	if got := shown(path); got != path {
		t.Errorf("elsewhere: got %q, want %q", got, path)
	}
	t.Chdir("/")
	if got := shown(path); got != path {
		t.Errorf("from the root: got %q, want %q", got, path)
	}
	t.Chdir(filepath.Dir(path))
	if got := shown(path); got != "./mirrord" {
		t.Errorf("here: got %q, want ./mirrord", got)
	}
	t.Chdir("..")
	if got, want := shown(path), filepath.Base(filepath.Dir(path))+"/mirrord"; got != want {
		t.Errorf("below: got %q, want %q", got, want)
	}
	t.Setenv("PATH", filepath.Dir(path))
	if got := shown(path); got != "mirrord" {
		t.Errorf("in PATH: got %q, want mirrord", got)
	}
}

func TestPrograms(t *testing.T) {
	leak.Check(t)
	ctx, cancel := context.WithCancel(t.Context())
	lines := make(chan string, 4)
	done := make(chan error)
	go func() {
		done <- serve(ctx, 0, writer(func(b []byte) { lines <- string(b) }))
	}()
	var port int
	if _, err := fmt.Sscanf(<-lines, "listening on port %d\n", &port); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := ask(fmt.Sprintf("http://127.0.0.1:%d/path?x=1", port), &out); err != nil {
		t.Fatal(err)
	}
	if got, want := out.String(), "local GET /path?x=1\nserved by this machine, process "; !strings.HasPrefix(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if got, want := <-lines, "local GET /path?x=1 client 127.0.0.1\n"; got != want {
		t.Errorf("printed: got %q, want %q", got, want)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if err := ask(fmt.Sprintf("http://127.0.0.1:%d/", port), &out); err == nil {
		t.Error("it still serves")
	}

	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		c, err := l.Accept()
		if err == nil {
			database(c)
			c.Close()
		}
		done <- err
	}()
	out.Reset()
	if err := ask("tcp://"+l.Addr().String(), &out); err != nil || out.String() != "demo-db ready, you are 127.0.0.1\n" {
		t.Errorf("got %q, %v", &out, err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	out.Reset()
	if err := ask("dns:127.0.0.1", &out); err != nil || out.String() != "127.0.0.1\t127.0.0.1\n" {
		t.Errorf("got %q, %v", &out, err)
	}
	for _, args := range [][]string{nil, {"x"}, {"65536"}, {"1", "2"}} {
		if f, ok := errors.AsType[*failure.Error](Serve(args)); !ok || f.ExitCode() != failure.ExitUsage {
			t.Errorf("serve %q is no usage error", args)
		}
	}
	if f, ok := errors.AsType[*failure.Error](Ask([]string{"ftp://x"})); !ok || f.ExitCode() != failure.ExitUsage {
		t.Error("ask ftp://x is no usage error")
	}
}
