package vitals

import (
	"bufio"
	"io"
	"os"
	"regexp"
	"syscall"
	"testing"
)

func TestTell(t *testing.T) {
	r, w := io.Pipe()
	defer r.Close()
	Tell(w)
	if err := syscall.Kill(os.Getpid(), syscall.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	got, err := bufio.NewReader(r).ReadString('\n')
	if want := regexp.MustCompile(`^vitals: goroutines=[1-9]\d* heap=[1-9]\d* stacks=[1-9]\d*\n$`); err != nil || !want.MatchString(got) {
		t.Errorf("got %q, %v, want %v", got, err, want)
	}
}
