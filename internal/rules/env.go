package rules

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/mirrord-go/mirrord/internal/rules/expression"
)

// Env decides which variables the program gets, and what is in them. The zero
// value takes what the target has except for what is local by nature. It is
// never changed after NewEnv and may be used concurrently.
type Env struct {
	include, exclude []Pattern
	file             []string // "NAME=value", as the file of variables has them
	fileName         string
	mapping          []envMapping
	override         map[string]Pattern
	unset            []Pattern
}

type envMapping struct {
	name  expression.Expression
	from  Pattern
	value string
}

// NewEnv makes the rules that o asks for; file holds the variables of o.File
// as "NAME=value". It fails if o contradicts itself or a pattern of o.Mapping
// is no regular expression.
func NewEnv(o EnvOptions, file []string) (Env, error) {
	e := Env{include: o.Include, exclude: o.Exclude, file: file, fileName: o.File, override: o.Override, unset: o.Unset}
	if len(o.Include) > 0 && len(o.Exclude) > 0 {
		return Env{}, errors.New("variables can be included or excluded, not both")
	}
	for _, m := range o.Mapping {
		x, err := expression.Compile(m.Name.Text, false)
		if err != nil {
			return Env{}, fmt.Errorf("%s: %w", m.Name.where("env.mapping"), err)
		}
		e.mapping = append(e.mapping, envMapping{x, m.Name, m.Value})
	}
	return e, nil
}

// envGroup is variables, as patterns, and a reason that they have in common.
type envGroup struct {
	why   string
	names []string
}

// envLocal are the names that are never taken from the target: they describe
// the machine a program runs on, or steer runtimes, debuggers and loaders
// there, and the target's values break them. Sorted, for readers; the reason
// stands beside each group.
var envLocal = []envGroup{
	{"names places on the machine that the program runs on", []string{
		"HOME", "HOMEPATH", "PATH", "PWD", "OLDPWD", "TMPDIR", "TMP", "TEMP", "SHELL", "USER", "LOGNAME", "XDG_*", "DBUS_*", "SSH_AUTH_SOCK", "DISPLAY", "WAYLAND_DISPLAY",
		"GOPATH", "GOMODCACHE", "GOROOT", "CLASSPATH", "CATALINA_HOME", "JAVA_EXE", "JAVA_HOME", "VIRTUAL_ENV"}},
	{"steers the loader or a runtime, with code that is not here", []string{
		"LD_*", "GCONV_PATH", "JAVA_TOOL_OPTIONS", "_JAVA_OPTIONS", "JDK_JAVA_OPTIONS", "NODE_OPTIONS", "NODE_PATH",
		"BASH_ENV", "BASH_FUNC_*", "PROMPT_COMMAND", "PERL5OPT", "PERL5LIB", "ELECTRON_RUN_AS_NODE", "NODE_INSPECT*", "BUN_INSPECT*",
		"PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "PYDEVD_*", "DEBUGPY_*", "VSCODE_*", "LLDB_*", "XDEBUG_*", "RUBY_DEBUG_*",
		"RUBYLIB", "RUBYOPT", "GEM_HOME", "GEM_PATH", "BUNDLER_VERSION", "BUNDLER_ORIG_*", "BUNDLE_APP_CONFIG", "BUNDLE_BIN_PATH",
		"BUNDLE_FORCE_RUBY_PLATFORM", "BUNDLE_GEMFILE", "BUNDLE_GEM_PATH", "BUNDLE_PATH", "BUNDLE_WITHOUT",
		"DOTNET_EnableDiagnostics", "DOTNET_STARTUP_HOOKS", "DOTNET_DiagnosticPorts", "DOTNET_MODIFIABLE_ASSEMBLIES", "DOTNET_HOTRELOAD_*", "DOTNET_WATCH*",
		"DOTNET_ADDITIONAL_DEPS", "DOTNET_SHARED_STORE", "CORECLR_*", "COR_*", "GLIBC_TUNABLES", "LOCPATH", "OPENSSL_CONF", "OPENSSL_ENGINES", "OPENSSL_MODULES",
		"PYTHONUSERBASE", "PYTHONPYCACHEPREFIX", "PERLLIB", "PERL5DB", "PHPRC", "PHP_INI_SCAN_DIR", "LUA_INIT*", "LUA_PATH*", "LUA_CPATH*", "ERL_*FLAGS", "ERL_LIBS",
		"SHELLOPTS", "BASHOPTS", "PS4", "IFS"}},
	{"names programs and tools of the machine that the program runs on", []string{
		"EDITOR", "VISUAL", "PAGER", "BROWSER", "LESSOPEN", "LESSCLOSE", "SSH_ASKPASS", "GIT_ASKPASS", "GIT_SSH", "GIT_SSH_COMMAND", "GIT_PROXY_COMMAND", "GIT_EXTERNAL_DIFF", "GIT_EDITOR",
		"GIT_SEQUENCE_EDITOR", "GIT_PAGER", "GIT_EXEC_PATH", "GIT_TEMPLATE_DIR", "GIT_CONFIG*", "GOFLAGS", "GOENV", "GOTOOLCHAIN", "CARGO_HOME", "RUSTUP_*", "RUSTC*",
		"NPM_CONFIG_*", "npm_config_*"}},
	{"belongs to the terminal", []string{"TERM", "COLORTERM", "COLUMNS", "LINES", "SHLVL", "_", "NO_COLOR"}},
	{"steers mirrord itself", []string{"MIRRORD_*", "RUST_LOG", "KUBECONFIG"}},
}

