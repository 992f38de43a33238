package rules

import (
	"slices"
	"strings"
)

// Env decides which variables of the target's process the program gets.
// Patterns are full names with * for any run of characters and ? for exactly
// one, case-sensitive.
type Env struct {
	Include []string // if not empty, only names that match one
	Exclude []string
}

// envLocal are the names that are never taken from the target: they describe
// the machine a program runs on, or steer runtimes, debuggers and loaders
// there, and the target's values break them. Sorted, for readers; the reason
// stands beside each group.
var envLocal = []struct {
	why   string
	names []string
}{
	{"names places on the machine that the program runs on", []string{
		"HOME", "HOMEPATH", "PATH", "PWD", "OLDPWD", "TMPDIR", "TMP", "TEMP", "SHELL", "USER", "LOGNAME", "XDG_*", "DBUS_*", "SSH_AUTH_SOCK", "DISPLAY", "WAYLAND_DISPLAY",
		"GOPATH", "GOMODCACHE", "GOROOT", "CLASSPATH", "CATALINA_HOME", "JAVA_EXE", "JAVA_HOME", "VIRTUAL_ENV"}},
	{"steers the loader or a runtime, with code that is not here", []string{
		"LD_*", "GCONV_PATH", "JAVA_TOOL_OPTIONS", "_JAVA_OPTIONS", "JDK_JAVA_OPTIONS", "NODE_OPTIONS", "NODE_PATH",
		"BASH_ENV", "BASH_FUNC_*", "PROMPT_COMMAND", "PERL5OPT", "PERL5LIB",
		"PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "PYDEVD_*", "DEBUGPY_*", "VSCODE_*", "LLDB_*", "XDEBUG_*", "RUBY_DEBUG_*",
		"RUBYLIB", "RUBYOPT", "GEM_HOME", "GEM_PATH", "BUNDLER_VERSION", "BUNDLER_ORIG_*", "BUNDLE_APP_CONFIG", "BUNDLE_BIN_PATH",
		"BUNDLE_FORCE_RUBY_PLATFORM", "BUNDLE_GEMFILE", "BUNDLE_GEM_PATH", "BUNDLE_PATH", "BUNDLE_WITHOUT",
		"DOTNET_EnableDiagnostics", "DOTNET_STARTUP_HOOKS"}},
	{"belongs to the terminal", []string{"TERM", "COLORTERM", "COLUMNS", "LINES", "SHLVL", "_", "NO_COLOR"}},
	{"steers mirrord itself", []string{"MIRRORD_*", "RUST_LOG", "KUBECONFIG"}},
}

// Decide says where the value of a variable that the target has comes from.
// Local means that the target's value is not taken.
func (e Env) Decide(name string) Decision {
	for _, group := range envLocal {
		for _, p := range group.names {
			if glob(p, name) {
				return Decision{Local, "always local: " + group.why}
			}
		}
	}
	if len(e.Include) > 0 {
		if i := slices.IndexFunc(e.Include, func(p string) bool { return glob(p, name) }); i >= 0 {
			return Decision{Remote, "env.include has " + e.Include[i]}
		}
		return Decision{Local, "env.include has no pattern for it"}
	}
	if i := slices.IndexFunc(e.Exclude, func(p string) bool { return glob(p, name) }); i >= 0 {
		return Decision{Local, "env.exclude has " + e.Exclude[i]}
	}
	return Decision{Remote, "default"}
}

// Merge lays the target's variables over the caller's: both are "NAME=value"
// lists, the result keeps the caller's order and adds what is new in the
// target's. Where a list has a name twice the last one counts.
func (e Env) Merge(local, remote []string) []string {
	value, order := map[string]string{}, []string{}
	set := func(kv string) {
		name, v, ok := strings.Cut(kv, "=")
		if !ok || name == "" {
			return
		}
		if _, seen := value[name]; !seen {
			order = append(order, name)
		}
		value[name] = v
	}
	for _, kv := range local {
		set(kv)
	}
	for _, kv := range remote {
		name, _, _ := strings.Cut(kv, "=")
		if e.Decide(name).Where == Remote {
			set(kv)
		}
	}
	merged := make([]string, 0, len(order))
	for _, name := range order {
		merged = append(merged, name+"="+value[name])
	}
	return merged
}

// glob matches the whole of name against a pattern with * and ?.
func glob(pattern, name string) bool {
	// The classic way back to the last star: linear for one star, and never
	// worse than the product of the lengths.
	star, mark := -1, 0
	p, n := 0, 0
	for n < len(name) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, mark = p, n
			p++
		case p < len(pattern) && (pattern[p] == '?' || pattern[p] == name[n]):
			p++
			n++
		case star >= 0:
			mark++
			p, n = star+1, mark
		default:
			return false
		}
	}
	for p < len(pattern) && pattern[p] == '*' {
		p++
	}
	return p == len(pattern)
}
