package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/mirrord-go/mirrord/internal/config"
	"github.com/mirrord-go/mirrord/internal/event"
	"github.com/mirrord-go/mirrord/internal/failure"
	"github.com/mirrord-go/mirrord/internal/local/attach"
	"github.com/mirrord-go/mirrord/internal/local/image"
	"github.com/mirrord-go/mirrord/internal/local/kube"
	"github.com/mirrord-go/mirrord/internal/protocol"
	"github.com/mirrord-go/mirrord/internal/rules"
)

// reach picks the way to an agent that the target asks for.
func reach(version string, cfg config.Config) attach.Reach {
	if pid, ok := cfg.Process(); ok {
		return reachProcess(pid)
	}
	return func(ctx context.Context, r attach.Request) (attach.Agent, error) {
		return startClusterAgent(ctx, version, cfg, r)
	}
}

func steps(r attach.Request) func(string) {
	return func(text string) { r.Emit(event.Event{Level: event.Step, Code: "agent", Text: text}) }
}

// clusterAgent is an agent in the cluster.
type clusterAgent struct {
	*kube.Agent
	cluster *kube.Cluster
	target  *kube.Target
	cfg     config.Config
	further bool // beside another pod of the workload than the session's
}

// clusterOptions are what the configuration says about cluster and agent.
func clusterOptions(version string, cfg config.Config) (kube.Options, error) {
	o := kube.Options{
		Kubeconfig: cfg.Kubeconfig, Context: cfg.Context, Namespace: cfg.Namespace, InsecureTLS: cfg.InsecureTLS, NoProxy: cfg.NoProxy,
		AgentNamespace: cfg.Agent.Namespace, Image: cfg.Agent.Image, PullPolicy: cfg.Agent.PullPolicy, Version: version,
		StartTimeout: time.Duration(cfg.Agent.StartupTimeout) * time.Second, Pod: kube.Pod(cfg.Agent.Pod),
	}
	if o.Image != "" {
		return o, nil // for which machines it is, its maker knows
	}
	var err error
	o.Image, err = image.Reference(version)
	if len(image.Architectures()) == 1 { // else the image of that name may be for all of them
		o.Architecture = runtime.GOARCH
	}
	return o, err
}

func startClusterAgent(ctx context.Context, version string, cfg config.Config, r attach.Request) (attach.Agent, error) {
	options, err := clusterOptions(version, cfg)
	if err != nil {
		return nil, err
	}
	cluster, err := kube.Connect(options)
	if err != nil {
		return nil, err
	}
	if cfg.InsecureTLS != nil && *cfg.InsecureTLS {
		r.Emit(event.Event{Level: event.Warning, Code: "insecure-tls",
			Text: "the certificate of the API server is not checked: whoever is on the way can read and change everything"})
	}
	target := cfg.Target
	if cfg.Targetless() {
		target = ""
	}
	t, err := cluster.Resolve(ctx, target)
	if err != nil {
		cluster.Close()
		return nil, err
	}
	a, err := startBeside(ctx, cluster, t, cfg, r)
	if err != nil {
		cluster.Close()
		return nil, err
	}
	return a, nil
}

