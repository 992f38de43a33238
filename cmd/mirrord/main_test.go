package main

import (
	"io"
	"log"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/mirrord-go/mirrord/internal/leak"
)

// TestMain is also the program that the scripts run as mirrord, and each of
// the roles that it starts itself in.
func TestMain(m *testing.M) {
	if strings.HasPrefix(filepath.Base(os.Args[0]), "mirrord-") && !strings.HasSuffix(os.Args[0], ".test") {
		main()
	}
	testscript.Main(leaks{m}, map[string]func(){"mirrord": main})
}

type leaks struct{ m *testing.M }

func (l leaks) Run() int { return leak.Main(l.m) }

// TestScripts tries the command as a user sees it, without a cluster.
func TestScripts(t *testing.T) {
	images := httptest.NewServer(team{registry.New(registry.Logger(log.New(io.Discard, "", 0)))})
	cluster := httptest.NewServer(crowd(1000))
	t.Cleanup(images.Close) // the scripts run beside each other, and end before
	t.Cleanup(cluster.Close)
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(e *testscript.Env) error {
			// The program of the target must not be ours.
			e.Setenv("HOME", e.WorkDir)
			e.Setenv("COLOR", "local")
			e.Setenv("KUBECONFIG", filepath.Join(e.WorkDir, "no-kubeconfig"))
			// The race detector makes every program that it is in last a second longer.
			e.Setenv("GORACE", "atexit_sleep_ms=0")
			e.Setenv("CLUSTER", cluster.URL)
			e.Setenv("REGISTRY", strings.TrimPrefix(images.URL, "http://"))
			for _, name := range []string{"GOCOVERDIR", "TMPDIR"} {
				e.Setenv(name, os.Getenv(name))
			}
			return nil
		},
	})
}
