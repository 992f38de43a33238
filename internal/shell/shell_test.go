package shell

import (
	"os/exec"
	"testing"
)

func TestQuote(t *testing.T) {
	for word, want := range map[string]string{"": "''", "a-b_c./=:,@%+": "a-b_c./=:,@%+", "a b": "'a b'", "it's": `'it'\''s'`, "$x": "'$x'", "ü": "'ü'", "a\nb": "'a\nb'", "~": "'~'"} {
		if got := Quote(word); got != want {
			t.Errorf("%q: got %s, want %s", word, got, want)
		}
	}
}

// The shell reads what was meant.
func TestLine(t *testing.T) {
	argv := []string{"printf", `%s|`, "echo $x", "", "it's", "a\tb\n", `\`, "*", "-n", "ü", "#"}
	want := "echo $x||it's|a\tb\n|\\|*|-n|ü|#|"
	if got, err := exec.Command("sh", "-c", Line(argv...)).Output(); err != nil || string(got) != want {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
}
