package kube

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"

	"github.com/mirrord-go/mirrord/internal/failure"
)

// cleanUpTime bounds the removal of an agent that did not become ready: an API
// server that has just gone away may come back.
const cleanUpTime = 10 * time.Second

// watchPause is kept between two watches, which normally last minutes: a proxy
// that cuts them at once must not make us ask in a loop.
const watchPause = 200 * time.Millisecond

var errStartTimeout = errors.New("the agent is not ready in time")

// start is one StartAgent: what its watchers tell.
type start struct {
	c         *Cluster
	ref       Ref
	namespace string
	session   string
	container string // the agent's, of its pod
	image     string
	progress  func(string)
	limit     time.Duration

	created chan created      // once
	pods    chan *corev1.Pod  // each state of the agent's pod; ends with the context
	refused chan error        // the first reason why the Job gets no pod
	failed  chan error        // a watch or the log cannot be had
	ready   chan announcement // once
	ended   chan []string     // once: the last lines of an agent that ended instead
	wait    sync.WaitGroup
	nothing bool // is in the cluster; set by run
}

type created struct {
	uid  string // of the Job or the pod
	err  error
	none bool // the API server refused it: there is surely nothing of ours
}

// StartAgent starts the agent for t and returns it once it has announced
// itself. On any failure, and when ctx ends, it removes what it made before it
// returns. progress may be nil; it is called from this goroutine with one line
// for each step.
//
// Codes: node-not-ready and agent-architecture, before anything is made;
// agent-refused (the cluster's own words), namespace-not-found,
// namespace-ending, agent-image, agent-unschedulable, agent-not-started,
// agent-ended, agent-not-ready, and those of any request. In the target's pod
// also target-ending, target-unreachable and ephemeral-unknown.
func (c *Cluster) StartAgent(ctx context.Context, t *Target, s AgentSpec, progress func(step string)) (*Agent, error) {
	if c.options.Image == "" {
		return nil, failure.New("agent-image", "this build names no image for its agent", "mirrord exec --agent-image IMAGE ...", "it was built without an agent inside")
	}
	if progress == nil {
		progress = func(string) {}
	}
	if !t.Targetless {
		if err := c.fits(ctx, t); err != nil {
			return nil, err
		}
	}
	if s.InPod && !t.Targetless {
		return c.startInPod(ctx, t, s, progress)
	}
	name, wanted := jobName(s.Session), s.Features
	s.Features = t.features(wanted)
	a, err := c.startBeside(ctx, t, s, name, progress)
	why := refusedOfMesh(err, wanted, s.Features)
	if why == "" {
		return a, err
	}
	progress("the cluster refuses the agent with what a mesh takes (NET_ADMIN): it is tried without")
	s.Features = wanted
	a, lerr := c.startBeside(ctx, t, s, name+"-2", progress)
	switch {
	case lerr == nil:
		a.Lost = append(a.Lost, fmt.Sprintf("the cluster refuses the agent NET_ADMIN (%s), which tells what the mesh's proxy takes: of ports that its rules leave out, connections that end at once may not be copied", why))
	case refused(lerr) != "": // it was not that
		return nil, err
	}
	return a, lerr
}

// startBeside starts an agent in a pod of its own, and removes it on any failure.
func (c *Cluster) startBeside(ctx context.Context, t *Target, s AgentSpec, name string, progress func(step string)) (*Agent, error) {
	namespace := c.agentNamespace(t)
	ref := Ref{Kubeconfig: c.options.Kubeconfig, Context: c.options.Context, InsecureTLS: c.options.InsecureTLS,
		Namespace: namespace, Job: name}
	if s.Owned != nil {
		s.Owned(ref)
	}
	st := c.newStart(ref, s.Session, agentContainer, progress)
	running, cancel := context.WithTimeoutCause(ctx, st.limit, errStartTimeout)
	j := job(ref.Job, namespace, c.options, t, s)
	a, err := st.run(running, fmt.Sprintf("agent %s ordered in namespace %s, image %s", j.Name, namespace, st.image),
		func(ctx context.Context) created { return st.create(ctx, j) })
	cancel()
	st.wait.Wait()
	if err == nil || st.nothing {
		return a, err
	}
	// The request may have reached the cluster even if its answer did not
	// reach us.
	cleanup, done := context.WithTimeout(context.WithoutCancel(ctx), cleanUpTime)
	defer done()
	if rerr := c.remove(cleanup, st.ref); rerr != nil {
		err = withLeftover(err, st.ref, rerr)
	}
	return nil, err
}

