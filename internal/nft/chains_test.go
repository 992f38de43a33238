package nft

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/mirrord-go/mirrord/internal/netns"
	"github.com/mirrord-go/mirrord/internal/testnet"
)

// All chains are read, up to a bound, from whichever thread.
func TestChains(t *testing.T) {
	for name, n := range map[string]int{"none": 0, "more than one piece": 900, "too many": maxChains + 1000} {
		t.Run(name, func(t *testing.T) {
			var rules strings.Builder
			fmt.Fprintf(&rules, "add table inet t\n")
			for i := range n {
				fmt.Fprintf(&rules, "add chain inet t c%d\n", i)
			}
			ns, err := netns.Open(testnet.Process(t, syscall.CLONE_NEWNET, nil, "nft -f - <<'E'\n"+rules.String()+"E\n:"))
			if err != nil {
				t.Fatal(err)
			}
			defer ns.Close()
			var f *os.File
			if err := netns.Do(ns, func() (err error) { f, err = OpenFile(); return err }); err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			all, err := Chains(f)
			if many := n > maxChains; errors.Is(err, ErrManyChains) != many || !many && err != nil {
				t.Fatal(err)
			}
			if n <= maxChains && len(all) != n || n > maxChains && (len(all) < maxChains || len(all) >= n) {
				t.Errorf("%d chains of %d", len(all), n)
			}
			for i, c := range all {
				if want := fmt.Sprintf("c%d", i); c.Table != "t" || c.Name != want {
					t.Fatalf("got %+v, want %s", c, want)
				}
			}
		})
	}
}
