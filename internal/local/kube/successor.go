package kube

import (
	"context"
	"errors"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/mirrord-go/mirrord/internal/failure"
)

const (
	// successorTime is how long a target's successor may take: a node that
	// pulls a large image, not a workload that has been broken.
	successorTime = 2 * time.Minute
	// successorPause is kept between two looks: a look is one to three requests.
	successorPause = time.Second
	// endingLooks is how often Ending looks at a pod that seems well: an eviction
	// of agent and target together reaches them one after the other.
	endingLooks = 4
)

// Ending reports whether the target's pod or container has ended or is about
// to, as far as the cluster can be asked.
func (c *Cluster) Ending(ctx context.Context, t *Target) bool {
	for look := range endingLooks {
		if look > 0 && pause(ctx, successorPause) != nil {
			return false
		}
		pod := &corev1.Pod{}
		err := c.core.Get().Namespace(t.Namespace).Resource("pods").Name(t.Pod).Do(impatient(ctx)).Into(pod)
		switch {
		case apierrors.IsNotFound(err):
			return true
		case err == nil && ends(pod, t):
			return true
		}
	}
	return false
}

// ends reports whether a pod shows that t ends or has ended: it is another pod, it
// is being deleted, it was evicted (which leaves it where it is, failed), or its
// container does not run or is another.
func ends(pod *corev1.Pod, t *Target) bool {
	s := containerStatus(pod, t.Container)
	return string(pod.UID) != t.UID || pod.DeletionTimestamp != nil || pod.Status.Phase == corev1.PodFailed ||
		s.State.Running == nil || !strings.HasSuffix(s.ContainerID, "://"+t.ContainerID)
}

// Successor waits for what takes the place of old, a Target of this Cluster
// that has ended: another pod of the workload that target names, or the same
// pod's container, started again. It fails at once when nothing will, and with
// Resolve's last failure when nothing has after two minutes.
func (c *Cluster) Successor(ctx context.Context, target string, old *Target) (*Target, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, successorTime, errNoSuccessor)
	defer cancel()
	var last error = errNoSuccessor
	for {
		t, err := c.Resolve(ctx, target)
		switch {
		case err == nil && t.ContainerID != old.ContainerID:
			return t, nil
		case err == nil: // the cluster does not know yet that it has ended
		case ctx.Err() == nil && final(err, old):
			return nil, err
		case ctx.Err() == nil:
			last = err
		}
		if pause(ctx, successorPause) != nil {
			if errors.Is(context.Cause(ctx), errNoSuccessor) {
				return nil, last
			}
			return nil, context.Cause(ctx)
		}
	}
}

var errNoSuccessor = errors.New("nothing has taken its place within " + successorTime.String())

// final reports whether err, of Resolve, says that old will have no successor.
func final(err error, old *Target) bool {
	f, ok := errors.AsType[*failure.Error](err)
	if !ok {
		return false
	}
	kind, _, _ := strings.Cut(old.Workload, "/")
	switch f.Code {
	case "target-not-found": // a workload itself comes back by nobody's doing
		return !old.Recreated || kind != "pod" && kind != label
	case "target-ending":
		return !old.Recreated
	case "target-not-running", "container-not-running":
		return !old.Recreated && !old.Restarted
	case "namespace-not-found", "container-not-found", "forbidden", "service-without-pods":
		return true
	}
	return false // the cluster cannot be asked just now
}

// renewal says how the cluster replaces what pod is, as it was named by r. A
// job's pod that has ended has mostly done its work.
func renewal(pod *corev1.Pod, r reference) (recreated, restarted bool) {
	switch r.kind.name {
	case "pod":
		owner := metav1.GetControllerOf(pod)
		recreated = owner != nil && owner.Kind == "StatefulSet" // its successor has the same name
	case "job", "cronjob":
	default:
		recreated = true
	}
	return recreated, pod.Spec.RestartPolicy != corev1.RestartPolicyNever
}
