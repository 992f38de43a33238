package kube

import (
	"context"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/mirrord-go/mirrord/internal/failure"
)

// A Node is a machine of the cluster, as far as it matters for an agent.
type Node struct {
	Name         string
	OS           string // as Go names it: "linux"
	Architecture string // as Go names it: "amd64"
	// Trouble is empty for a node that is ready; else it says why it is not.
	Trouble string
	// HasImage: the node has said that it has the agent's image. It lists only
	// its largest ones, so false means nothing.
	HasImage bool
	Cilium   bool // is its network
}

// Node reads a node. Codes: node-not-ready if there is none of that name, and
// those of any request; many users may not read nodes.
func (c *Cluster) Node(ctx context.Context, name string) (*Node, error) {
	n := &corev1.Node{}
	err := c.core.Get().Resource("nodes").Name(name).Do(impatient(ctx)).Into(n)
	switch {
	case apierrors.IsNotFound(err):
		return nil, &failure.Error{Code: "node-not-ready", What: fmt.Sprintf("the target's node %q is not there any more", name), Why: message(err), Cause: err,
			Do: "wait until the cluster has noticed it and the target runs elsewhere: kubectl get pods -o wide -n " + c.namespace}
	case err != nil:
		return nil, c.explain(ctx, err, "get", "nodes", "")
	}
	return c.node(n), nil
}

// Nodes lists all nodes.
func (c *Cluster) Nodes(ctx context.Context) ([]*Node, error) {
	l := &corev1.NodeList{}
	if err := c.core.Get().Resource("nodes").Do(impatient(ctx)).Into(l); err != nil {
		return nil, c.explain(ctx, err, "list", "nodes", "")
	}
	var all []*Node
	for i := range l.Items {
		all = append(all, c.node(&l.Items[i]))
	}
	return all, nil
}

func (c *Cluster) node(n *corev1.Node) *Node {
	found := &Node{Name: n.Name, OS: n.Status.NodeInfo.OperatingSystem, Architecture: n.Status.NodeInfo.Architecture, Cilium: byCilium(n)}
	for _, k := range n.Status.Conditions {
		if k.Type == corev1.NodeReady && k.Status != corev1.ConditionTrue {
			found.Trouble = fmt.Sprintf("%s (%s) since %s", k.Reason, k.Message, k.LastTransitionTime.UTC().Format("2006-01-02 15:04 MST"))
		}
	}
	for _, i := range n.Status.Images {
		found.HasImage = found.HasImage || slices.Contains(i.Names, c.options.Image)
	}
	return found
}

// Fits is a failure if an agent cannot run on the node: codes node-not-ready
// and agent-architecture. A cordoned node takes an agent all the same.
func (c *Cluster) Fits(n *Node) error {
	const agentOS = "linux"
	arch := c.options.Architecture
	switch {
	case n.Trouble != "":
		return failure.New("node-not-ready", fmt.Sprintf("the target's node %q is not ready", n.Name),
			fmt.Sprintf("wait for it, or name a pod on another node; see: kubectl describe node %s", n.Name), "%s", n.Trouble)
	case n.OS != "" && n.OS != agentOS:
		return failure.New("agent-architecture", fmt.Sprintf("the target's node %q runs %s", n.Name, n.OS),
			"name a target on a Linux node: kubectl get pods -o wide", "agents are programs for Linux")
	case arch != "" && n.Architecture != "" && n.Architecture != arch:
		return failure.New("agent-architecture", fmt.Sprintf("the agent of this mirrord cannot run on the target's node %q", n.Name),
			fmt.Sprintf("name the image of an agent for %s: mirrord exec --agent-image IMAGE ...; or a pod on an %s node: kubectl get pods -o wide", n.Architecture, arch),
			"the node is %s, the image %s is for %s", n.Architecture, c.options.Image, arch)
	}
	return nil
}

// fits looks at the target's node before anything is ordered. Who may not read
// nodes learns what is wrong from the agent's pod.
func (c *Cluster) fits(ctx context.Context, t *Target) error {
	n, err := c.Node(ctx, t.Node)
	if err == nil {
		return c.Fits(n)
	}
	if f := failure.From(err); f.Code == "node-not-ready" {
		return f
	}
	return ended(ctx)
}
