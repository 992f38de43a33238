package main

import (
	"os/exec"
	"strings"
	"testing"
)

// counting is a worker whose tasks give how many there were as "seconds", and
// fail if they name no file.
func counting(t *testing.T) *worker {
	t.Helper()
	w, err := hire(t.Context(), exec.Command("sh", "-c", `n=-1; while read -r task; do
		case $task in *nothing*) echo '{"error": "is not there"}' ;; *) n=$((n + 1)); echo "{\"values\": {\"seconds\": $n}}" ;; esac
	done`))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.close(); err != nil {
			t.Error(err)
		}
	})
	return w
}

// Rows that show figures of the same task do it once for each pair.
func TestDoes(t *testing.T) {
	task := tree{counting(t), "/mnt"}.does("open", "{root}/cold-{n}")
	whole, parts := task(in(1, "seconds")), task(perSecond(6))
	for _, c := range []struct {
		n            int
		whole, parts float64
	}{{0, 1, 6}, {1, 2, 3}, {0, 1, 6}, {2, 3, 2}} {
		if got, err := whole(t.Context(), c.n); err != nil || got != c.whole {
			t.Errorf("pair %d: got %v, %v; want %v", c.n, got, err, c.whole)
		}
		if got, err := parts(t.Context(), c.n); err != nil || got != c.parts {
			t.Errorf("pair %d, the other row: got %v, %v; want %v", c.n, got, err, c.parts)
		}
	}
}

func TestDoesWhere(t *testing.T) {
	for root, want := range map[string]string{"": "open /nothing-3 3", "/mnt": "open /mnt/nothing-3 3"} {
		_, err := tree{counting(t), root}.does("open", "{root}/nothing-{n}", "{n}")(in(1, "seconds"))(t.Context(), 3)
		if err == nil || !strings.Contains(err.Error(), want+": is not there") {
			t.Errorf("got %v, want the task %q", err, want)
		}
	}
}

func TestFigures(t *testing.T) {
	v := values{"seconds": 0.5}
	if got := megabytes(50_000_000)(v); got != 100 {
		t.Errorf("got %v MB/s, want 100", got)
	}
	if got := in(1e3, "seconds")(v); got != 500 {
		t.Errorf("got %v ms, want 500", got)
	}
	for n, want := range map[int]string{100: "100", 1000: "1,000", 20050: "20,050"} {
		if got := thousands(n); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}
