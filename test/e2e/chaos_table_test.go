package e2e

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// reliability is the document that holds the kill matrix, for people.
const reliability = "../../docs/reliability.md"

// documented compares the matrix with the document, or writes it there.
func documented(t *testing.T) {
	t.Helper()
	const title = "## Kill matrix\n"
	b, err := os.ReadFile(reliability)
	if err != nil {
		t.Fatal(err)
	}
	text := string(b)
	begin := strings.Index(text, title)
	if begin < 0 {
		t.Fatalf("%s has no section %q", reliability, title)
	}
	end := len(text)
	if i := strings.Index(text[begin+len(title):], "\n## "); i >= 0 {
		end = begin + len(title) + i
	}
	if i := strings.Index(text[begin:end], "\n| killed |"); i >= 0 { // what stands before is the writer's
		begin += i
	} else {
		begin = end
	}
	got, want := text[begin:end], table(matrix())
	if got == want {
		return
	}
	if !*updateMatrix {
		t.Errorf("%s: the kill matrix is another one than the test's; write it with: go test ./test/e2e -run 'TestChaosKill$' -update", reliability)
		return
	}
	if err := os.WriteFile(reliability, []byte(text[:begin]+want+text[end:]), 0o644); err != nil {
		t.Fatal(err)
	}
}

// table is the matrix for people: a row for each part and way, a column for
// each phase.
func table(all []killed) string {
	var b strings.Builder
	b.WriteString("\n| killed | how |")
	for ph := range phases {
		fmt.Fprintf(&b, " %s |", ph)
	}
	b.WriteString("\n|---|---|" + strings.Repeat("---|", int(phases)) + "\n")
	last := ""
	for _, k := range all {
		name := k.name
		if name == last {
			name = ""
		}
		last = k.name
		fmt.Fprintf(&b, "| %s | %s |", name, k.how)
		for ph := range phases {
			text := k.want[ph].text
			switch {
			case !k.want[ph].none():
			case ph == stopping:
				text = "–"
			default:
				text = "not there yet"
			}
			fmt.Fprintf(&b, " %s |", text)
		}
		b.WriteString("\n")
	}
	return b.String()
}
