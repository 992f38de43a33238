package env

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"

	"github.com/mirrord-go/mirrord/internal/budget"
	"github.com/mirrord-go/mirrord/internal/link"
	"github.com/mirrord-go/mirrord/internal/protocol"
)

// ask gives the answer to an EnvRequest over a link.
func ask(t *testing.T, environ func() ([]string, error)) (m protocol.Message) {
	synctest.Test(t, func(t *testing.T) { // fails if a goroutine is left
		a, z := net.Pipe()
		near, far := link.New(a, link.Local, link.Options{}), link.New(z, link.Agent, link.Options{})
		go func() {
			s, _, err := far.Accept(context.Background())
			if err == nil {
				err = Serve(t.Context(), s, nil, environ)
			}
			if err != nil {
				t.Error(err)
			}
		}()
		var err error
		if m, err = near.Call(t.Context(), &protocol.EnvRequest{}); err != nil {
			t.Error(err)
		}
		near.Close("")
		far.Close("")
	})
	return m
}

// Answers that nobody reads take no more than there is room for. Who asks then is
// told so, and answered again when they have been read.
func TestNobodyReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, z := net.Pipe()
		near, far := link.New(a, link.Local, link.Options{}), link.New(z, link.Agent, link.Options{})
		const large = 400 << 10 // more than the first window
		room := budget.New(2*times*large).Share(0, 3*times*large/2)
		var wg sync.WaitGroup
		wg.Go(func() {
			for {
				s, _, err := far.Accept(context.Background())
				if err != nil {
					return
				}
				wg.Go(func() {
					_ = Serve(t.Context(), s, room, func() ([]string, error) { return []string{"A=" + strings.Repeat("x", large-2)}, nil })
				})
			}
		})
		first, err := near.Open(t.Context(), link.Interactive, &protocol.EnvRequest{})
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if used := room.Used(); used < times*large {
			t.Errorf("an answer that is not read holds %d bytes, want %d", used, times*large)
		}
		m, err := near.Call(t.Context(), &protocol.EnvRequest{})
		if a, ok := m.(*protocol.Answer); !ok || a.Errno != syscall.EAGAIN {
			t.Errorf("one more is answered %T, %v, want EAGAIN", m, err)
		}
		if m, err := first.Receive(); err != nil || m.Kind() != protocol.KindEnv {
			t.Errorf("the first is answered %T, %v", m, err)
		}
		first.Close()
		synctest.Wait()
		if m, err := near.Call(t.Context(), &protocol.EnvRequest{}); err != nil || m.Kind() != protocol.KindEnv {
			t.Errorf("afterwards: %T, %v", m, err)
		}
		near.Close("")
		far.Close("")
		wg.Wait()
		if room.Used() != 0 {
			t.Errorf("%d bytes are not given back", room.Used())
		}
	})
}

func TestEnv(t *testing.T) {
	long := "LONG=" + strings.Repeat("x", 128<<10) // as long as Linux allows (MAX_ARG_STRLEN)
	got := ask(t, func() ([]string, error) {
		return []string{"B=2", "A=1=1", "EMPTY=", "", "=C:=x", "no name", "RAW=\xff\xfe", "A=again", long}, nil
	})
	want := []string{"B=2", "A=1=1", "EMPTY=", "RAW=\xff\xfe", "A=again", long}
	if m, ok := got.(*protocol.Env); !ok || !slices.Equal(m.Vars, want) {
		t.Errorf("got %.200q, want %.200q", got, want)
	}
	if m, ok := ask(t, func() ([]string, error) { return nil, nil }).(*protocol.Env); !ok || len(m.Vars) != 0 {
		t.Errorf("got %v, want an empty environment", m)
	}
}

func TestNoEnv(t *testing.T) {
	failing := func(err error) func() ([]string, error) { return func() ([]string, error) { return nil, err } }
	many := func(n, size int) func() ([]string, error) {
		return func() ([]string, error) { return slices.Repeat([]string{"A=" + strings.Repeat("x", size)}, n), nil }
	}
	for _, c := range []struct {
		name    string
		environ func() ([]string, error)
		errno   syscall.Errno
		cause   protocol.Cause
	}{
		{"process is gone", failing(&os.PathError{Op: "read", Path: "/proc/1/environ", Err: syscall.ESRCH}), syscall.ESRCH, protocol.CauseTarget},
		{"not allowed", failing(fmt.Errorf("open: %w", syscall.EACCES)), syscall.EACCES, protocol.CauseDenied},
		{"no errno", failing(errors.New("odd")), syscall.EIO, protocol.CauseTarget},
		{"too large", many(20, 64<<10), syscall.E2BIG, protocol.CauseUnsupported},
		{"too many", many(maxVars+1, 1), syscall.E2BIG, protocol.CauseUnsupported},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, ok := ask(t, c.environ).(*protocol.Answer)
			if !ok {
				t.Fatal("got an environment")
			}
			if got.Errno != c.errno || got.Cause != c.cause || got.Text == "" {
				t.Errorf("got %v, cause %d, %q, want %v, cause %d", got.Errno, got.Cause, got.Text, c.errno, c.cause)
			}
		})
	}
	// The largest that is sent can be received.
	if m, ok := ask(t, many(maxVars, 8)).(*protocol.Env); !ok || len(m.Vars) != maxVars {
		t.Error("an environment within the bounds was refused")
	}
}
