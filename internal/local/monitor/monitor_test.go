package monitor

import (
	"strings"
	"testing"

	"github.com/mirrord-go/mirrord/internal/event"
	"github.com/mirrord-go/mirrord/internal/failure"
)

func TestShow(t *testing.T) {
	events := []event.Event{
		{Level: event.Step, Code: "agent-ready", Text: "agent is ready"},
		{Level: event.Info, Code: "port-open", Text: "port 80"},
		{Level: event.Warning, Code: "odd", Text: "evil \x1b[2J\nname"},
		{Level: event.Detail, Code: "fine", Text: "detail"},
	}
	for _, c := range []struct {
		name    string
		mode    Mode
		details bool
		want    string
	}{
		{"plain", Plain, false, "mirrord: agent is ready\nmirrord: port 80\nmirrord: warning: evil �[2J�name\n"},
		{"details", Plain, true, "mirrord: agent is ready\nmirrord: port 80\nmirrord: warning: evil �[2J�name\nmirrord: detail\n"},
		{"quiet", Quiet, false, "mirrord: warning: evil �[2J�name\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out strings.Builder
			m := New(&out, c.mode, c.details)
			for _, e := range events {
				m.Show(e)
			}
			if out.String() != c.want {
				t.Errorf("got\n%swant\n%s", out.String(), c.want)
			}
		})
	}
	t.Run("json", func(t *testing.T) {
		var out strings.Builder
		m := New(&out, JSON, false)
		m.Show(events[0])
		if want := `{"level":"step","code":"agent-ready","text":"agent is ready"}` + "\n"; out.String() != want {
			t.Errorf("got %s want %s", out.String(), want)
		}
	})
	t.Run("colours end on their line", func(t *testing.T) {
		var out strings.Builder
		m := New(&out, Colour, true)
		for _, e := range events {
			m.Show(e)
		}
		for line := range strings.Lines(out.String()) {
			if !strings.HasSuffix(line, reset+"\n") {
				t.Errorf("%q does not end with a reset", line)
			}
		}
	})
}

func TestFail(t *testing.T) {
	var out strings.Builder
	New(&out, Plain, false).Fail(&failure.Error{Code: "target-not-found", What: "pod/x is not there", Why: "near names: pod/xy\npod/xz", Do: "mirrord ls"})
	want := "mirrord: pod/x is not there\n  near names: pod/xy\n  pod/xz\n  mirrord ls\n  (target-not-found, see docs/errors.md)\n"
	if out.String() != want {
		t.Errorf("got\n%swant\n%s", out.String(), want)
	}
}

func TestReport(t *testing.T) {
	type report struct {
		Path string `json:"path"`
	}
	for _, c := range []struct {
		name string
		mode Mode
		want string
	}{
		{"plain", Plain, "mirrord: head\n  a line\n  {\"path\": \"evil\uFFFD[2J\uFFFDname\"}\n"},
		{"quiet: it was asked for", Quiet, "mirrord: head\n  a line\n  {\"path\": \"evil\uFFFD[2J\uFFFDname\"}\n"},
		{"json", JSON, `{"level":"info","code":"learned","text":"head","report":{"path":"\u001b\u202e"}}` + "\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out strings.Builder
			New(&out, c.mode, false).Report("learned", "head", []string{"a line", "{\"path\": \"evil\x1b[2J\nname\"}"}, report{"\x1b\u202e"})
			if out.String() != c.want {
				t.Errorf("got\n%s\nwant\n%s", out.String(), c.want)
			}
		})
	}
}
