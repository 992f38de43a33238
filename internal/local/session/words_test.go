package session

import (
	"maps"
	"testing"
	"time"

	"github.com/mirrord-go/mirrord/internal/config"
	"github.com/mirrord-go/mirrord/internal/event"
	"github.com/mirrord-go/mirrord/internal/local/activity"
	"github.com/mirrord-go/mirrord/internal/rules"
)

func TestRuns(t *testing.T) {
	for _, c := range []struct {
		name string
		cfg  config.Config
		want string
	}{
		{"targetless", config.Config{}, "running x: environment local, files local, outgoing remote, dns remote, incoming local"},
		{"default", config.Config{Target: "pod/a"}, "running x: environment remote, files read, outgoing remote, dns remote, incoming mirror"},
		{"everything else", config.Config{Target: "pod/a", Env: rules.EnvOptions{Exclude: []rules.Pattern{{Text: "*"}}}, Files: rules.FilesOptions{Mode: rules.FilesWrite},
			Outgoing: rules.OutgoingOptions{UDPLocal: true}, DNS: rules.DNSOptions{Local: true}, Incoming: rules.IncomingOptions{Mode: rules.IncomingSteal, HTTP: &rules.HTTPOptions{}}},
			"running x: environment local, files read and written, outgoing tcp remote, udp local, dns local, incoming steal where the filter matches"},
		{"nothing", config.Config{Target: "pod/a", Files: rules.FilesOptions{Mode: rules.FilesLocal}, Outgoing: rules.OutgoingOptions{TCPLocal: true, UDPLocal: true},
			Incoming: rules.IncomingOptions{Mode: rules.IncomingOff, HTTP: &rules.HTTPOptions{}}},
			"running x: environment remote, files local, outgoing local, dns remote, incoming off"},
	} {
		if got := runs([]string{"/usr/bin/x", "arg"}, &c.cfg); got != c.want {
			t.Errorf("%s:\ngot  %s\nwant %s", c.name, got, c.want)
		}
	}
}

func TestSummary(t *testing.T) {
	var s tally
	if got, _ := s.summary("pod/a", 1234*time.Millisecond, activity.Ports{}); got != "session with pod/a ended after 1.2s" {
		t.Errorf("got  %s", got)
	}
	for _, code := range []string{"outgoing-connected", "delivered", "outgoing-connected", "running"} {
		s.count(event.Event{Code: code})
	}
	want := "session with pod/a ended after 1m5s: 2 connections made, 1 mirrored, 2 stolen, 3 passed through, 4 handed back, 5 lost, 6 from before ended"
	got, facts := s.summary("pod/a", 65*time.Second, activity.Ports{Mirrored: 1, Stolen: 2, Passed: 3, Returned: 4, Lost: 5, Ended: 6})
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if want := map[string]string{"ms": "65000", "mirrored": "1", "stolen": "2", "passed_through": "3", "handed_back": "4", "lost": "5", "ended": "6"}; !maps.Equal(facts, want) {
		t.Errorf("got  %v\nwant %v", facts, want)
	}
}
