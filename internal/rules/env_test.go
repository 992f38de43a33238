package rules

import (
	"slices"
	"testing"
)

func TestEnvDecide(t *testing.T) {
	for _, c := range []struct {
		name string
		env  Env
		v    string
		want Where
	}{
		{"ordinary", Env{}, "COLOR", Remote},
		{"PATH", Env{}, "PATH", Local},
		{"PATH is not a prefix", Env{}, "PATHS", Remote},
		{"loader", Env{}, "LD_PRELOAD", Local},
		{"debugger", Env{}, "PYDEVD_USE_FRAME_EVAL", Local},
		{"code for every shell", Env{}, "BASH_ENV", Local},
		{"a function for every shell", Env{}, "BASH_FUNC_ls%%", Local},
		{"the name of a stage", Env{}, "ENV", Remote},
		{"node options", Env{}, "NODE_OPTIONS", Local},
		{"node environment is the target's", Env{}, "NODE_ENV", Remote},
		{"case matters", Env{}, "Path", Remote},
		{"included", Env{Include: []string{"COL*"}}, "COLOR", Remote},
		{"not included", Env{Include: []string{"COL*"}}, "SIZE", Local},
		{"include does not beat the list", Env{Include: []string{"*"}}, "HOME", Local},
		{"excluded", Env{Exclude: []string{"C?LOR"}}, "COLOR", Local},
		{"not excluded", Env{Exclude: []string{"C?LOR"}}, "CLOR", Remote},
		{"all excluded", Env{Exclude: []string{"*"}}, "COLOR", Local},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := c.env.Decide(c.v)
			if got.Where != c.want {
				t.Errorf("%s is %v (%s), want %v", c.v, got.Where, got.Why, c.want)
			}
			if got.Why == "" {
				t.Error("no reason given")
			}
		})
	}
}

func TestEnvMerge(t *testing.T) {
	local := []string{"PATH=/bin", "COLOR=red", "ONLY=here", "TWICE=1", "TWICE=2"}
	remote := []string{"COLOR=blue", "PATH=/pod", "NEW=x=y", "EMPTY=", "garbage", "=odd"}
	got := Env{}.Merge(local, remote)
	want := []string{"PATH=/bin", "COLOR=blue", "ONLY=here", "TWICE=2", "NEW=x=y", "EMPTY="}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestGlob(t *testing.T) {
	for _, c := range []struct {
		pattern, name string
		want          bool
	}{
		{"", "", true}, {"*", "", true}, {"*", "A", true}, {"?", "", false}, {"?", "A", true},
		{"A*B*C", "AxxBxxC", true}, {"A*B*C", "AxxC", false}, {"A**", "A", true}, {"*_ID", "MY_ID", true}, {"*_ID", "MY_ID2", false},
	} {
		if got := glob(c.pattern, c.name); got != c.want {
			t.Errorf("glob(%q, %q) = %v, want %v", c.pattern, c.name, got, c.want)
		}
	}
}