// startBeside starts an agent for t, which cfg names.
func startBeside(ctx context.Context, cluster *kube.Cluster, t *kube.Target, cfg config.Config, r attach.Request) (*clusterAgent, error) {
	if t.HostNetwork && cfg.Incoming.Wants(rules.IncomingSteal) {
		do := "leave --steal away to get a copy of the traffic"
		if cfg.Incoming.Lossless {
			do = "leave feature.network.incoming.lossless away, which takes the ports for its copies"
		}
		return nil, &failure.Error{Code: "steal-host-network", What: fmt.Sprintf("the traffic of %s cannot be stolen", t),
			Why: "the pod uses the network of its node: its ports are the node's own, and others on the node would lose their traffic too",
			Do:  do}
	}
	r.Emit(event.Event{Level: event.Step, Code: "target", Text: describe(t, cluster.Context()), Facts: map[string]string{
		"target": t.String(), "namespace": t.Namespace, "context": cluster.Context(), "node": t.Node}})
	for _, note := range t.Notes {
		r.Emit(event.Event{Level: event.Info, Code: "target", Text: note})
	}
	if text := grpcWarning(t, cfg.Incoming); text != "" {
		r.Emit(event.Event{Level: event.Warning, Code: "steal-grpc-probe", Flow: "incoming", Text: text})
	}
	owned := func(ref kube.Ref) {
		if b, err := json.Marshal(ref); err == nil {
			r.Owned(b)
		}
	}
	a, err := cluster.StartAgent(ctx, t, kube.AgentSpec{
		Session: r.Session, PublicKey: r.PublicKey, User: r.User, Features: features(cfg), InPod: cfg.Agent.Ephemeral, Arguments: r.Arguments, Owned: owned,
	}, steps(r))
	if err != nil {
		return nil, err
	}
	for _, text := range a.Lost {
		r.Emit(event.Event{Level: event.Warning, Code: "agent-lacks", Text: text})
	}
	owned(a.Ref()) // now with the identity of what was made
	return &clusterAgent{Agent: a, cluster: cluster, target: t, cfg: cfg}, nil
}

// describe is the step that names the target.
func describe(t *kube.Target, kubeContext string) string {
	if t.Targetless {
		return fmt.Sprintf("no target: the cluster's network as seen from namespace %s (context %s)", t.Namespace, kubeContext)
	}
	return fmt.Sprintf("target pod/%s, container %s, in namespace %s (context %s)", t.Pod, t.Container, t.Namespace, kubeContext)
}

// Place implements attach.Agent.
func (a *clusterAgent) Place() (namespace, context string) {
	return a.target.Namespace, a.cluster.Context()
}

// Probes implements attach.Agent.
func (a *clusterAgent) Probes() map[uint16][]string { return probePaths(a.target) }

// probePaths gives the paths, by port, on which the node asks the target's pod
// over HTTP how it is; a path may hold a query.
func probePaths(t *kube.Target) map[uint16][]string {
	paths := map[uint16][]string{}
	for _, p := range t.Probes {
		paths[p.Port] = append(paths[p.Port], p.Path)
	}
	return paths
}

// grpcWarning is about ports that are taken whole though the node asks on them
// by gRPC how the pod is: the program here must answer, or the pod is
// restarted. Empty: there are none.
func grpcWarning(t *kube.Target, in rules.IncomingOptions) string {
	rule, err := rules.NewIncoming(in, false)
	if err != nil {
		return "" // the session says it
	}
	var ports []string
	for _, port := range t.GRPCProbes {
		own := port // of the program
		for _, m := range in.PortMapping {
			if m.To == port {
				own = m.From
			}
		}
		p := rule.Decide(rules.Listener{Addr: netip.AddrPortFrom(netip.IPv4Unspecified(), own)})
		if p.Where == rules.Remote && p.Mode == protocol.ModeSteal && p.Filter == "" {
			ports = append(ports, strconv.Itoa(int(port)))
		}
	}
	if len(ports) == 0 {
		return ""
	}
	return fmt.Sprintf("%s has gRPC probes on port %s: while your program takes that port it must answer them, or the cluster restarts the pod", t.Workload, strings.Join(ports, ", "))
}

// Announced implements attach.Agent.
func (a *clusterAgent) Announced() protocol.Announcement { return a.Agent.Announced }

// Image implements attach.Agent.
func (a *clusterAgent) Image() string { return a.Agent.Image }

