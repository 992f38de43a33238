package cli

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/mirrord-go/mirrord/internal/local/control"
	"github.com/mirrord-go/mirrord/internal/local/monitor"
	"github.com/mirrord-go/mirrord/internal/local/status"
)

// state is one word, and more for a person.
func state(st *control.Status, now time.Time) string {
	switch {
	case st.PID == 0:
		return "does not answer"
	case st.Lost != nil:
		return fmt.Sprintf("link lost for %s", status.Age(now.Sub(*st.Lost)))
	case len(st.Commands) > 0:
		return "in use"
	case st.Until != nil:
		return fmt.Sprintf("idle, ends in %s", status.Age(st.Until.Sub(now)))
	}
	return "idle"
}

func listSessions(out io.Writer, all []*control.Status, now time.Time) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "ID\tTARGET\tSTATE\tCOMMANDS\tAGE")
	for _, st := range all {
		if st.PID == 0 {
			fmt.Fprintf(w, "%s\t\t%s\t\t\n", monitor.Clean(st.ID), state(st, now))
			continue
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%s\n", monitor.Clean(st.ID), monitor.Clean(status.Target(st)), state(st, now), len(st.Commands), status.Age(now.Sub(st.Since)))
	}
	return w.Flush()
}

func showSession(out io.Writer, st *control.Status, now time.Time) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	line := func(name, text string) { fmt.Fprintf(w, "%s\t%s\n", name, monitor.Clean(text)) }
	line("session", st.ID)
	line("target", status.Target(st))
	line("hostname", st.Hostname)
	line("state", state(st, now))
	line("since", st.Since.Local().Format(time.DateTime))
	line("supervisor", fmt.Sprint(st.PID))
	for _, c := range st.Commands {
		text := strings.Join(c.Argv, " ")
		if c.Background {
			text += " (has ended; processes of it run on)"
		}
		line("command", fmt.Sprintf("%s, process %d, for %s", text, c.PID, status.Age(now.Sub(c.Since))))
	}
	for _, e := range st.Events {
		line(e.At.Local().Format(time.TimeOnly), e.Text)
	}
	return w.Flush()
}
