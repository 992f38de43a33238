package e2e

import (
	"path/filepath"
	"strings"
	"testing"
)

// Names that the resolvers are asked for.
var lookedUp = []string{"api", "api.shop", "four.example", "six.example", "both.example", "alias.example", "many.example", "hand", "alias", "localhost",
	"none.example", "text.example", "broken.example", "denied.example", handWorld}

// Every resolver sees the same in a session as in the pod: addresses and their
// order, all types of records, aliases, the search list, answers that do not
// fit a datagram, names that there are not and names without an address.
func TestNamesAsInThePod(t *testing.T) {
	p := handmadePod(t, families{four: true, six: true})
	newZone().serve(p)
	bin := func(name string) string { return filepath.Join(w.dir, "bin", name) }
	digs := ""
	for _, q := range []string{"both.example A", "six.example AAAA", "db.example SRV", "text.example TXT", "alias.example A", "alias.example CNAME", "-x " + handWorld,
		"four.example AAAA", "none.example A", "many.example A", "+ignore many.example A", "+bufsize=1232 many.example A", "+noedns many.example A", "+bufsize=4096 +ignore many.example A",
		"+tcp long.example TXT", "long.example TXT", "broken.example A", "denied.example A", "+search api A", "+qr +nocookie four.example A"} {
		digs += "echo '== " + q + "'; dig +time=3 +tries=1 +nocookie " + q + " | grep -v -e '^;; \\(Query time\\|WHEN\\|SERVER\\)' -e '^; <<>>' -e 'id: '\n"
	}
	for _, c := range []struct {
		name string
		argv []string
	}{
		{"glibc", append([]string{bin("lookup-glibc")}, lookedUp...)},
		{"musl", append([]string{bin("lookup-musl")}, lookedUp...)},
		{"Go", append([]string{bin("network"), "lookup", "db.example", "long.example"}, lookedUp...)},
		{"node", append([]string{"node", bin("look.js"), "db.example", "long.example"}, lookedUp...)},
		{"java", append([]string{"java", "-XX:TieredStopAtLevel=1", "-Xshare:auto", "-cp", filepath.Join(w.dir, "bin"), "Look"}, lookedUp...)},
		{"dig", []string{"sh", "-c", digs}},
	} {
		t.Run(c.name, func(t *testing.T) {
			want, got := strings.Split(p.here(c.argv...), "\n"), strings.Split(in(t, p.target(), c.argv...), "\n")
			if len(got) != len(want) {
				t.Errorf("got %d lines, want %d", len(got), len(want))
			}
			for i := range min(len(got), len(want)) {
				if got[i] != want[i] {
					t.Errorf("got  %s\nwant %s", got[i], want[i])
				}
			}
			t.Logf("%s", strings.Join(want, "\n"))
		})
	}
}
