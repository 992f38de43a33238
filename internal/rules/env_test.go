package rules

import (
	"slices"
	"strings"
	"testing"
)

func patterns(texts ...string) []Pattern {
	var list []Pattern
	for _, t := range texts {
		list = append(list, Pattern{Text: t, Origin: "key in file:3"})
	}
	return list
}

func newEnv(t *testing.T, o EnvOptions, file ...string) Env {
	t.Helper()
	e, err := NewEnv(o, file)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func TestEnvDecide(t *testing.T) {
	for _, c := range []struct {
		name string
		env  EnvOptions
		v    string
		want Where
		why  string // part of the reason
	}{
		{"ordinary", EnvOptions{}, "COLOR", Remote, "default"},
		{"PATH", EnvOptions{}, "PATH", Local, "places"},
		{"PATH is not a prefix", EnvOptions{}, "PATHS", Remote, ""},
		{"loader", EnvOptions{}, "LD_PRELOAD", Local, "loader"},
		{"debugger", EnvOptions{}, "PYDEVD_USE_FRAME_EVAL", Local, ""},
		{"code for every shell", EnvOptions{}, "BASH_ENV", Local, ""},
		{"a function for every shell", EnvOptions{}, "BASH_FUNC_ls%%", Local, ""},
		{"the name of a stage", EnvOptions{}, "ENV", Remote, ""},
		{"node options", EnvOptions{}, "NODE_OPTIONS", Local, ""},
		{"node environment is the target's", EnvOptions{}, "NODE_ENV", Remote, ""},
		{"what the launcher sets", EnvOptions{}, "PYTHONUNBUFFERED", Local, "whoever starts"},
		{"what the launcher sets, excluded", EnvOptions{Exclude: patterns("PYTHON*")}, "PYTHONUNBUFFERED", Local, "key in file:3"},
		{"the stage of .NET is the target's", EnvOptions{}, "DOTNET_ENVIRONMENT", Remote, ""},
		{"case matters", EnvOptions{}, "Path", Remote, ""},
		{"included", EnvOptions{Include: patterns("COL*")}, "COLOR", Remote, "key in file:3 has COL*"},
		{"not included", EnvOptions{Include: patterns("COL*")}, "SIZE", Local, "key in file:3"},
		{"include does not beat the list", EnvOptions{Include: patterns("*")}, "HOME", Local, "always local"},
		{"excluded", EnvOptions{Exclude: patterns("C?LOR")}, "COLOR", Local, "key in file:3 has C?LOR"},
		{"excluded by a built-in pattern", EnvOptions{Exclude: []Pattern{{Text: "*"}}}, "COLOR", Local, "env.exclude has *"},
		{"not excluded", EnvOptions{Exclude: patterns("C?LOR")}, "CLOR", Remote, ""},
		{"all excluded", EnvOptions{Exclude: patterns("*")}, "COLOR", Local, ""},
		{"unset", EnvOptions{Unset: patterns("color")}, "COLOR", NotFound, "key in file:3 removes"},
		{"unset beats override", EnvOptions{Unset: patterns("COLOR"), Override: map[string]Pattern{"COLOR": {Text: "x"}}}, "COLOR", NotFound, ""},
		{"unset is no pattern", EnvOptions{Unset: patterns("COL*")}, "COLOR", Remote, ""},
		{"override", EnvOptions{Override: map[string]Pattern{"COLOR": {Text: "x"}}}, "COLOR", Local, "env.override"},
		{"override of what is always local", EnvOptions{Override: map[string]Pattern{"PATH": {Text: "x"}}}, "PATH", Local, "env.override"},
		{"mapped", EnvOptions{Mapping: []EnvMapping{{Name: patterns("OL")[0], Value: "x"}}}, "COLOR", Remote, `key in file:3 "OL" replaces`},
		{"what is local is not mapped", EnvOptions{Mapping: []EnvMapping{{Name: patterns("PATH")[0], Value: "x"}}}, "PATH", Local, "always local"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := newEnv(t, c.env).Decide(c.v)
			if got.Where != c.want {
				t.Errorf("%s is %v (%s), want %v", c.v, got.Where, got.Why, c.want)
			}
			if got.Why == "" || !strings.Contains(got.Why, c.why) {
				t.Errorf("the reason is %q, want one with %q", got.Why, c.why)
			}
		})
	}
	e := newEnv(t, EnvOptions{File: "/w/.env"}, "COLOR=x")
	if got := e.Decide("COLOR"); got.Where != Local || !strings.Contains(got.Why, "/w/.env") {
		t.Errorf("a variable of the file is %v (%s)", got.Where, got.Why)
	}
}

