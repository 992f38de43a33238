package explain

import "strings"

// switches are how reasons of rules begin that name a setting and not its place,
// as those of lists and filters do.
var switches = []struct{ why, key string }{
	{"outgoing.tcp is off", "feature.network.outgoing.tcp"},
	{"outgoing.udp is off", "feature.network.outgoing.udp"},
	{"outgoing.ignore_localhost is on", "feature.network.outgoing.ignore_localhost"},
	{"no pattern of outgoing.unix_streams", "feature.network.outgoing.unix_streams"},
	{"dns is off", "feature.network.dns.enabled"},
	{"http_filter.ports does not have", "feature.network.incoming.http_filter.ports"},
	{"http_filter.other_ports is", "feature.network.incoming.http_filter.other_ports"},
	{"ignore_ports has", "feature.network.incoming.ignore_ports"},
	{"ports does not have", "feature.network.incoming.ports"},
	{"incoming is", "feature.network.incoming.mode"},
	{"env.env_file", "feature.env.env_file"},
	{"mode local", "feature.fs.mode"}, // and localwithoverrides
	{"mode read", "feature.fs.mode"},
	{"mode write", "feature.fs.mode"},
}

// Placed adds to reasons that name a setting where that is written, by places:
// a line of a file, a variable or a flag, by the setting's key. What is not
// among them is the default.
func Placed(answers []Answer, places map[string]string) []Answer {
	for i := range answers {
		a := &answers[i]
		for _, s := range switches {
			if !strings.HasPrefix(a.Why, s.why) && !strings.Contains(a.Why, "; "+s.why) { // of a path that is mapped
				continue
			}
			if place := places[s.key]; place != "" {
				a.Why += " (" + place + ")"
			} else {
				a.Why += " (default)"
			}
			break
		}
	}
	return answers
}
