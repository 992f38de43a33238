package session

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/mirrord-go/mirrord/internal/debugger"
)

func TestDebuggers(t *testing.T) {
	var d debuggers
	d.command(strings.Fields("python -m debugpy --connect 127.0.0.1:4000 app.py"), nil)
	d.command(strings.Fields("npm run debug"), []string{"NODE_OPTIONS=--inspect=4001"})
	for _, c := range []struct{ got, want string }{
		{d.waits(4000), "debugpy"}, {d.waits(4001), ""}, {d.listener(0, 4001), "nodeinspector"}, {d.listener(0, 4002), ""},
	} {
		if c.got != c.want {
			t.Errorf("got %q, want %q", c.got, c.want)
		}
	}
	// A process deep below has its debugger's port on its own command line.
	child := exec.Command("/bin/sh")
	child.Args = []string{"dlv", "-c", "echo; read x", "--listen=:4002"}
	in, err := child.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	defer child.Wait()
	defer in.Close()
	// Start returns in the middle of execve(2), which closes descriptors before the
	// process has its new command line.
	if _, err := out.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	if got, want := d.listener(child.Process.Pid, 4002), "delve"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	only := debuggers{kinds: []debugger.Kind{debugger.Node}}
	if got := only.listener(child.Process.Pid, 4002); got != "" {
		t.Errorf("a kind that was not asked for: %q", got)
	}
}
