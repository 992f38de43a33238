package config

import (
	"slices"
	"strings"
	"time"

	"github.com/mirrord-go/mirrord/internal/rules"
)

// Key is one key of a configuration. The table of them is what the decoder, the
// environment's variables, the notes and the documentation are made from.
type Key struct {
	Name    string // with all its sections: "feature.fs.mode"
	Type    Type
	Default string // as a person reads it; a key that does nothing is not mentioned while it has this value
	Var     string // the environment variable, "" for none
	Status  Status
	// About says what it means; for a Needless key why it is not needed, for one
	// of status Instead what a session does instead.
	About string
}

// Type is what a key takes.
type Type uint8

// Types. A list is also written as a single value.
const (
	Bool Type = iota
	Text
	Path        // of a file; ~ is the home directory
	Choice      // one of choices
	Number      // from 0 to the key's limit
	Names       // list of texts; one text may hold several with ; between
	Texts       // list of texts
	Patterns    // list of regular expressions for paths
	Addresses   // list of entries of an address filter
	Expression  // regular expression with look-around
	Condition   // an HTTP method or another plain text that must not be empty
	Conditions  // list of conditions on a request
	Negated     // one of them
	BodyMatch   // one of them, on the body
	Pairs       // object of texts
	PathMap     // object: regular expression for paths to text
	Expressions // object: regular expression with look-around to text
	Ports       // list of 1 to 65535
	PortPairs   // list of two ports each
	Quantities  // object of amounts of resources
	Tolerations // list of tolerations as in a pod's spec
	References  // list of objects with a name each
	Open        // anything
)

// String is the type as the documentation names it.
func (t Type) String() string {
	return []string{"true, false", "text", "path", "choice", "number", "texts, `;` between", "texts", "regexes", "addresses", "regex", "text", "conditions", "condition", "condition on a body",
		"object of texts", "object, regex to text", "object, regex to text", "ports", "list of port pairs", "object of amounts", "list of tolerations", "list of names", "any"}[t]
}

// Status is what becomes of a key.
type Status uint8

// Statuses.
const (
	Works    Status = iota
	Operator        // accepted; has an effect only with mirrord's Operator
	Needless        // accepted; what it is for is not needed here
	Later           // accepted; not supported yet
	Instead         // as Operator, and who wants it would be hurt by what happens instead: a warning says that
)

// flushKey takes true and false as well.
const flushKey = "agent.flush_connections"

// flush is what they mean.
func flush(yes bool) string {
	if yes {
		return "all"
	}
	return "off"
}

// choices are the values of Choice keys.
var choices = map[string][]string{
	flushKey:                  {"off", "idle", "all"},
	"agent.image_pull_policy": {"Always", "IfNotPresent", "Never"},
	"agent.security_context.app_armor_profile.type": {"RuntimeDefault", "Unconfined", "Localhost"},
	"agent.security_context.seccomp_profile.type":   {"RuntimeDefault", "Unconfined", "Localhost"},
	"feature.fs.mode":                                  {"local", "localwithoverrides", "read", "write"},
	"feature.network.incoming.mode":                    {"mirror", "steal", "off"},
	"feature.network.incoming.http_filter.other_ports": {"off", "steal", "mirror"},
	"feature.network.incoming.on_concurrent_steal":     {"abort", "continue", "override"},
	"feature.network.incoming.replicas":                {"all", "one"},
	"feature.network.incoming.tls_delivery.protocol":   {"tls", "tcp"},
	"feature.network.incoming.https_delivery.protocol": {"tls", "tcp"},
}

// limits are the largest values of Number keys that have one of their own.
var limits = map[string]int64{
	"agent.ttl":                       65535,
	"agent.max_body_buffer_size":      rules.MaxBodySize,
	"agent.max_body_buffer_timeout":   int64(rules.MaxBodyTime / time.Millisecond),
	"agent.communication_timeout":     65535,
	"agent.resume_window":             maxResumeWindow,
	"feature.fs.readonly_file_buffer": 15 << 20,
	"feature.fs.cache":                3600,

	"feature.network.incoming.lost_reply_timeout": maxResumeWindow,
	"feature.network.incoming.accept_timeout":     3600,
}

