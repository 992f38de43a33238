// Package status makes text of sessions and of what goes on in them, for a person:
// a table, a session in full, a line an event, and a screen of all three; and it
// knows the filter of events. It is pure: cli asks the sessions and prints.
//
// What strangers have named (paths, hosts, commands) is cleaned here, all of it:
// no line steers a terminal.
package status

import (
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/mirrord-go/mirrord/internal/local/control"
	"github.com/mirrord-go/mirrord/internal/local/monitor"
	"github.com/mirrord-go/mirrord/internal/local/waits"
)

// maxCommand is how much of a command line stands in the table, in characters.
const maxCommand = 40

// Silent is a session that does not answer.
func Silent(id string, pid int) *control.Status {
	return &control.Status{ID: id, PID: pid, Silent: true, Ports: []control.Port{}, Commands: []control.Command{}, Events: []control.Happened{}}
}

// Table gives the lines of a list of sessions, its head first.
func Table(all []*control.Status, now time.Time) []string {
	return aligned(func(row func(...string)) {
		row("ID", "TARGET", "FOR", "LINK", "MODE", "PORTS", "REQUESTS", "RECEIVED", "SENT", "LOST", "COMMAND")
		for _, st := range all {
			if st.Silent {
				row(st.ID, "", "", "does not answer", "", "", "", "", "", "", stopped(st))
				continue
			}
			in, out := st.Counts.Incoming, st.Counts.Outgoing
			row(st.ID, Target(st), Age(now.Sub(st.Since)), link(st, now), strings.Replace(st.Mode, " where the filter matches", " (filter)", 1), ports(st), fmt.Sprint(in.Requests),
				Bytes(in.Received+out.Received), Bytes(in.Sent+out.Sent), fmt.Sprint(st.Counts.Lost.Packets), command(st))
		}
	})
}

// aligned gives rows with their cells below each other.
func aligned(each func(row func(...string))) []string {
	var text strings.Builder
	w := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	each(func(cells ...string) {
		for i, c := range cells {
			cells[i] = monitor.Clean(c)
		}
		fmt.Fprintln(w, strings.Join(cells, "\t"))
	})
	_ = w.Flush() // a strings.Builder takes all
	lines := strings.Split(strings.TrimSuffix(text.String(), "\n"), "\n")
	for i, l := range lines {
		lines[i] = strings.TrimRight(l, " ")
	}
	return lines
}

// stopped says why a session does not answer.
func stopped(st *control.Status) string {
	return fmt.Sprintf("(process %d is stopped, or the machine very busy)", st.PID)
}

// Target is what a session has, for a person.
func Target(st *control.Status) string {
	target := st.Target
	if target == "" {
		target = "no target"
	}
	if st.Namespace != "" {
		target += " in " + st.Namespace
	}
	return target
}

// link is the state of the way to the agent.
func link(st *control.Status, now time.Time) string {
	switch {
	case st.Replacing:
		return "target is being replaced"
	case st.Lost != nil:
		return "lost for " + Age(now.Sub(*st.Lost))
	}
	return "ok"
}

// ports are those of a session: the program's, and the target's where it is
// another.
func ports(st *control.Status) string {
	var all []string
	for _, p := range st.Ports {
		text := fmt.Sprint(p.Port)
		switch {
		case p.Target == 0:
			text += " local"
		case p.Target != p.Port:
			text += fmt.Sprintf(" of %d", p.Target)
		}
		all = append(all, text)
	}
	for _, f := range st.Forwards {
		at := strings.Join(f.Listen, ",")
		all = append(all, at[strings.LastIndexByte(at, ':')+1:]+"→"+f.To)
	}
	if len(all) == 0 {
		return "-"
	}
	return strings.Join(slices.Compact(all), ", ")
}

// command is what runs in a session.
func command(st *control.Status) string {
	switch n := len(st.Commands); n {
	case 0:
		return "(none)"
	case 1:
		return cut(strings.Join(st.Commands[0].Argv, " "), maxCommand)
	default:
		return fmt.Sprintf("%d commands", n)
	}
}

// cut gives at most n characters of s.
func cut(s string, n int) string {
	if r := []rune(s); len(r) > n {
		return string(r[:max(0, n-1)]) + "…"
	}
	return s
}

// Brief is a session in one line.
func Brief(st *control.Status, now time.Time) string {
	return fmt.Sprintf("%s, for %s: %s", Target(st), Age(now.Sub(st.Since)), command(st))
}