// envLauncher are names that an editor sets for the program that it starts and
// debugs, or that a pod sets for its own: the target's are taken where this
// machine has none.
var envLauncher = envGroup{"whoever starts the program has set it, and the target's would break that", []string{"PYTHON*", "PHP_IDE_CONFIG"}}

func (g *envGroup) has(name string) bool {
	return slices.ContainsFunc(g.names, func(p string) bool { return glob(p, name) })
}

// Decide says whose value of a variable the program gets if both sides have
// one: Remote is the target's, Local the developer's machine's (its
// environment's, or what the configuration sets), NotFound that the variable
// is removed. It asks what is strongest first, so that the reason is the one
// that decided.
func (e Env) Decide(name string) Decision {
	for _, p := range e.unset {
		if strings.EqualFold(p.Text, name) {
			return Decision{NotFound, p.where("env.unset") + " removes it"}
		}
	}
	if p, ok := e.override[name]; ok {
		return Decision{Local, p.where("env.override") + " sets it"}
	}
	set := func(kv string) bool { return strings.HasPrefix(kv, name+"=") }
	if name != "" && slices.ContainsFunc(e.file, set) {
		return e.mapped(name, Decision{Local, "env.env_file " + e.fileName + " sets it"})
	}
	d := e.target(name)
	if d.Where == Remote && envLauncher.has(name) {
		return Decision{Local, envLauncher.why}
	}
	if d.Where == Remote {
		d = e.mapped(name, d)
	}
	return d
}

// OnlyMissing reports whether the target's value of a variable is taken only if
// this machine has none.
func (e Env) OnlyMissing(name string) bool {
	return envLauncher.has(name) && e.target(name).Where == Remote
}

// mapped adds to the reason that the value is replaced.
func (e Env) mapped(name string, d Decision) Decision {
	if m, ok := e.mappingOf(name); ok {
		d.Why = fmt.Sprintf("%s %q replaces its value", m.from.where("env.mapping"), m.from.Text)
	}
	return d
}

// target says whether the target's value is taken.
func (e Env) target(name string) Decision {
	for _, group := range envLocal {
		if group.has(name) {
			return Decision{Local, "always local: " + group.why}
		}
	}
	matches := func(p Pattern) bool { return glob(p.Text, name) }
	if len(e.include) > 0 {
		if i := slices.IndexFunc(e.include, matches); i >= 0 {
			return Decision{Remote, fmt.Sprintf("%s has %s", e.include[i].where("env.include"), e.include[i].Text)}
		}
		return Decision{Local, e.include[0].where("env.include") + " has no pattern for it"}
	}
	if i := slices.IndexFunc(e.exclude, matches); i >= 0 {
		return Decision{Local, fmt.Sprintf("%s has %s", e.exclude[i].where("env.exclude"), e.exclude[i].Text)}
	}
	return Decision{Remote, "default"}
}

func (e Env) mappingOf(name string) (envMapping, bool) {
	for _, m := range e.mapping {
		if yes, err := m.name.Match(name); yes && err == nil { // undecided is no
			return m, true
		}
	}
	return envMapping{}, false
}

// Merge makes the program's environment of the caller's and the target's: both
// are "NAME=value" lists, the result keeps the caller's order and adds what is
// new. In this order, the later winning: the caller's, what is taken of the
// target's, the file of variables; of the latter two the values are mapped;
// override; and unset takes away. Where a list has a name twice the last one
// counts.
func (e Env) Merge(local, remote []string) []string {
	v := variables{value: map[string]string{}}
	for _, kv := range local {
		v.set(kv)
	}
	over := variables{value: map[string]string{}}
	for _, kv := range remote {
		name, _, _ := strings.Cut(kv, "=")
		if _, here := v.value[name]; e.target(name).Where == Remote && !(here && envLauncher.has(name)) {
			over.set(kv)
		}
	}
	for _, kv := range e.file {
		over.set(kv)
	}
	for _, name := range over.order {
		value := over.value[name]
		if m, ok := e.mappingOf(name); ok {
			value = m.value
		}
		v.set(name + "=" + value)
	}
	for _, name := range slices.Sorted(maps.Keys(e.override)) {
		v.set(name + "=" + e.override[name].Text)
	}
	merged := make([]string, 0, len(v.order))
	for _, name := range v.order {
		if !slices.ContainsFunc(e.unset, func(p Pattern) bool { return strings.EqualFold(p.Text, name) }) {
			merged = append(merged, name+"="+v.value[name])
		}
	}
	return merged
}

// variables are a list of variables in the order of their first mention.
type variables struct {
	value map[string]string
	order []string
}

// set takes "NAME=value"; what has no name is dropped.
func (v *variables) set(kv string) {
	name, value, ok := strings.Cut(kv, "=")
	if !ok || name == "" {
		return
	}
	if _, seen := v.value[name]; !seen {
		v.order = append(v.order, name)
	}
	v.value[name] = value
}

// glob matches the whole of name against a pattern with * for any run of
// characters and ? for exactly one, case-sensitive.
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
