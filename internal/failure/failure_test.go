package failure

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"testing"
)

func TestWrap(t *testing.T) {
	inner := New("inner", "pod/x is not there", "kubectl get pods", "looked in %q", "ns")
	for _, c := range []struct {
		name string
		err  error
		code string
		text string
	}{
		{"plain", fs.ErrNotExist, "outer", "outer thing: file does not exist"},
		{"a failure stays", inner, "inner", `pod/x is not there: looked in "ns"`},
		{"also inside another error", fmt.Errorf("resolve: %w", inner), "inner", `pod/x is not there: looked in "ns"`},
		{"several lines become one", errors.New("one\ntwo"), "outer", "outer thing: one; two"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := Wrap(c.err, "outer", "outer thing", "do this")
			if got.Code != c.code || got.Error() != c.text {
				t.Errorf("Wrap = %s, %q; want %s, %q", got.Code, got.Error(), c.code, c.text)
			}
			if c.code == "outer" && !errors.Is(got, c.err) {
				t.Errorf("%v does not hold its cause", got)
			}
		})
	}
}

func TestFrom(t *testing.T) {
	if got := From(nil); got != nil {
		t.Errorf("From(nil) = %v", got)
	}
	if got := From(fs.ErrExist); got.Code != CodeUnexpected || !errors.Is(got, fs.ErrExist) || got.Do == "" {
		t.Errorf("From = %+v", got)
	}
}

func TestExitCode(t *testing.T) {
	if got := New("a", "b", "c", "d").ExitCode(); got != ExitFailure {
		t.Errorf("exit code %d, want %d", got, ExitFailure)
	}
	if got := Usage("a", "b", "c", "d").ExitCode(); got != ExitUsage {
		t.Errorf("exit code %d, want %d", got, ExitUsage)
	}
}

func TestJSON(t *testing.T) {
	f := Wrap(fs.ErrExist, "a", "b", "c")
	b, err := json.Marshal(f)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := string(b), `{"code":"a","what":"b","why":"file already exists","do":"c"}`; got != want {
		t.Errorf("JSON = %s, want %s", got, want)
	}
	var back Error
	if err := json.Unmarshal(b, &back); err != nil || back.Error() != f.Error() {
		t.Errorf("back = %+v, %v", back, err)
	}
}

func TestWithoutWhy(t *testing.T) {
	if got := (&Error{What: "it broke"}).Error(); got != "it broke" {
		t.Errorf("Error = %q", got)
	}
}
