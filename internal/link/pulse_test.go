package link

import (
	"net"
	"testing"
	"time"

	"github.com/mirrord-go/mirrord/internal/leak"
)

// An end that runs answers whatever its users do, and one that does not is not
// heard.
func TestPing(t *testing.T) {
	leak.Check(t)
	a, z := net.Pipe()
	near := New(a, Local, Options{})
	defer near.Close("")
	near.Ping()
	if got := near.Heard(); got != 0 {
		t.Errorf("heard %d frames of an end that does not run", got)
	}
	far := New(z, Agent, Options{})
	defer far.Close("")
	for range 3 {
		before := near.Heard()
		near.Ping()
		for end := time.Now().Add(3 * time.Second); near.Heard() == before; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatal("an end that runs does not answer")
			}
		}
	}
}
