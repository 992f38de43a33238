package tree

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestState(t *testing.T) {
	for text, want := range map[string]byte{
		"1 (a) S 0": 'S', "1 (odd ) Z (x) T 0": 'T', "": 'X', "1 (a) ": 'X', "garbage": 'X',
	} {
		if got := State([]byte(text)); got != want {
			t.Errorf("%q: got %c, want %c", text, got, want)
		}
	}
}

// newTree is a shell in a user namespace of its own, with a tree for it.
func newTree(t *testing.T, script string) *Tree {
	t.Helper()
	cmd := exec.Command("/bin/sh", "-c", script+"\necho ready; wait")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go cmd.Wait()
	t.Cleanup(func() { cmd.Process.Kill() })
	if _, err := out.Read(make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/user", cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	proc, err := os.Open("/proc")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { proc.Close() })
	all, err := New(proc, ns)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestEnd(t *testing.T) {
	all := newTree(t, "sleep 1000 & setsid sleep 1000 & sleep 1000 & kill -STOP $!")
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := all.Wait(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Wait of a living tree: got %v", err)
	}
	if empty, err := all.Empty(); empty || err != nil {
		t.Errorf("Empty of a living tree: got %v, %v", empty, err)
	}
	if n, err := all.Signal(unix.SIGCONT); n != 4 || err != nil {
		t.Errorf("Signal: got %d, %v; want 4 processes", n, err)
	}
	waited := make(chan error, 1)
	go func() { waited <- all.Wait(t.Context()) }()
	if err := all.End(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-waited; err != nil {
		t.Errorf("Wait: %v", err)
	}
	if empty, err := all.Empty(); !empty || err != nil {
		t.Errorf("Empty: got %v, %v", empty, err)
	}
}

// TestEndWithoutPatience: a context that has ended means SIGKILL at once.
func TestEndWithoutPatience(t *testing.T) {
	all := newTree(t, `trap "" TERM; sleep 1000 &`)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	began := time.Now()
	if err := all.End(ctx); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took > Grace/2 {
		t.Errorf("took %v, want no grace", took)
	}
}

// TestExcept: those are neither counted nor touched.
func TestExcept(t *testing.T) {
	all := newTree(t, "sleep 1000 &")
	pids, err := all.Processes()
	if err != nil || len(pids) != 2 {
		t.Fatalf("got %v, %v; want two processes", pids, err)
	}
	defer all.End(t.Context())
	defer func(e []int) { all.except = e }(all.except)
	all.except = append(all.except, pids...)
	if empty, err := all.Empty(); !empty || err != nil {
		t.Errorf("Empty: got %v, %v", empty, err)
	}
}
