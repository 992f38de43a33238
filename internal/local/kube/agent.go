package kube

import (
	"context"
	"errors"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/mirrord-go/mirrord/internal/protocol"
)

// AgentSpec is what a session wants of its agent.
type AgentSpec struct {
	// Session is the session's id: lower-case letters, digits and dashes, new
	// for every session. The Job is named for it.
	Session string
	// PublicKey is the session's public key as text; nobody else may connect.
	PublicKey string
	// User says to the owners of the cluster whose agent it is: "ana@laptop".
	User     string
	Features []Feature
	// Arguments are more of the agent's process: flags of cmd/mirrord-agent.
	Arguments []string
	// InPod runs the agent as an ephemeral container of the target's pod.
	InPod bool
	// Owned, if set, is called once, before anything is made in the cluster,
	// with what another process needs to remove it.
	// An agent in the target's pod ends by itself: nobody else can remove it.
	Owned func(Ref)
}

// Agent is an agent that has announced itself. Its methods may be called
// concurrently.
type Agent struct {
	Announced protocol.Announcement
	Image     string // that it was started from
	Pod       string // its name
	Namespace string
	Node      string
	Lost      []string // what this agent cannot do, a line each

	cluster *Cluster
	ref     Ref
	port    int

	refusals refusals
}

// Ref is all that is needed to remove an agent, also from another process
// with the same environment. It survives JSON.
type Ref struct {
	Kubeconfig  string `json:"kubeconfig,omitempty"`
	Context     string `json:"context,omitempty"`
	InsecureTLS *bool  `json:"insecureTLS,omitempty"`
	Namespace   string `json:"namespace"`
	Job         string `json:"job,omitempty"`
	Pod         string `json:"pod,omitempty"`       // with Container: in the target's pod, without a Job
	Container   string `json:"container,omitempty"` // of the agent
	UID         string `json:"uid,omitempty"`       // of the Job or the pod, once it is known to exist
}

// Ref gives the agent's reference.
func (a *Agent) Ref() Ref { return a.ref }

// Delete removes the agent's Job, and with it the pod. It returns when the
// cluster has taken the order, for which it asks again while the API server is
// away, until ctx ends; that the agent is not there any more is no error. It
// can be called again. An agent in the target's pod cannot be removed by
// anybody: it ends at the goodbye of its session, or when nobody comes (back).
func (a *Agent) Delete(ctx context.Context) error { return a.cluster.remove(ctx, a.ref) }

// DeleteRef removes an agent that another process started. If the Job is not
// there yet, its creation may still be under way: that is awaited for a short
// time.
func DeleteRef(ctx context.Context, r Ref) error {
	if r.Pod != "" {
		return nil
	}
	c, err := Connect(Options{Kubeconfig: r.Kubeconfig, Context: r.Context, InsecureTLS: r.InsecureTLS, Namespace: r.Namespace})
	if err != nil {
		return err
	}
	defer c.Close()
	return c.remove(ctx, r)
}

// lateCreation is how long a Job may still appear after the process that
// ordered it was killed: the time the API server takes for a request.
const lateCreation = time.Second

// remove deletes the Job of r, and waits for one that may still appear.
func (c *Cluster) remove(ctx context.Context, r Ref) error {
	if r.Pod != "" {
		return nil
	}
	err := c.deleteJob(ctx, r)
	if !errors.Is(err, errNoJob) || r.UID != "" {
		return ignore(err, errNoJob)
	}
	late, cancel := context.WithTimeout(ctx, lateCreation)
	defer cancel()
	w, err := c.batch.Get().Namespace(r.Namespace).Resource("jobs").VersionedParams(&metav1.ListOptions{
		FieldSelector: "metadata.name=" + r.Job, Watch: true}, c.words.parameters).Watch(late)
	if err != nil { // no permission to look, or no time left: it was not there
		return nil
	}
	defer w.Stop()
	for {
		select {
		case e, ok := <-w.ResultChan():
			if !ok {
				return nil
			}
			if _, ok := e.Object.(*batchv1.Job); ok {
				return ignore(c.deleteJob(ctx, r), errNoJob)
			}
		case <-late.Done():
			return nil
		}
	}
}

var errNoJob = errors.New("there is no such job")

// deleteJob orders the deletion: the Job at once, its pod right after by the
// cluster's garbage collector, with the pod's own grace period.
func (c *Cluster) deleteJob(ctx context.Context, r Ref) error {
	options := &metav1.DeleteOptions{PropagationPolicy: new(metav1.DeletePropagationBackground)}
	if r.UID != "" { // never another session's Job of the same name
		options.Preconditions = &metav1.Preconditions{UID: new(types.UID(r.UID))}
	}
	err := again(ctx, func(ctx context.Context) error {
		return c.batch.Delete().Namespace(r.Namespace).Resource("jobs").Name(r.Job).Body(options).Do(ctx).Error()
	})
	switch {
	case err == nil:
		return nil
	case apierrors.IsNotFound(err), apierrors.IsConflict(err):
		return errNoJob
	}
	return c.explain(ctx, err, "delete", "jobs.batch", r.Namespace)
}

func ignore(err, harmless error) error {
	if errors.Is(err, harmless) {
		return nil
	}
	return err
}
