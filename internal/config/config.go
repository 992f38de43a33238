// Package config holds what a session is to be like: the resolved values of
// the command line and the environment.
//
// It is data: the command line fills it, the supervisor reads it, and its JSON
// form is what the two processes exchange. It never holds a secret.
package config

import (
	"fmt"
	"strings"

	"github.com/mirrord-go/mirrord/internal/protocol"
	"github.com/mirrord-go/mirrord/internal/rules"
)

// Config is the whole of it. The zero value is a targetless session with
// mirrord's defaults.
type Config struct {
	Target     string `json:"target,omitempty"`    // "pod/NAME[/container/C]", "process/PID"; empty: targetless
	Namespace  string `json:"namespace,omitempty"` // of the target; empty: the context's
	Context    string `json:"context,omitempty"`
	Kubeconfig string `json:"kubeconfig,omitempty"`
	Agent      Agent  `json:"agent"`
	Incoming   string `json:"incoming,omitempty"` // "mirror" (default), "steal" or "off"
}

// Agent says how the agent is to run.
type Agent struct {
	Namespace string `json:"namespace,omitempty"` // empty: the target's
	Image     string `json:"image,omitempty"`     // empty: the one of this build
}

// Modes of Config.Incoming.
const (
	Mirror = "mirror"
	Steal  = "steal"
	Off    = "off"
)

// IncomingRules are the rules that Incoming names.
func (c *Config) IncomingRules() (rules.Incoming, error) {
	r := rules.Incoming{Targetless: c.Targetless()}
	switch c.Incoming {
	case Mirror, "":
		r.Mode = protocol.ModeMirror
	case Steal:
		r.Mode = protocol.ModeSteal
	case Off:
	default:
		return r, fmt.Errorf("incoming is %q; it can be %s, %s or %s", c.Incoming, Mirror, Steal, Off)
	}
	return r, nil
}

// Targetless reports whether the session has no target.
func (c *Config) Targetless() bool { return c.Target == "" || c.Target == "targetless" }

// Process gives the process id of a target on this machine; ok is false for a
// target in a cluster.
func (c *Config) Process() (pid string, ok bool) { return strings.CutPrefix(c.Target, "process/") }
