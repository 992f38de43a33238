package sharing

import (
	"slices"
	"strings"
	"testing"
	"time"
)

const mine, other = `{"header":{"text":"^x-user: ana$"}}`, `{"header":{"text":"^x-user: bob$"}}`

func at(minute int) time.Time { return time.Date(2026, 1, 2, 14, minute, 0, 0, time.UTC) }

func TestRefuse(t *testing.T) {
	ana := Session{Holder: "ana@laptop", Began: at(1), Filter: mine}
	whole := Session{Holder: "bob@desk", Began: at(2)}
	for _, c := range []struct {
		name   string
		s      Session
		others []Session
		want   string // empty: it can
	}{
		{"alone with a filter", ana, nil, ""},
		{"alone, whole", whole, nil, ""},
		{"another filter", Session{Filter: other}, []Session{ana}, ""},
		{"a third filter", Session{Filter: `{"path":{"text":"^/a"}}`}, []Session{ana, {Filter: other}}, ""},
		{"the same filter", Session{Holder: "bob@desk", Filter: mine}, []Session{{Filter: other}, ana}, "port 80 is held by ana@laptop since 14:01 UTC with the same filter"},
		{"the same filter of the same person", ana, []Session{ana}, "port 80 is held by ana@laptop since 14:01 UTC with the same filter"},
		{"whole beside a filter", whole, []Session{ana}, "port 80 is held by ana@laptop since 14:01 UTC, who takes some requests: it cannot be taken whole"},
		{"a filter beside whole", ana, []Session{whole}, "port 80 is held by bob@desk since 14:02 UTC, who takes all of it"},
		{"whole beside whole", Session{}, []Session{whole}, "port 80 is held by bob@desk since 14:02 UTC, who takes all of it"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := ""
			if err := Refuse(80, c.s, c.others...); err != nil {
				got = err.Error()
			}
			if got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestBeside(t *testing.T) {
	for _, c := range []struct {
		name, a, b string
		want       bool
	}{
		{"two filters", mine, other, true},
		{"the same filter", mine, mine, false},
		{"whole beside a filter", "", mine, false},
		{"a filter beside whole", mine, "", false},
		{"whole beside whole", "", "", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := Beside(c.a, c.b); got != c.want {
				t.Errorf("got %v, want %v", got, c.want)
			}
			if refused := Refuse(80, Session{Filter: c.a}, Session{Filter: c.b}) != nil; refused == c.want {
				t.Errorf("and it is refused: %v", refused)
			}
		})
	}
}

func TestTaken(t *testing.T) {
	got := Taken(80, Session{Holder: "bob\x1b@desk", Began: at(2)})
	if want := "port 80 has been taken over by bob@desk, whose session began at 14:02 UTC"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestCompare(t *testing.T) {
	first, second, third := Session{Holder: "b", Began: at(1)}, Session{Holder: "c", Began: at(1)}, Session{Holder: "a", Began: at(2)}
	list := []Session{third, second, first}
	slices.SortFunc(list, Compare)
	if !slices.Equal(list, []Session{first, second, third}) {
		t.Errorf("the order is %v", list)
	}
}

func TestNamesAreShortAndPlain(t *testing.T) {
	got := Session{Holder: "\x1b]0;x\x07ana\n" + strings.Repeat("ä", 1000), Began: at(3)}.String()
	if want := "]0;xana" + strings.Repeat("ä", maxHolder-7) + " since 14:03 UTC"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