func (c *Cluster) newStart(ref Ref, session, container string, progress func(string)) *start {
	return &start{c: c, ref: ref, namespace: ref.Namespace, session: session, container: container, image: c.options.Image, progress: progress,
		created: make(chan created, 1), pods: make(chan *corev1.Pod), refused: make(chan error, 1),
		failed: make(chan error, 3), ready: make(chan announcement, 1), ended: make(chan []string, 1),
		limit: cmp.Or(c.options.StartTimeout, DefaultStartTimeout)}
}

// run orders the agent and, at the same time, watches for its pod and for the
// reasons why there is none, until the agent has announced itself.
func (st *start) run(ctx context.Context, ordered string, order func(context.Context) created) (*Agent, error) {
	st.wait.Go(func() {
		if made := order(ctx); made.err == nil || ctx.Err() == nil { // else run says why
			st.created <- made
		}
	})
	st.wait.Go(func() { st.watchPods(ctx) })
	if st.ref.Job != "" {
		st.wait.Go(func() { st.watchRefusals(ctx) })
	}
	var last *corev1.Pod
	reading := false
	step := steps{show: st.progress}
	var a announcement
	var words []string           // of an agent that ended
	var noCause <-chan time.Time // set with words
	// The answer to the order may come last, and without it the Job's UID is
	// not known.
	for a.Port == 0 || st.ref.UID == "" {
		select {
		case m := <-st.created:
			if st.nothing = m.none; m.err != nil {
				return nil, m.err
			}
			st.ref.UID = m.uid
			step.reach(1, ordered)
		case err := <-st.refused:
			return nil, err
		case err := <-st.failed:
			return nil, err
		case words = <-st.ended:
			if terminated(last, st.container) != nil {
				return nil, st.died(last, words)
			}
			timer := time.NewTimer(causeTime)
			defer timer.Stop()
			noCause = timer.C
		case <-noCause:
			return nil, st.died(last, words)
		case p := <-st.pods:
			last = p
			if st.ref.Job != "" {
				step.reach(1, ordered) // the answer to the order may come later
			}
			if noCause != nil && terminated(p, st.container) != nil {
				return nil, st.died(p, words)
			}
			begun, err := st.judge(p)
			if err != nil {
				return nil, err
			}
			if p.Spec.NodeName != "" && st.ref.Job != "" {
				step.reach(2, "agent's pod "+p.Name+" is on node "+p.Spec.NodeName)
			}
			if begun && !reading {
				reading = true
				step.reach(3, "agent's container has started")
				name := p.Name
				st.wait.Go(func() { st.readLog(ctx, name) })
			}
		case a = <-st.ready:
			if a.As != nil {
				return nil, &otherUser{*a.As}
			}
		case <-ctx.Done():
			if !errors.Is(context.Cause(ctx), errStartTimeout) {
				return nil, context.Cause(ctx)
			}
			return nil, st.late(ctx, last)
		}
	}
	return &Agent{Announced: a.Announcement, Image: st.image, Pod: last.Name, Namespace: st.namespace, Node: last.Spec.NodeName,
		cluster: st.c, ref: st.ref, port: a.Port}, nil
}

// create orders the Job.
func (st *start) create(ctx context.Context, j *batchv1.Job) created {
	made := &batchv1.Job{}
	err := st.c.batch.Post().Namespace(st.namespace).Resource("jobs").Body(j).Do(ctx).Into(made)
	if err != nil {
		var answer apierrors.APIStatus
		none := errors.As(err, &answer) && answer.Status().Code/100 == 4
		return created{err: st.c.explain(ctx, err, "create", "jobs.batch", st.namespace), none: none}
	}
	return created{uid: string(made.UID)}
}

// watchPods reports each state of the agent's pod. That of a Job is found by
// the session's label, since its name is made by the cluster.
func (st *start) watchPods(ctx context.Context) {
	which := metav1.ListOptions{LabelSelector: labelSession + "=" + st.session}
	if st.ref.Pod != "" {
		which = metav1.ListOptions{FieldSelector: "metadata.name=" + st.ref.Pod}
	}
	err := st.c.watch(ctx, st.c.core, st.namespace, "pods", which, func(o runtime.Object) {
		if p, ok := o.(*corev1.Pod); ok {
			select {
			case st.pods <- p:
			case <-ctx.Done():
			}
		}
	})
	if err != nil && ctx.Err() == nil {
		st.failed <- st.c.explain(ctx, err, "watch", "pods", st.namespace)
	}
}

