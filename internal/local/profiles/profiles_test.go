package profiles

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mirrord-go/mirrord/internal/leak"
)

func TestMain(m *testing.M) { os.Exit(leak.Main(m)) }

func get(t *testing.T, url string) string {
	t.Helper()
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 5 * time.Second}
	r, err := c.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%d %s", r.StatusCode, strings.TrimSpace(string(b)))
}

func TestServe(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	s, err := Serve(ctx, "secret", map[string]Source{
		"agent": func(_ context.Context, kind string, d time.Duration) ([]byte, error) {
			return fmt.Append(nil, kind, " ", d), nil
		},
		"busy": func(context.Context, string, time.Duration) ([]byte, error) { return nil, syscall.EBUSY },
		"supervisor": func(context.Context, string, time.Duration) ([]byte, error) {
			return nil, errors.New("the link is lost")
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	defer cancel()
	for _, c := range []struct{ path, want string }{
		{"/secret/agent/debug/pprof/heap", "200 heap 30s"},
		{"/secret/agent/debug/pprof/profile?seconds=5", "200 profile 5s"},
		{"/secret/agent/debug/pprof/profile?seconds=120", "200 profile 2m0s"},
		{"/secret/agent/debug/pprof/profile?seconds=121", "400 seconds are from 1 to 120"},
		{"/secret/agent/debug/pprof/profile?seconds=0", "400 seconds are from 1 to 120"},
		{"/secret/agent/debug/pprof/profile?seconds=x", "400 seconds are from 1 to 120"},
		{"/secret/agent/debug/pprof/profile?seconds=9223372036854775807", "400 seconds are from 1 to 120"},
		{"/secret/busy/debug/pprof/profile", "409 device or resource busy"},
		{"/secret/supervisor/debug/pprof/heap", "502 the link is lost"},
		{"/secret/nobody/debug/pprof/heap", "404 404 page not found"},
		{"/secret/agent/debug/pprof/cmdline", "404 404 page not found"},
		{"/secret/agent/debug/pprof/", "404 404 page not found"},
		{"/secret/agent/heap", "404 404 page not found"},
		{"/secre/agent/debug/pprof/heap", "404 404 page not found"},
		{"/secret2/agent/debug/pprof/heap", "404 404 page not found"},
		{"//agent/debug/pprof/heap", "404 404 page not found"},
		{"/", "404 404 page not found"},
	} {
		if got := get(t, fmt.Sprintf("http://127.0.0.1:%d%s", s.Port(), c.path)); got != c.want {
			t.Errorf("%s: %s, want %s", c.path, got, c.want)
		}
	}
	if got := get(t, URL(s.Port(), "secret", "agent", "allocs")); got != "200 allocs 30s" {
		t.Error(got)
	}
}

// What is under way ends with the session.
func TestEnd(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	asked := make(chan struct{})
	s, err := Serve(ctx, "secret", map[string]Source{"agent": func(ctx context.Context, _ string, _ time.Duration) ([]byte, error) {
		close(asked)
		<-ctx.Done()
		return nil, ctx.Err()
	}})
	if err != nil {
		t.Fatal(err)
	}
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
		if r, err := c.Get(URL(s.Port(), "secret", "agent", "profile")); err == nil {
			r.Body.Close()
		}
	}()
	<-asked
	cancel()
	s.Close()
	select {
	case <-answered:
	case <-time.After(5 * time.Second):
		t.Error("the client still waits")
	}
}
