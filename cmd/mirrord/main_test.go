package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

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
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(e *testscript.Env) error {
			// The program of the target must not be ours.
			e.Setenv("HOME", e.WorkDir)
			e.Setenv("COLOR", "local")
			e.Setenv("KUBECONFIG", filepath.Join(e.WorkDir, "no-kubeconfig"))
			for _, name := range []string{"GOCOVERDIR", "TMPDIR"} {
				e.Setenv(name, os.Getenv(name))
			}
			return nil
		},
	})
}
