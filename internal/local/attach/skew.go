package attach

import (
	"fmt"
	"slices"
	"strings"

	"github.com/mirrord-go/mirrord/internal/event"
	"github.com/mirrord-go/mirrord/internal/failure"
	"github.com/mirrord-go/mirrord/internal/link/seal"
	"github.com/mirrord-go/mirrord/internal/protocol"
	"github.com/mirrord-go/mirrord/internal/rules"
)

// Which of two ends of different releases is to be updated.
const (
	updateAgent   = "agent"
	updateMirrord = "mirrord"
)

func which(agentOlder bool) string {
	if agentOlder {
		return updateAgent
	}
	return updateMirrord
}

// understands looks whether this mirrord and an agent have a common language,
// before anything is said in it, and tells which of its options the agent does
// not know.
func (h *Hold) understands(agent Agent) error {
	a := agent.Announced()
	if a.Link != seal.Version {
		return h.otherVersion(agent, which(a.Link < seal.Version), fmt.Sprintf("the agent (%s) has link version %d, this mirrord (%s) %d", a.Software, a.Link, h.o.Version, seal.Version))
	}
	if version, older := a.Messages.Common(protocol.Spoken()); version == 0 {
		return h.otherVersion(agent, which(older), fmt.Sprintf("the agent (%s) speaks protocol %v, this mirrord (%s) %v", a.Software, a.Messages, h.o.Version, protocol.Spoken()))
	}
	if len(a.Ignored) > 0 {
		h.o.Emit(event.Event{Level: event.Warning, Code: "agent-older", Text: fmt.Sprintf("the agent (%s) is older than this mirrord and does without: %s; update the agent's image", a.Software, strings.Join(a.Ignored, ", "))})
	}
	return nil
}

// otherVersion says that this mirrord and the agent do not understand each
// other, and which of them to update; "" if that is not known.
func (h *Hold) otherVersion(of Agent, update, why string) error {
	agent := "the agent"
	if image := of.Image(); image != "" {
		agent = "the agent of the image " + image
	}
	f := &failure.Error{Code: "agent-version", Why: why,
		Do: "mirrord agent image --push REGISTRY/mirrord-agent:NEW-TAG, then name that; or leave agent.image and MIRRORD_AGENT_IMAGE away: this mirrord has its own"}
	switch update {
	case updateAgent:
		f.What = agent + " is older than this mirrord: update the agent's image"
	case updateMirrord:
		f.What = "this mirrord is older than " + agent + ": update mirrord"
		f.Do = "install the newer mirrord; or leave agent.image and MIRRORD_AGENT_IMAGE away: this mirrord has its own"
	default:
		f.What = "this mirrord and " + agent + " are of releases that do not understand each other"
	}
	return f
}

// wanted is a feature that a session may need.
type wanted struct {
	feature string
	what    string // is missing without it
	needed  bool   // the configuration asks for it by name
}

// filterFeatures are what filters need, for a person.
var filterFeatures = map[string]string{
	protocol.FeatureHTTPFilter:   "filters of requests",
	protocol.FeatureHostFilter:   "filters of requests by their host",
	protocol.FeatureClientFilter: "filters by the client's address",
	protocol.FeatureSNIFilter:    "filters by the server's name under TLS",
	protocol.FeatureBodyFilter:   "filters of requests by their body, and programs of jq",
}

// wants lists the features that the configuration makes use of.
func (h *Hold) wants() (all []wanted) {
	if o := h.o.Config.FilesRules(); o.Mode != rules.FilesLocal {
		all = append(all, wanted{protocol.FeatureFiles, "the target's files", o.Mode != "" || len(o.ReadWrite)+len(o.ReadOnly) > 0})
	}
	if len(h.o.Config.Outgoing.UnixStreams) > 0 {
		all = append(all, wanted{protocol.FeatureUnix, "unix sockets of the target's", true})
	}
	in := h.o.Config.Incoming
	if h.o.Config.Targetless() {
		return all
	}
	if in.Lossless && in.Mode != rules.IncomingOff {
		all = append(all, wanted{protocol.FeatureTee, "lossless copies of the target's traffic", true})
	}
	if in.TLS != nil && in.Wants(rules.IncomingSteal) {
		all = append(all, wanted{protocol.FeatureTLS, "filters of requests under TLS", true})
	}
	if in.Wants(rules.IncomingSteal) {
		all = append(all, wanted{protocol.FeatureSteal, "stealing the target's traffic", true})
	}
	if in.Wants(rules.IncomingMirror) {
		all = append(all, wanted{protocol.FeatureMirror, "copies of the target's traffic", in.Mode != ""})
	}
	if in.HTTP != nil && in.Mode != rules.IncomingOff {
		for _, feature := range in.HTTP.Filter.Features() {
			all = append(all, wanted{feature, filterFeatures[feature], true})
		}
	}
	return all
}

// makeDo compares what the session makes use of with what the agent can: it
// fails where the configuration asks for what is missing, goes on without what
// is only a default, and says so in one line.
func (h *Hold) makeDo(features []string) error {
	var missing []string
	for _, w := range h.wants() {
		if slices.Contains(features, w.feature) {
			continue
		}
		if w.needed {
			return &failure.Error{Code: "agent-lacks", What: fmt.Sprintf("the agent cannot do what the configuration asks for: %s (%s)", w.what, w.feature),
				Why: "it is of another release, or may not do it here",
				Do:  "update the agent's image, or leave agent.image and MIRRORD_AGENT_IMAGE away; or configure the session without it"}
		}
		missing = append(missing, fmt.Sprintf("%s (%s)", w.what, w.feature))
		if h.first != nil { // the session was made for more
			continue
		}
		switch w.feature {
		case protocol.FeatureFiles:
			h.o.Config.Files.Mode = rules.FilesLocal
		case protocol.FeatureMirror:
			h.o.Config.Incoming.Mode = rules.IncomingOff
		}
	}
	if len(missing) > 0 {
		h.o.Emit(event.Event{Level: event.Warning, Code: "agent-lacks", Text: "the agent cannot give " + strings.Join(missing, ", nor ") + ": the session goes on without"})
	}
	return nil
}
