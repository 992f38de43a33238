package netns

import (
	"errors"
	"os"
	"testing"
)

func id(t *testing.T) string {
	t.Helper()
	s, err := os.Readlink("/proc/thread-self/ns/net")
	if err != nil {
		t.Error(err)
	}
	return s
}

func TestDo(t *testing.T) {
	if os.Getuid() != 0 {
		t.Fatal("this test makes network namespaces: run it as root")
	}
	outside := id(t)
	var ns *os.File
	var inside string
	err := DoNew(func() (err error) {
		inside = id(t)
		ns, err = Current()
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	if inside == outside {
		t.Fatalf("DoNew ran in the namespace of the test, %s", inside)
	}
	broken := errors.New("broken")
	err = Do(ns, func() error {
		if got := id(t); got != inside {
			t.Errorf("Do ran in %s, want %s", got, inside)
		}
		return broken
	})
	if err != broken {
		t.Errorf("error of the function: got %v, want %v", err, broken)
	}
	for range 100 { // no thread of the runtime may have stayed inside
		done := make(chan string)
		go func() { done <- id(t) }()
		if got := <-done; got != outside {
			t.Fatalf("a goroutine runs in %s, want %s", got, outside)
		}
	}
	own, err := Open(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	if err := Do(own, func() error { return nil }); err != nil {
		t.Errorf("own namespace by pid: %v", err)
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	if err := Do(null, func() error { t.Error("f ran outside of any namespace"); return nil }); err == nil {
		t.Error("a file that is no namespace was entered")
	}
}
