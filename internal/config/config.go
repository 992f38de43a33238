// Package config turns a file, environment variables and flags into what a
// session is to be like.
//
// Load does that for the command line, before anything is started; the
// supervisor reads the Config that comes out, whose JSON form is what the two
// processes exchange. Load reads what its Sources give it and touches nothing
// else. It fails with a failure.Error that tells all mistakes with their place.
// One table holds every key of mirrord (table.go): its type, its variable and
// what becomes of it. A Config never holds a secret that it was not given in
// the file itself: a file of variables is only named.
package config

import (
	"fmt"
	"strings"

	"github.com/mirrord-go/mirrord/internal/debugger"
	"github.com/mirrord-go/mirrord/internal/rules"
)

// Config is the whole of it. The zero value is a targetless session with
// mirrord's defaults.
type Config struct {
	Target     string `json:"target,omitempty"`    // "pod/NAME[/container/C]", "process/PID"; empty: targetless
	Namespace  string `json:"namespace,omitempty"` // of the target; empty: the context's
	Context    string `json:"context,omitempty"`
	Kubeconfig string `json:"kubeconfig,omitempty"`
	Key        string `json:"key,omitempty"` // empty: nobody gave the session a name
	// InsecureTLS skips the check of the API server's certificate; nil: as the
	// kubeconfig says.
	InsecureTLS *bool `json:"insecure_tls,omitempty"`
	// NoProxy reaches the cluster without the proxy that the environment names.
	NoProxy bool  `json:"no_proxy,omitempty"`
	Agent   Agent `json:"agent"`

	Env   rules.EnvOptions   `json:"env"`
	Files rules.FilesOptions `json:"files"`
	// FilesCache is how long names and attributes of the target's files are
	// remembered, in seconds; nil: the default.
	FilesCache *int `json:"files_cache,omitempty"`

	Incoming rules.IncomingOptions `json:"incoming"`
	Outgoing rules.OutgoingOptions `json:"outgoing"`
	DNS      rules.DNSOptions      `json:"dns"`
	IPv6Off  bool                  `json:"ipv6_off,omitempty"`
	// Debuggers are the kinds that command lines are looked through for; nil: all.
	Debuggers []debugger.Kind `json:"debuggers,omitempty"`
	// OneReplica leaves the traffic of all pods but the target's alone.
	OneReplica bool `json:"one_replica,omitempty"`
	// HostnameLocal keeps the developer's host name.
	HostnameLocal bool `json:"hostname_local,omitempty"`
	// Container are options of an engine's run.
	Container []string `json:"container,omitempty"`
}

// Agent says how the agent is to run.
type Agent struct {
	Namespace      string `json:"namespace,omitempty"`       // empty: the target's
	Image          string `json:"image,omitempty"`           // empty: the one of this build
	PullPolicy     string `json:"pull_policy,omitempty"`     // empty: IfNotPresent
	StartupTimeout int    `json:"startup_timeout,omitempty"` // seconds; 0: the default
	ResumeWindow   int    `json:"resume_window,omitempty"`   // seconds; 0: the default
	TTL            *int   `json:"ttl,omitempty"`             // seconds without a command, of a session that is kept; nil: the default
	Ephemeral      bool   `json:"ephemeral,omitempty"`       // a container of the target's pod instead of a Job
	Pod            Pod    `json:"pod,omitzero"`
}

// IncomingRules are the rules that Incoming names.
func (c *Config) IncomingRules() (*rules.Incoming, error) {
	return rules.NewIncoming(c.Incoming, c.Targetless())
}

// IncomingOnly is c for an agent that serves others' connections and nothing else.
func (c *Config) IncomingOnly() Config {
	o := *c
	o.Files, o.DNS, o.Outgoing = rules.FilesOptions{Mode: rules.FilesLocal}, rules.DNSOptions{Local: true}, rules.OutgoingOptions{}
	return o
}

// FilesRules are the options of files that hold. Without a target, where nobody
// says otherwise, files are the developer's: the agent's own would be of no use.
func (c *Config) FilesRules() rules.FilesOptions {
	o := c.Files
	if c.Targetless() && o.Mode == "" && len(o.ReadWrite)+len(o.ReadOnly)+len(o.NotFound)+len(o.Mapping) == 0 {
		o.Mode = rules.FilesLocal
	}
	return o
}

// EnvRules are the options of variables that hold: without a target none are
// taken where nobody asks for some.
func (c *Config) EnvRules() rules.EnvOptions {
	o := c.Env
	if c.Targetless() && len(o.Include)+len(o.Exclude) == 0 {
		o.Exclude = []rules.Pattern{{Text: "*", Origin: "no target was named: the default"}}
	}
	return o
}

// Variables makes the rules of variables that hold, with the file of variables, which
// it reads.
func (c *Config) Variables(read func(name string) ([]byte, error)) (rules.Env, error) {
	o := c.EnvRules()
	var file []string
	if o.File != "" {
		text, err := read(o.File)
		if err == nil {
			file, err = rules.ParseEnvFile(o.File, text)
		}
		if err != nil { // it has changed since the configuration was read
			return rules.Env{}, fmt.Errorf("read the file of variables: %w", err)
		}
	}
	return rules.NewEnv(o, file)
}

// Targetless reports whether the session has no target.
func (c *Config) Targetless() bool { return c.Target == "" || c.Target == "targetless" }

// Process gives the process id of a target on this machine; ok is false for a
// target in a cluster.
func (c *Config) Process() (pid string, ok bool) { return strings.CutPrefix(c.Target, "process/") }