// watchRefusals reports why the cluster makes no pod for the Job. Only events
// tell that. Who may not read events learns it after the timeout.
func (st *start) watchRefusals(ctx context.Context) {
	_ = st.c.watch(ctx, st.c.core, st.namespace, "events", metav1.ListOptions{FieldSelector: "involvedObject.kind=Job,involvedObject.name=" + st.ref.Job}, func(o runtime.Object) {
		e, ok := o.(*corev1.Event)
		if !ok || e.Type != corev1.EventTypeWarning || e.Reason != "FailedCreate" {
			return
		}
		if st.c.options.Pod.ServiceAccount == "" && strings.Contains(e.Message, "service account") {
			return // a namespace just made gets its service account a moment later, and the Job is tried again
		}
		select {
		case st.refused <- st.c.refused(strings.TrimPrefix(e.Message, "Error creating: "), nil, st.namespace):
		default: // the first one was it
		}
	})
}

// watch calls each with every object that matches and every change of it,
// until ctx ends or the watch cannot be had. An API server that goes away is
// waited for. Deletions are not reported.
func (c *Cluster) watch(ctx context.Context, client *rest.RESTClient, namespace, resource string, o metav1.ListOptions, each func(runtime.Object)) error {
	o.Watch = true
	for ctx.Err() == nil {
		// Without a resource version it begins with all objects that are there.
		var w watch.Interface
		away, cancel := context.WithTimeout(ctx, awayTime)
		err := again(away, func(context.Context) (err error) { // the watch lives as long as its context
			w, err = client.Get().Namespace(namespace).Resource(resource).VersionedParams(&o, c.words.parameters).Watch(ctx)
			return err
		})
		cancel()
		if err != nil {
			return err
		}
		for e := range w.ResultChan() {
			switch e.Type {
			case "ADDED", "MODIFIED":
				each(e.Object)
			}
		}
		w.Stop()
		_ = pause(ctx, watchPause)
	}
	return nil
}

// steps shows each step once and none after a later one: watches overtake each
// other.
type steps struct {
	show func(string)
	at   int
}

func (s *steps) reach(n int, text string) {
	if n > s.at {
		s.at = n
		s.show(text)
	}
}

// late explains an agent that is not ready in time.
func (st *start) late(ctx context.Context, last *corev1.Pod) error {
	f := &failure.Error{Code: "agent-not-ready", What: fmt.Sprintf("the agent did not get ready within %s", st.limit)}
	if last == nil {
		f.Why = fmt.Sprintf("the cluster made no pod for the job %s", st.ref.Job)
		f.Do = fmt.Sprintf("see why: kubectl get events -n %s", st.namespace)
		return f
	}
	f.Why = strings.Join(append([]string{fmt.Sprintf("its pod %s on node %q is %s", last.Name, last.Spec.NodeName, last.Status.Phase)}, reasons(last)...), ", ")
	if last.Status.StartTime == nil {
		f.Why += ", and the node has not taken it up: it may be down"
	}
	f.Do = "kubectl get events -n " + st.namespace + "; kubectl describe node " + last.Spec.NodeName
	asked, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanUpTime)
	defer cancel()
	events := &corev1.EventList{}
	err := st.c.core.Get().Namespace(st.namespace).Resource("events").VersionedParams(&metav1.ListOptions{
		FieldSelector: "involvedObject.kind=Pod,involvedObject.name=" + last.Name}, st.c.words.parameters).Do(asked).Into(events)
	if err != nil {
		return f // without events the pod's state has to do
	}
	for _, e := range events.Items {
		if e.Type == corev1.EventTypeWarning {
			f.Why += "\n" + e.Reason + ": " + e.Message
		}
	}
	return f
}

// withLeftover adds to a failure that the Job could not be removed.
func withLeftover(err error, r Ref, cause error) error {
	f := *failure.From(err)
	f.Why += fmt.Sprintf("\nits job could not be removed (%v)", cause)
	f.Do += fmt.Sprintf("; remove it: kubectl delete job %s -n %s", r.Job, r.Namespace)
	return &f
}
