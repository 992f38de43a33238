package main

import (
	"context"
	"flag"
	"io"
	"log/slog"
	"reflect"
	"strings"
	"testing"
)

// A newer mirrord's options are ignored where it says so by their form, and
// end the agent where it does not.
func TestNewerOptions(t *testing.T) {
	fl := flag.NewFlagSet("", flag.ContinueOnError)
	fl.String("key", "", "")
	for _, c := range []struct{ args, kept, ignored string }{
		{"-key K=", "-key K=", ""},
		{"-key=K --key=K", "-key=K --key=K", ""},
		{"-beam=1 -key K --shine=a=b", "-key K", "beam shine"},
		{"-beam 1", "-beam 1", ""},
	} {
		kept, ignored := known(fl, strings.Fields(c.args))
		if got, want := strings.Join(kept, " "), c.kept; got != want {
			t.Errorf("%s: kept %q, want %q", c.args, got, want)
		}
		if !reflect.DeepEqual(ignored, strings.Fields(c.ignored)) && len(ignored)+len(c.ignored) > 0 {
			t.Errorf("%s: ignored %q, want %q", c.args, ignored, c.ignored)
		}
	}
	// The words by which mirrord knows an older agent.
	err := run(context.Background(), slog.New(slog.NewTextHandler(io.Discard, nil)), []string{"-beam", "1"})
	if err == nil || err.Error() != "flag provided but not defined: -beam" {
		t.Errorf("an option that must be known: %v", err)
	}
}