// Follow implements attach.Agent.
func (a *clusterAgent) Follow(ctx context.Context, ended bool, r attach.Request) (attach.Agent, error) {
	if a.further || a.target.Targetless || !ended && !a.cluster.Ending(ctx, a.target) {
		return nil, attach.ErrNotReplaced
	}
	r.Emit(event.Event{Level: event.Warning, Code: "target-gone", Text: fmt.Sprintf("%s has ended: waiting for its successor. "+
		"Connections through it are closed; what is local goes on", a.target), Facts: map[string]string{"target": a.target.String()}})
	t, err := a.cluster.Successor(ctx, a.cfg.Target, a.target)
	if err != nil {
		return nil, err
	}
	return startBeside(ctx, a.cluster, t, a.cfg, r)
}

// ID implements attach.Workload.
func (a *clusterAgent) ID() string { return a.target.ContainerID }

// Replicas implements attach.Workload.
func (a *clusterAgent) Replicas(ctx context.Context, tell func([]attach.Replica)) {
	a.cluster.Replicas(ctx, a.cfg.Target, func(targets []*kube.Target) {
		var all []attach.Replica
		for _, t := range targets {
			all = append(all, attach.Replica{ID: t.ContainerID, Pod: t.Pod, Reach: func(ctx context.Context, r attach.Request) (attach.Agent, error) {
				further, err := startBeside(ctx, a.cluster, t, a.cfg.IncomingOnly(), r)
				if err != nil {
					return nil, err
				}
				further.further = true
				return further, nil
			}})
		}
		tell(all)
	})
}

// Gone implements attach.Agent.
func (a *clusterAgent) Gone(err error) bool { return errors.Is(err, kube.ErrGone) }

// Close implements attach.Agent.
func (a *clusterAgent) Close(ctx context.Context) error {
	defer a.cluster.Close()
	return a.Delete(ctx)
}

// cleanUp removes the agents of a supervisor that died.
func cleanUp(ctx context.Context, owned json.RawMessage) error {
	var refs []kube.Ref
	if err := json.Unmarshal(owned, &refs); err != nil {
		return fmt.Errorf("read what the supervisor owned: %w", err)
	}
	failed := make([]error, len(refs))
	var removed sync.WaitGroup
	for i, ref := range refs {
		removed.Go(func() { failed[i] = kube.DeleteRef(ctx, ref) })
	}
	removed.Wait()
	return errors.Join(failed...)
}

// features are what the agent needs capabilities for.
func features(cfg config.Config) []kube.Feature {
	all := []kube.Feature{kube.FeatureNetwork}
	f := cfg.FilesRules()
	// The files of names are the target's where names are.
	if f.Mode != rules.FilesLocal || !cfg.DNS.Local || len(f.ReadOnly)+len(f.ReadWrite)+len(f.Mapping) > 0 {
		all = append(all, kube.FeatureFiles)
	}
	if f.WritesRemote() {
		all = append(all, kube.FeatureWrite)
	}
	if len(cfg.Outgoing.UnixStreams) > 0 {
		all = append(all, kube.FeatureUnix)
	}
	if cfg.Targetless() {
		return all
	}
	if cfg.Incoming.Wants(rules.IncomingSteal) {
		all = append(all, kube.FeatureSteal)
	}
	if cfg.Incoming.EndsIdle() {
		all = append(all, kube.FeatureDrain)
	}
	if cfg.Incoming.Wants(rules.IncomingMirror) {
		all = append(all, kube.FeatureMirror)
	}
	return all
}

// checkTarget tells of a target that cannot be one by how it is written.
func checkTarget(cfg config.Config) error {
	if pid, ok := cfg.Process(); ok {
		_, err := processID(pid)
		return err
	}
	if cfg.Target == pickTarget {
		return nil
	}
	return kube.Check(cfg.Target)
}

// processID reads what follows process/.
func processID(text string) (int, error) {
	pid, err := strconv.Atoi(text)
	if err != nil || pid <= 0 {
		return 0, failure.Usage("target-malformed", fmt.Sprintf("process/%s is no target", text), "name a process id: mirrord exec -t process/4711 COMMAND", "%q is not a process id", text)
	}
	return pid, nil
}
