package sandbox

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/mirrord-go/mirrord/internal/failure"
)

// proberRole prints a line for each ability: its step, and the code of the
// failure if there is one.
func proberRole() int {
	found, err := Probe(context.Background())
	if err != nil {
		fmt.Println("error", err)
		return 1
	}
	for _, a := range found {
		code := "yes"
		if a.Err != nil {
			code = failure.From(a.Err).Code
		}
		fmt.Println(a.Step, code)
	}
	return 0
}

func TestProbe(t *testing.T) {
	binary, err := testBinary()
	if err != nil {
		t.Fatal(err)
	}
	const user = `exec setpriv --reuid 1000 --regid 1000 --clear-groups "$0"`
	for _, c := range []struct {
		name, script string
		want         string
	}{
		{"root", `exec "$0"`, "userns yes\ntun yes\nnft yes\nfuse yes\nseccomp yes\n"},
		{"user", user, "userns yes\ntun yes\nnft yes\nfuse yes\nseccomp yes\n"},
		{"no device for packets", `mount -t tmpfs none /dev/net; ` + user, "userns yes\ntun no-tun\nnft yes\nfuse yes\nseccomp yes\n"},
		{"no device for files", `mount --bind /dev/null /dev/fuse; ` + user, "userns yes\ntun yes\nnft yes\nfuse no-fuse\nseccomp yes\n"},
		{"no namespaces", `exec setpriv --reuid 1000 --regid 1000 --clear-groups unshare -Ur sh -c 'echo 0 >/proc/sys/user/max_user_namespaces; exec "$0"' "$0"`,
			"userns no-user-namespaces\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cmd := exec.Command("sh", "-c", c.script, binary)
			cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
			cmd.Env = append(os.Environ(), roleVar+"=prober", quickExit)
			out, err := cmd.CombinedOutput()
			if err != nil || string(out) != c.want {
				t.Errorf("got %s (%v), want %s", strings.ReplaceAll(string(out), "\n", ", "), err, strings.ReplaceAll(c.want, "\n", ", "))
			}
		})
	}
}
