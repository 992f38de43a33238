package cli

import (
	"strings"
	"testing"
)

// specified are the flags of mirrord's commands.
var specified = map[string]string{
	"exec": sessionOnes, "container": sessionOnes, "dump": sessionOnes + " p/ports",
	"port-forward": bareOnes + " L/ R/", "session": "k/key n/ A/ f/", "session list": "k/key n/ A/ f/", "session stop": "k/key",
	"ls": "o/ n/ f/ t/", "verify-config": "ide", "up": "f/ m/ k/ u/ context", "up init": "o/", "diagnose": "f/",
}

const (
	bareOnes = "t/target n/target-namespace f/config-file context c/accept-invalid-certificates " +
		"a/agent-namespace l/agent-log-level i/agent-image agent-ttl agent-startup-timeout e/ephemeral-container no-telemetry disable-version-check"
	sessionOnes = bareOnes + " steal fs-mode s/override-env-vars-include x/override-env-vars-exclude env-file no-remote-dns " +
		"no-outgoing no-tcp-outgoing no-udp-outgoing skip-processes k/key"
)

// TestSpecifiedFlags: each is taken, in its short and its long form.
func TestSpecifiedFlags(t *testing.T) {
	root := (&app{}).root()
	for words, flags := range specified {
		c, rest, err := root.Find(strings.Fields(words))
		if err != nil || len(rest) > 0 {
			t.Errorf("there is no command %s", words)
			continue
		}
		for f := range strings.FieldsSeq(flags) {
			short, long, both := strings.Cut(f, "/")
			if !both {
				short, long = "", f
			}
			if s := c.Flags().ShorthandLookup(short); short != "" && (s == nil || long != "" && s.Name != long) {
				t.Errorf("%s does not take -%s", words, short)
			}
			if long != "" && c.Flags().Lookup(long) == nil {
				t.Errorf("%s does not take --%s", words, long)
			}
		}
	}
}
