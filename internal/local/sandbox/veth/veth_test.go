package veth

import (
	"fmt"
	"net"
	"os"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/mirrord-go/mirrord/internal/leak"
	"github.com/mirrord-go/mirrord/internal/netns"
)

// What passes through the device is tested where it is used: packages sandbox
// and netstack.

func TestMain(m *testing.M) {
	if os.Getuid() != 0 {
		fmt.Fprintln(os.Stderr, "these tests make network namespaces: run them as root")
		os.Exit(1)
	}
	os.Exit(leak.Main(m))
}

// TestOpen: the thread is where it was, and has one device more, without the
// other end.
func TestOpen(t *testing.T) {
	leak.Check(t)
	err := netns.DoNew(func() error {
		before, err := os.Readlink("/proc/thread-self/ns/net")
		if err != nil {
			return err
		}
		fd, address, err := Open("tun0")
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		if after, err := os.Readlink("/proc/thread-self/ns/net"); after != before {
			t.Errorf("the thread is in %s (%v), was in %s", after, err, before)
		}
		all, err := net.Interfaces()
		if err != nil {
			return err
		}
		var names []string
		for _, i := range all {
			names = append(names, i.Name)
			if i.Name == "tun0" && (i.MTU != MTU || i.HardwareAddr.String() != address.String() || i.Flags&net.FlagUp != 0) {
				t.Errorf("got %+v, want MTU %d, address %v, down", i, MTU, address)
			}
		}
		if slices.Sort(names); !slices.Equal(names, []string{"lo", "tun0"}) {
			t.Errorf("interfaces: got %q", names)
		}
		// A name that is taken is no reason to end up elsewhere.
		if again, _, err := Open("tun0"); err == nil {
			unix.Close(again)
			t.Error("a second device of the same name was made")
		}
		if after, err := os.Readlink("/proc/thread-self/ns/net"); after != before {
			t.Errorf("after a failure the thread is in %s (%v), was in %s", after, err, before)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