// TestDebuggersVariables: what a debugger sets on this machine reaches the
// program whatever the target has.
func TestDebuggersVariables(t *testing.T) {
	names := strings.Fields(`NODE_OPTIONS VSCODE_INSPECTOR_OPTIONS NODE_INSPECTOR_INFO PYTHONPATH PYTHONUNBUFFERED PYTHONIOENCODING PYTHONBREAKPOINT
		PYDEVD_LOAD_VALUES_ASYNC PYDEVD_USE_FRAME_EVAL DEBUGPY_ADAPTER_ENDPOINTS DEBUGPY_LAUNCHER_PORT JAVA_TOOL_OPTIONS
		JDK_JAVA_OPTIONS RUBYOPT RUBY_DEBUG_SOCK_PATH RUBY_DEBUG_PORT XDEBUG_CONFIG XDEBUG_SESSION XDEBUG_MODE PHP_IDE_CONFIG DOTNET_STARTUP_HOOKS
		DOTNET_DiagnosticPorts DOTNET_MODIFIABLE_ASSEMBLIES LLDB_DEBUGSERVER_PATH LLDB_LAUNCH_FLAG_USE_TTY TMPDIR XDG_RUNTIME_DIR ELECTRON_RUN_AS_NODE
		BUN_INSPECT_NOTIFY`)
	var local, remote []string
	for _, n := range names {
		local, remote = append(local, n+"=launcher"), append(remote, n+"=pod")
	}
	e := newEnv(t, EnvOptions{})
	if got := e.Merge(local, remote); !slices.Equal(got, local) {
		t.Errorf("got %q, want %q", got, local)
	}
	for _, n := range names {
		if d := e.Decide(n); d.Where != Local {
			t.Errorf("%s is %v: %s", n, d.Where, d.Why)
		}
	}
	if got, want := e.Merge(nil, []string{"PYTHONUNBUFFERED=1", "PYTHONPATH=/app"}), []string{"PYTHONUNBUFFERED=1"}; !slices.Equal(got, want) {
		t.Errorf("what no launcher has set: got %q, want %q", got, want)
	}
}

// TestNothingIsLoaded: a target names no code that the program, or one that it
// starts, loads, and no program that is started here; what an application is told
// passes.
func TestNothingIsLoaded(t *testing.T) {
	e := newEnv(t, EnvOptions{})
	for _, n := range strings.Fields(`LD_PRELOAD LD_AUDIT GLIBC_TUNABLES GCONV_PATH LOCPATH OPENSSL_CONF OPENSSL_MODULES BASH_ENV BASH_FUNC_ls%% SHELLOPTS PS4 IFS
		PYTHONPATH PYTHONUSERBASE PYTHONPYCACHEPREFIX PERL5LIB PERLLIB PERL5DB RUBYOPT NODE_OPTIONS PHPRC PHP_INI_SCAN_DIR LUA_INIT_5_4 LUA_CPATH ERL_AFLAGS
		DOTNET_STARTUP_HOOKS DOTNET_ADDITIONAL_DEPS CORECLR_PROFILER_PATH JAVA_TOOL_OPTIONS GIT_SSH_COMMAND GIT_CONFIG_COUNT GIT_CONFIG_VALUE_0 GIT_EXEC_PATH
		EDITOR PAGER LESSOPEN SSH_ASKPASS GOFLAGS GOTOOLCHAIN RUSTC_WRAPPER CARGO_HOME npm_config_script_shell`) {
		if got := e.Merge(nil, []string{n + "=/srv/evil"}); len(got) > 0 {
			t.Errorf("the program gets %q of the target's", got)
		}
		if d := e.Decide(n); d.Where != Local {
			t.Errorf("%s is %v: %s", n, d.Where, d.Why)
		}
	}
	app := []string{"ENV=production", "GIT_COMMIT=abc", "OPENSSL_VERSION=3", "LUA=5.4", "PHP_VERSION=8", "CARGO_NAME=x", "GO_ENV=x", "PERL=5", "JAVA_OPTS=-Xmx1g", "COR=1"}
	if got := e.Merge(nil, app); !slices.Equal(got, app) {
		t.Errorf("got %q, want all of %q", got, app)
	}
}

