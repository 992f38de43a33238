package process

import (
	"fmt"
	"os"
	"slices"
	"syscall"
	"testing"

	"github.com/mirrord-go/mirrord/internal/testnet"
)

func TestMounts(t *testing.T) {
	if got, err := Mounts(os.Getpid()); len(got) > 0 || err != nil {
		t.Errorf("of a process with this one's mounts: got %q, %v, want none", got, err)
	}
	if _, err := Mounts(-1); err == nil {
		t.Error("a process that is none has mounts")
	}
}

func TestAsRootMounts(t *testing.T) {
	dir := t.TempDir()
	pid := testnet.Process(t, syscall.CLONE_NEWNS, []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"},
		fmt.Sprintf("mount --make-rprivate / && mount -t tmpfs none %s", dir))
	if got, err := Mounts(pid); !slices.Contains(got, dir) || err != nil {
		t.Errorf("got %q, %v, want %s among them", got, err, dir)
	}
}
