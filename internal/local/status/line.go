package status

import (
	"fmt"
	"strings"
	"time"

	"github.com/mirrord-go/mirrord/internal/local/activity"
	"github.com/mirrord-go/mirrord/internal/local/monitor"
)

const (
	dim    = "\x1b[2m"
	yellow = "\x1b[33m"
	red    = "\x1b[31m"
	green  = "\x1b[32m"
	bold   = "\x1b[1m"
	plain  = "\x1b[0m"
)

// Line is an event on one line, cleaned and without colours.
func Line(e activity.Event) string {
	return monitor.Clean(fmt.Sprintf("%s  %-6s  %-10s  %s", e.At.Local().Format("15:04:05.000"), e.Session, e.Kind, text(e)))
}

// text says what happened.
func text(e activity.Event) string {
	switch e.Kind {
	case activity.Request:
		return fmt.Sprintf("%s %s → %d  %s  (%s %s)", e.Method, e.Path, e.Status, millis(e.Millis), e.Flow, peer(e))
	case activity.Connection:
		parts := []string{e.What, e.Flow, peer(e)}
		if e.What == activity.Closed {
			parts = append(parts, "after "+millis(e.Millis)+",", Bytes(e.Received)+" received,", Bytes(e.Sent)+" sent")
		}
		return failed(e, parts...)
	case activity.Lookup:
		parts := []string{e.Type, e.Name, "(" + e.Where + ")"}
		if e.Error == "" {
			parts = append(parts, "→", answers(e.Answers))
		}
		if e.Millis > 0 {
			parts = append(parts, " "+millis(e.Millis))
		}
		return failed(e, parts...)
	case activity.File:
		parts := []string{e.What, e.Path}
		if e.To != "" {
			parts = append(parts, "→", e.To)
		}
		if e.Mode != "" {
			parts = append(parts, "to "+e.Mode)
		}
		if e.Where != "" {
			parts = append(parts, "("+e.Where+")")
		}
		if e.Millis > 0 {
			parts = append(parts, " "+millis(e.Millis))
		}
		return failed(e, parts...)
	case activity.Said:
		if e.Level == "warning" || e.Level == "error" {
			return e.Level + ": " + e.Text
		}
		return e.Text
	case activity.Missed:
		return fmt.Sprintf("%d events are left out: they came faster than they could be shown", e.Count)
	}
	return e.Text
}

// failed adds what went wrong.
func failed(e activity.Event, parts ...string) string {
	if e.Error != "" {
		parts[len(parts)-1] += ":"
		parts = append(parts, e.Error)
	}
	return strings.Join(parts, " ")
}

// peer is who is at the other end.
func peer(e activity.Event) string {
	if e.Client != "" {
		text := fmt.Sprintf("%s to port %d", e.Client, e.Port)
		switch {
		case e.Mode == "mirror":
			text += ", a copy"
		case e.Mode == "":
			text += ", on this machine"
		}
		return text
	}
	text := e.Network + " " + e.Address
	if e.Name != "" {
		text += " (" + e.Name + ")"
	}
	return text + ", " + e.Where
}

func answers(all []string) string {
	if len(all) == 0 {
		return "no address"
	}
	return strings.Join(all, " ")
}

// millis is a time for a person.
func millis(ms float64) string {
	d := time.Duration(ms * float64(time.Millisecond))
	switch {
	case d >= 2*time.Minute:
		return Age(d)
	case d >= time.Second:
		return fmt.Sprintf("%.1f s", d.Seconds())
	}
	return fmt.Sprintf("%.1f ms", ms)
}

// colour is that of an event's line; empty: none.
func colour(e activity.Event) string {
	switch {
	case e.Level == "warning", e.Kind == activity.Missed, e.Kind == activity.Request && e.Status >= 400 && e.Status < 500:
		return yellow
	case e.Level == "error", e.Error != "", e.Kind == activity.Request && e.Status >= 500:
		return red
	case e.Kind == activity.Request:
		return green
	case e.What == activity.Absent, e.What == activity.Closed:
		return dim
	}
	return ""
}

// Coloured is a line in its colour.
func Coloured(e activity.Event) string {
	if c := colour(e); c != "" {
		return c + Line(e) + plain
	}
	return Line(e)
}