// minResumeWindow and maxResumeWindow bound agent.resume_window, in seconds: a
// lost link takes 6 to be noticed, and an agent that nobody wants any more must
// not stay for a day.
const minResumeWindow, maxResumeWindow = 10, 3600

// maxNumber is the largest value of all other Number keys.
const maxNumber = 1<<31 - 1

// Choices are the values that the key takes, for a Choice.
func (k *Key) Choices() []string { return choices[k.Name] }

// Max is the largest value of a Number.
func (k *Key) Max() int64 {
	if m, ok := limits[k.Name]; ok {
		return m
	}
	return maxNumber
}

// removed are keys of older versions of mirrord, and what is written instead.
var removed = map[string]string{
	"agent.network_interface":                 "it was removed from mirrord: the interface is found by itself; delete the key",
	"agent.passthrough_mirroring":             "it was removed from mirrord: mirroring is never in the way of the traffic; delete the key",
	"connect_tcp":                             "it was removed from mirrord; delete the key",
	"pause":                                   `it was removed from mirrord; to keep traffic from the target write "feature": {"network": {"incoming": "steal"}}`,
	"agent.pause":                             `it was removed from mirrord; to keep traffic from the target write "feature": {"network": {"incoming": "steal"}}`,
	"feature.capture_error_trace":             "it was removed from mirrord; delete the key",
	"experimental.readlink":                   "it was removed from mirrord: links always work; delete the key",
	"experimental.hook_rename":                "it was removed from mirrord: renaming always works; delete the key",
	"experimental.force_hook_connect":         "it was removed from mirrord; delete the key",
	"experimental.dns_permission_error_fatal": "it was removed from mirrord; delete the key",
}

// schema is the table in the form that the decoder asks.
type schema struct {
	keys     map[string]*Key
	children map[string][]string // names in a section, by the section's name; "" is the root
}

func newSchema() *schema {
	s := &schema{map[string]*Key{}, map[string][]string{}}
	for i := range keyTable {
		k := &keyTable[i]
		s.keys[k.Name] = k
		for name := k.Name; name != ""; {
			parent, last := "", name
			if dot := strings.LastIndexByte(name, '.'); dot >= 0 {
				parent, last = name[:dot], name[dot+1:]
			}
			if !slices.Contains(s.children[parent], last) {
				s.children[parent] = append(s.children[parent], last)
			}
			name = parent
		}
	}
	return s
}

// Keys gives the whole table, in the order of the documentation. It is a copy.
func Keys() []Key { return slices.Clone(keyTable) }

// join puts a key behind the name of its section.
func join(section, key string) string {
	if section == "" {
		return key
	}
	return section + "." + key
}

// Nearest gives the name that a person may have meant, "" if none is near.
func Nearest(written string, names []string) string {
	best, distance := "", min(max(2, len(written)/3), 4)+1
	for _, n := range names {
		if d := editDistance(strings.ToLower(written), n); d < distance {
			best, distance = n, d
		}
	}
	return best
}

// elsewhere gives the full name of a key or a section that is called so in
// another section, "" if there is none or more than one.
func (s *schema) elsewhere(last string) string {
	var found []string
	for section, names := range s.children {
		if slices.Contains(names, last) {
			found = append(found, join(section, last))
		}
	}
	if len(found) != 1 {
		return ""
	}
	return found[0]
}

// editDistance counts the letters to insert, delete, replace or swap with their
// neighbour (Damerau and Levenshtein, without crossing edits).
func editDistance(a, b string) int {
	rows := make([][]int, len(a)+1)
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
		rows[i][0] = i
	}
	for j := range rows[0] {
		rows[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			change := 1
			if a[i-1] == b[j-1] {
				change = 0
			}
			rows[i][j] = min(rows[i-1][j]+1, rows[i][j-1]+1, rows[i-1][j-1]+change)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				rows[i][j] = min(rows[i][j], rows[i-2][j-2]+1)
			}
		}
	}
	return rows[len(a)][len(b)]
}
