package config

import (
	"fmt"
	"regexp"
	"strings"
)

// Flag is a flag of the command line. It stands for environment variables,
// which it beats: so the table of keys serves both.
type Flag struct {
	Name  string
	Short string // one letter, or ""
	// Var is the variable that the flag's value is for; a flag that takes no value
	// has the variables and their values in Sets instead: "NAME=value".
	Var  string
	Sets []string
	// Form makes the variable's value of the flag's; nil: they are the same.
	Form func(string) (string, error)
	// Alone is the value of a flag that may stand alone; "" if it may not.
	Alone string
	// Equals: a value is only what follows "=".
	Equals bool
	// Hidden flags are there for those who come from mirrord, and for old names.
	Hidden bool
	About  string
}

// configFile is the variable that names the file.
const configFile = "MIRRORD_CONFIG_FILE"

// flagTable holds mirrord's flags.
var flagTable = []Flag{
	{Name: "target", Short: "t", Var: "MIRRORD_IMPERSONATED_TARGET", About: "what to run in the context of: KIND/NAME[/container/C], process/PID"},
	{Name: "target-namespace", Short: "n", Var: "MIRRORD_TARGET_NAMESPACE", About: "namespace of the target (default: the context's)"},
	{Name: "namespace", Var: "MIRRORD_TARGET_NAMESPACE", Hidden: true, About: "the same as --target-namespace"},
	{Name: "config-file", Short: "f", Var: configFile, Alone: "./.mirrord/mirrord.json", About: "configuration file; - for stdin (default: .mirrord/mirrord.{json,yaml,toml} if there is one)"},
	{Name: "context", Var: "MIRRORD_KUBE_CONTEXT", About: "kubeconfig context to use"},
	{Name: "kubeconfig", Var: "MIRRORD_KUBECONFIG", About: "kubeconfig file (default: as kubectl finds it)"},
	{Name: "accept-invalid-certificates", Short: "c", Var: "MIRRORD_ACCEPT_INVALID_CERTIFICATES", Alone: "true", Equals: true, About: "do not check the API server's certificate; =true or =false"},
	{Name: "steal", Sets: []string{"MIRRORD_AGENT_TCP_STEAL_TRAFFIC=true"}, About: "take the target's traffic instead of a copy of it"},
	{Name: "header", Var: "MIRRORD_HTTP_HEADER_FILTER", Form: headerFilter, About: "only HTTP requests with this header: 'NAME: VALUE', or NAME for any value"},
	{Name: "path", Var: "MIRRORD_HTTP_PATH_FILTER", Form: pathFilter, About: "only HTTP requests for this path and what is below it"},
	{Name: "method", Var: "MIRRORD_HTTP_METHOD_FILTER", About: "only HTTP requests with this method"},
	{Name: "host", Var: "MIRRORD_HTTP_HOST_FILTER", Form: hostFilter, About: "only HTTP requests for this host, at any port or at the one named"},
	{Name: "fs-mode", Var: "MIRRORD_FILE_MODE", About: "files: read (default), write, local, local-with-overrides"},
	{Name: "override-env-vars-include", Short: "s", Var: "MIRRORD_OVERRIDE_ENV_VARS_INCLUDE", About: "take only these variables of the target: A;B*"},
	{Name: "override-env-vars-exclude", Short: "x", Var: "MIRRORD_OVERRIDE_ENV_VARS_EXCLUDE", About: "take all but these variables of the target: A;B*"},
	{Name: "env-file", Var: "MIRRORD_OVERRIDE_ENV_VARS_FILE", About: "file of variables (dotenv) that beat the target's"},
	{Name: "no-remote-dns", Sets: []string{"MIRRORD_REMOTE_DNS=false"}, About: "names resolve on this machine"},
	{Name: "no-outgoing", Sets: []string{"MIRRORD_TCP_OUTGOING=false", "MIRRORD_UDP_OUTGOING=false"}, About: "connections leave from this machine"},
	{Name: "no-tcp-outgoing", Sets: []string{"MIRRORD_TCP_OUTGOING=false"}, About: "TCP connections leave from this machine"},
	{Name: "no-udp-outgoing", Sets: []string{"MIRRORD_UDP_OUTGOING=false"}, About: "UDP leaves from this machine"},
	{Name: "agent-namespace", Short: "a", Var: "MIRRORD_AGENT_NAMESPACE", About: "namespace to run the agent in (default: the target's)"},
	{Name: "agent-image", Short: "i", Var: "MIRRORD_AGENT_IMAGE", About: "image of the agent (default: this build's)"},
	{Name: "ephemeral-container", Short: "e", Sets: []string{"MIRRORD_EPHEMERAL_CONTAINER=true"}, About: "run the agent in the target's pod: for clusters that allow no other"},
	{Name: "agent-startup-timeout", Var: "MIRRORD_AGENT_STARTUP_TIMEOUT", About: "seconds to wait for the agent"},
	{Name: "agent-ttl", Var: "MIRRORD_AGENT_TTL", About: "seconds that a session is kept without a command (session start; default: 3600, 0: for ever)"},
	{Name: "agent-resume-window", Var: "MIRRORD_AGENT_RESUME_WINDOW", About: "seconds that a lost link may take to come back (default: 90)"},
	{Name: "key", Short: "k", Var: "MIRRORD_KEY", About: "name of the session, for {{ key }} in the configuration"},
	{Name: "agent-log-level", Short: "l", Var: "MIRRORD_AGENT_RUST_LOG", Hidden: true, About: "not supported yet"},
	{Name: "skip-processes", Var: "MIRRORD_SKIP_PROCESSES", Hidden: true, About: "not needed: the whole process tree is in the session, by namespaces"},
	{Name: "no-telemetry", Sets: []string{"MIRRORD_TELEMETRY=false"}, Hidden: true, About: "there is no telemetry"},
	{Name: "disable-version-check", Sets: []string{"MIRRORD_CHECK_VERSION=false"}, Hidden: true, About: "there is no version check"},
}

