package doctor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/mirrord-go/mirrord/internal/failure"
	"github.com/mirrord-go/mirrord/internal/local/kube"
)

// cluster checks kubeconfig, API server, permissions, target, node and
// policies, each after what it needs.
func (d *doctor) cluster(ctx context.Context) {
	d.area = Cluster
	c, err := kube.Connect(d.o.Kube)
	if err != nil {
		d.bad("kubeconfig", err)
		return
	}
	defer c.Close()
	d.good("kubeconfig", "%s, API server %s", place(c), c.Server())

	begin := time.Now()
	version, err := c.Version(ctx)
	if err != nil {
		d.bad("API server", err)
		return
	}
	d.good("API server", "Kubernetes %s, answers in %d ms", version, time.Since(begin).Milliseconds())

	if !d.permissions(ctx, c) {
		return
	}
	target := d.target(ctx, c)
	d.node(ctx, c, target)
	d.agent(ctx, c, target)
	d.good("agent's image", "%s", d.o.Kube.Image)
}

func place(c *kube.Cluster) string {
	s := fmt.Sprintf("namespace %q", c.Namespace())
	if c.Context() != "" {
		s = fmt.Sprintf("context %q, %s", c.Context(), s)
	}
	return s
}

// permissions shows one check for each resource. It is false if the cluster
// does not answer: then nothing else can be asked either.
func (d *doctor) permissions(ctx context.Context, c *kube.Cluster) bool {
	needs := c.Needs(cmp.Or(d.o.Target, "pod/NAME"), d.o.InPod) // what most sessions will want
	may, errs := make([]bool, len(needs)), make([]error, len(needs))
	var wait sync.WaitGroup
	for i, p := range needs {
		wait.Go(func() { may[i], errs[i] = c.May(ctx, p) })
	}
	wait.Wait()
	if i := slices.IndexFunc(errs, func(err error) bool { return err != nil }); i >= 0 {
		if ctx.Err() == nil {
			d.bad("login", errs[i])
		}
		return false
	}
	d.good("login", "accepted")
	for i := 0; i < len(needs); {
		p := needs[i]
		var granted, lacking []string
		for ; i < len(needs) && needs[i].Resource == p.Resource && needs[i].Namespace == p.Namespace && needs[i].Need == p.Need; i++ {
			if may[i] {
				granted = append(granted, needs[i].Verb)
			} else {
				lacking = append(lacking, needs[i].Verb)
			}
		}
		name := "may " + strings.Join(append(granted, lacking...), ", ") + " " + p.Resource
		where := ""
		if p.Namespace != "" {
			where = fmt.Sprintf("in namespace %q", p.Namespace)
		}
		switch {
		case len(lacking) == 0:
			d.good(name, "%s", where)
		case p.Need != "":
			d.skipped(name, "%s", strings.TrimSpace("not "+where)+": "+p.Need)
		default:
			f := c.Lacking(kube.Permission{Verb: strings.Join(lacking, " and "), Resource: p.Resource, Namespace: p.Namespace})
			d.bad(name, f)
		}
	}
	return true
}

// target resolves the target that was named; nil: none was, or it cannot be.
func (d *doctor) target(ctx context.Context, c *kube.Cluster) *kube.Target {
	const name = "target"
	t, err := c.Resolve(ctx, d.o.Target)
	switch {
	case ctx.Err() != nil:
		return nil
	case err != nil:
		d.bad(name, err)
		return nil
	case t.Targetless:
		d.skipped(name, "none was named; to check one: mirrord doctor -t pod/NAME")
		return nil
	}
	d.good(name, "%s", strings.Join(append([]string{t.String() + " on node " + t.Node}, t.Notes...), "; "))
	if mesh := t.Mesh(); mesh != "" {
		d.good("service mesh", "%s: the program gets what its proxy sends on to a port, in the clear, and its own connections go through it", mesh)
	}
	return t
}

// node checks the target's node, or, without a target, whether any node can
// run agents.
func (d *doctor) node(ctx context.Context, c *kube.Cluster, t *kube.Target) {
	const name = "node"
	var nodes []*kube.Node
	var err error
	if t != nil {
		var n *kube.Node
		n, err = c.Node(ctx, t.Node)
		nodes = []*kube.Node{n}
	} else {
		nodes, err = c.Nodes(ctx)
	}
	switch f := failure.From(err); {
	case ctx.Err() != nil:
	case err == nil && len(nodes) > 0:
		d.fitting(c, nodes, t != nil)
		if slices.ContainsFunc(nodes, func(n *kube.Node) bool { return n.Cilium }) {
			d.cilium(ctx, c, t)
		}
	case err == nil:
		d.skipped(name, "the cluster has no nodes")
	case f.Code == "forbidden":
		d.skipped(name, "%s; what is wrong with it will show when an agent is started", f.What)
	default:
		d.bad(name, err)
	}
}

func (d *doctor) fitting(c *kube.Cluster, nodes []*kube.Node, targets bool) {
	const name = "node"
	var fit, unfit []string
	have := 0
	var why error
	for _, n := range nodes {
		if err := c.Fits(n); err != nil {
			unfit = append(unfit, fmt.Sprintf("%s (%s)", n.Name, failure.From(err).Why))
			why = err
			continue
		}
		fit = append(fit, fmt.Sprintf("%s (%s/%s)", n.Name, n.OS, n.Architecture))
		if n.HasImage {
			have++
		}
	}
	const most = 5 // more are not read
	shown := strings.Join(fit[:min(most, len(fit))], ", ")
	if more := len(fit) - most; more > 0 {
		shown += fmt.Sprintf(" and %d more", more)
	}
	image := "the agent's image is pulled at the first session"
	if have > 0 {
		image = fmt.Sprintf("%d of %d have the agent's image", have, len(nodes))
	}
	switch {
	case len(fit) == 0:
		d.bad(name, why)
	case len(unfit) > 0:
		d.good(name, "%s; %s; not for agents: %s", shown, image, strings.Join(unfit[:min(most, len(unfit))], ", "))
	case targets && have > 0:
		d.good(name, "%s has the agent's image", shown)
	default:
		d.good(name, "%s; %s", shown, image)
	}
}

// agent has the cluster judge the agent: that of the target, or without one
// that of any target.
func (d *doctor) agent(ctx context.Context, c *kube.Cluster, t *kube.Target) {
	const name = "agent allowed"
	what := "the cluster's policies and quotas take the agent"
	switch {
	case t == nil && d.o.InPod:
		d.skipped(name, "that depends on the target's pod")
		return
	case t == nil:
		t = &kube.Target{Namespace: c.Namespace(), Pod: "any", Container: "any", ContainerID: "0"}
		what += " of a session with a target"
	}
	err := c.TryAgent(ctx, t, d.o.Features, d.o.InPod)
	switch {
	case ctx.Err() != nil:
	case err == nil:
		d.good(name, "%s", what)
	case errors.Is(err, kube.ErrUntried):
		d.skipped(name, "%v", err)
	case failure.From(err).Code == "forbidden": // said above already
		d.skipped(name, "%s, so the cluster cannot be asked", failure.From(err).What)
	default:
		d.bad(name, err)
	}
}
