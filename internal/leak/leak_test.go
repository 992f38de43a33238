package leak

import (
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

func TestMain(m *testing.M) { os.Exit(Main(m)) }

// Each kind of leftover is seen while it is there, and not afterwards.
func TestSees(t *testing.T) {
	for _, c := range []struct {
		name, want string
		leave      func(t *testing.T) (end func())
	}{
		{"nothing", "", func(*testing.T) func() { return func() {} }},
		{"goroutine", "goroutine: ", func(*testing.T) func() {
			quit := make(chan struct{})
			go func() { <-quit }()
			return func() { close(quit) }
		}},
		{"descriptor", "/dev/null", func(t *testing.T) func() {
			f, err := os.Open(os.DevNull)
			if err != nil {
				t.Fatal(err)
			}
			return func() { f.Close() }
		}},
		{"process", "(sleep)", func(t *testing.T) func() {
			cmd := exec.Command("sleep", "1000")
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			// Its name is that of the test until it has become sleep.
			for !strings.Contains(strings.Join(descendants(), " "), "(sleep)") {
				time.Sleep(time.Millisecond)
			}
			return func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := look()
			end := c.leave(t)
			got := before.await(0)
			end()
			if c.want == "" && got != "" || !strings.Contains(got, c.want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
			if left := before.await(patience); left != "" {
				t.Errorf("afterwards: %s", left)
			}
		})
	}
}
