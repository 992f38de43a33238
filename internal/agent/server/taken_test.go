package server

import (
	"strings"
	"testing"
	"time"
)

// The first port that is taken is told, whenever that happens, and no other.
func TestSaysTaken(t *testing.T) {
	passes, quit := make(chan uint16), make(chan struct{})
	defer close(quit)
	var asked []uint16
	said := make(chan string, 2)
	done := make(chan struct{})
	go func() {
		defer close(done)
		saysTaken(passes, quit, time.Millisecond, "Istio's sidecar", func(port uint16) (string, bool) {
			asked = append(asked, port)
			return "Ada", len(asked) == 3
		}, func(code, text string) { said <- code + ": " + text })
	}()
	for _, port := range []uint16{80, 81, 80} {
		passes <- port
	}
	<-done
	if got, want := <-said, "mesh-taken: port 80 is held by Ada, by nftables: behind Istio's sidecar "; !strings.HasPrefix(got, want) {
		t.Errorf("says %q, want %q ...", got, want)
	}
	if len(asked) != 3 || len(said) != 0 {
		t.Errorf("asked for %v, said %d more", asked, len(said))
	}
}

// Who is told to end does, also in a pause.
func TestSaysTakenEnds(t *testing.T) {
	passes, quit, done := make(chan uint16), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		saysTaken(passes, quit, time.Hour, "", func(uint16) (string, bool) { return "", false }, func(string, string) { t.Error("says something") })
	}()
	passes <- 80
	close(quit)
	<-done
}