// Session gives the lines that tell all of a session.
func Session(st *control.Status, now time.Time) []string {
	return aligned(func(row func(...string)) {
		row("session", st.ID)
		if st.Silent {
			row("link", "does not answer "+stopped(st))
			return
		}
		target := Target(st)
		if st.Context != "" {
			target += " (context " + st.Context + ")"
		}
		row("target", target)
		row("hostname", st.Hostname)
		if st.Replicas > 0 {
			row("replicas", several(int64(st.Replicas), "more pod", "more pods")+" whose traffic comes")
		}
		row("link", link(st, now))
		row("mode", st.Mode)
		row("since", fmt.Sprintf("%s (%s)", st.Since.Local().Format(time.DateTime), Age(now.Sub(st.Since))))
		if st.Kind == "" { // else it is the command itself
			row("supervisor", fmt.Sprint(st.PID))
		}
		for _, c := range st.Commands {
			text := fmt.Sprintf("%s, process %d, for %s", strings.Join(c.Argv, " "), c.PID, Age(now.Sub(c.Since)))
			if c.Background {
				text += " (has ended; processes of it run on)"
			}
			row("command", text)
		}
		for _, p := range st.Ports {
			row("port", port(p))
		}
		for _, f := range st.Forwards {
			row("port", strings.Join(f.Listen, ", ")+" → "+f.To)
		}
		c := st.Counts
		row("incoming", fmt.Sprintf("%s (%d open, %d reached nobody), %s, %s received, %s sent", several(c.Incoming.Connections, "connection", "connections"), c.Incoming.Open,
			c.Incoming.Refused, several(c.Incoming.Requests, "request", "requests"), Bytes(c.Incoming.Received), Bytes(c.Incoming.Sent)))
		row("outgoing", fmt.Sprintf("%s (%d open, %d refused), %s, %s sent, %s received", several(c.Outgoing.Connections, "connection", "connections"), c.Outgoing.Open,
			c.Outgoing.Refused, several(c.Outgoing.Requests, "request", "requests"), Bytes(c.Outgoing.Sent), Bytes(c.Outgoing.Received)))
		row("lookups", fmt.Sprint(c.Lookups))
		row("files", fmt.Sprintf("%d opened, %s read, %s written", c.Files.Opened, Bytes(c.Files.Read), Bytes(c.Files.Written)))
		for _, h := range c.Files.Waits {
			row("  "+h.Operation, wait(h))
		}
		row("lost", fmt.Sprintf("%s of mirrored traffic; %s not copied as a whole", several(c.Lost.Packets, "packet", "packets"), several(c.Lost.Copies, "connection", "connections")))
	})
}

// wait says how long a program has waited for an operation. Milliseconds, as all times.
func wait(h waits.Histogram) string {
	return fmt.Sprintf("%s: half within %v ms, 99 %% within %v ms, the longest %v ms", several(h.Count, "time", "times"), h.Within(0.5), h.Within(0.99), h.Longest)
}

// several is a number of things.
func several(n int64, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

func port(p control.Port) string {
	text := fmt.Sprint(p.Port)
	if p.Network == "udp" {
		text = "UDP " + text
	}
	switch verb := map[string]string{"steal": "stolen", "mirror": "mirrored"}[p.Mode]; {
	case verb == "":
		text += " is local only"
	default:
		text += fmt.Sprintf(": the target's traffic for %d is %s", p.Target, verb)
		if p.Filter != "" {
			text += " where the filter matches"
		}
	}
	if p.Published != "" {
		text += "; open here at " + p.Published
	}
	return text
}

// Age is a time as a table shows it.
func Age(d time.Duration) string {
	switch {
	case d < 2*time.Minute:
		return fmt.Sprintf("%ds", max(0, int(d.Seconds())))
	case d < 2*time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	}
	return fmt.Sprintf("%dd", int(d.Hours()/24))
}

// Bytes is a number of bytes for a person, in powers of ten.
func Bytes(n int64) string {
	if n < 1000 {
		return fmt.Sprintf("%d B", n)
	}
	f, unit := float64(n), 0
	for f >= 999.5 && unit < len("kMGTPE") {
		f /= 1000
		unit++
	}
	if f < 9.95 {
		return fmt.Sprintf("%.1f %cB", f, "kMGTPE"[unit-1])
	}
	return fmt.Sprintf("%.0f %cB", f, "kMGTPE"[unit-1])
}