// Flags gives the flags of the commands that run a session, as a copy.
func Flags() []Flag { return append([]Flag(nil), flagTable...) }

// Setting is the value of an environment variable that a flag gave.
type Setting struct {
	Value string
	Flag  string // its name, without dashes
}

// Set puts into settings what the flag says when it is given with value; for a
// flag that takes none value is not looked at. The error says what is wrong with
// the value, and nothing is set.
func (f *Flag) Set(settings map[string]Setting, value string) (err error) {
	if f.Form != nil && value != "" {
		if value, err = f.Form(value); err != nil {
			return err
		}
	}
	if f.Var != "" {
		settings[f.Var] = Setting{value, f.Name}
	}
	for _, kv := range f.Sets {
		name, value, _ := strings.Cut(kv, "=")
		settings[name] = Setting{value, f.Name}
	}
	return nil
}

// headerFilter is the expression for a header as it stands in a request, whatever
// the case.
func headerFilter(header string) (string, error) {
	name, value, valued := strings.Cut(header, ":")
	if name == "" || strings.ContainsFunc(name, func(r rune) bool { return !strings.ContainsRune(token, r) }) {
		return "", fmt.Errorf("it takes 'NAME: VALUE' or NAME, and %q is no name of a header", name)
	}
	exp := "^" + regexp.QuoteMeta(name) + ": "
	if valued {
		exp += regexp.QuoteMeta(strings.TrimSpace(value)) + "$"
	}
	return exp, nil
}

// token is what names of headers are made of (RFC 9110, 5.6.2).
const token = "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"

// hostFilter is the expression for a host, with or without a port.
func hostFilter(host string) (string, error) {
	if strings.ContainsAny(host, "/?#@ ") {
		return "", fmt.Errorf("it takes a host as requests name it: shop.example or shop.example:8080; patterns are for feature.network.incoming.http_filter")
	}
	return "^" + regexp.QuoteMeta(host) + "$", nil
}

// pathFilter is the expression for a path and all below it.
func pathFilter(path string) (string, error) {
	if !strings.HasPrefix(path, "/") || strings.ContainsAny(path, "?# ") {
		return "", fmt.Errorf("it takes a path, which begins with / and has no query; patterns are for feature.network.incoming.http_filter")
	}
	exp := "^" + regexp.QuoteMeta(path)
	if !strings.HasSuffix(path, "/") {
		exp += "(/|\\?|$)"
	}
	return exp, nil
}