func TestEnvMerge(t *testing.T) {
	local := []string{"PATH=/bin", "COLOR=red", "ONLY=here", "TWICE=1", "TWICE=2"}
	remote := []string{"COLOR=blue", "PATH=/pod", "NEW=x=y", "EMPTY=", "garbage", "=odd"}
	for _, c := range []struct {
		name string
		env  EnvOptions
		file []string
		want []string
	}{
		{"default", EnvOptions{}, nil, []string{"PATH=/bin", "COLOR=blue", "ONLY=here", "TWICE=2", "NEW=x=y", "EMPTY="}},
		{"nothing remote", EnvOptions{Exclude: patterns("*")}, nil, []string{"PATH=/bin", "COLOR=red", "ONLY=here", "TWICE=2"}},
		{"the file beats the target and the defaults", EnvOptions{Exclude: patterns("*")}, []string{"COLOR=green", "PATH=/file", "MORE=1"},
			[]string{"PATH=/file", "COLOR=green", "ONLY=here", "TWICE=2", "MORE=1"}},
		{"the first mapping counts", EnvOptions{Mapping: []EnvMapping{{Pattern{Text: "^NE"}, "a"}, {Pattern{Text: "NEW|FILE|ONLY|TH$"}, "b"}}}, []string{"FILE=1"},
			[]string{"PATH=/bin", "COLOR=blue", "ONLY=here", "TWICE=2", "NEW=a", "EMPTY=", "FILE=b"}},
		{"a mapping that looks around, literal value", EnvOptions{Mapping: []EnvMapping{{Pattern{Text: "^(?!NEW)(.)"}, "$1"}}}, nil,
			[]string{"PATH=/bin", "COLOR=$1", "ONLY=here", "TWICE=2", "NEW=x=y", "EMPTY=$1"}},
		{"override beats mapping and file", EnvOptions{Mapping: []EnvMapping{{Pattern{Text: "COLOR"}, "a"}}, Override: map[string]Pattern{"COLOR": {Text: "o"}, "A": {Text: "="}, "PATH": {Text: "/o"}}},
			[]string{"COLOR=f"}, []string{"PATH=/o", "COLOR=o", "ONLY=here", "TWICE=2", "NEW=x=y", "EMPTY=", "A=="}},
		{"unset takes from all, whatever the case", EnvOptions{Unset: patterns("only", "New", "A"), Override: map[string]Pattern{"a": {Text: "1"}}}, nil,
			[]string{"PATH=/bin", "COLOR=blue", "TWICE=2", "EMPTY="}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := newEnv(t, c.env, c.file...).Merge(local, remote)
			if !slices.Equal(got, c.want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestNewEnvRefuses(t *testing.T) {
	if _, err := NewEnv(EnvOptions{Include: patterns("a"), Exclude: patterns("b")}, nil); err == nil {
		t.Error("include together with exclude was accepted")
	}
	_, err := NewEnv(EnvOptions{Mapping: []EnvMapping{{Name: patterns("(")[0]}}}, nil)
	if err == nil || !strings.Contains(err.Error(), "key in file:3") {
		t.Errorf("a broken expression: %v", err)
	}
}

func TestParseEnvFile(t *testing.T) {
	for _, c := range []struct {
		name, text string
		want       []string
		err        string
	}{
		{"empty", "", []string{}, ""},
		{"usual", "# comment\nB=2\nexport A=\"x y\"\r\nC='$B' # tail\nD=${B}3\nE=\n", []string{"A=x y", "B=2", "C=$B", "D=23", "E="}, ""},
		{"several lines", "A=\"1\n2\"\nB=3", []string{"A=1\n2", "B=3"}, ""},
		{"no value", "A=1\n\nSECRET\nB=2\n", nil, ".env:3: a variable is written"},
		{"no value at the end", "A=1\r\n\r\nSECRET\n\n", nil, ".env:3: a variable is written"},
		{"odd name", "A=1\nSEC-RET=2\n", nil, ".env:2: a variable is written"},
		{"open quote", "A=1\nSECRET=\"2\nB=3\n", nil, ".env:2: a quoted value does not end"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := ParseEnvFile(".env", []byte(c.text))
			if c.err != "" {
				if err == nil || !strings.HasPrefix(err.Error(), c.err) || strings.Contains(err.Error(), "SEC") {
					t.Errorf("got error %v, want %q", err, c.err)
				}
				return
			}
			if err != nil || !slices.Equal(got, c.want) {
				t.Errorf("got %q, %v, want %q", got, err, c.want)
			}
		})
	}
}

func FuzzParseEnvFile(f *testing.F) {
	for _, s := range []string{"A=1\n", "export A='x", "A=\"\\", "é=1", "\x00=", "A: b", "=\n", "A=$B${"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		list, err := ParseEnvFile(".env", []byte(s))
		for _, kv := range list {
			if err != nil || strings.Index(kv, "=") < 1 {
				t.Errorf("%q gives %q", s, kv)
			}
		}
	})
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
