package kube

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/mirrord-go/mirrord/internal/protocol"
)

// agentPod is a state of the agent's pod.
func agentPod(change func(p *corev1.Pod, s *corev1.ContainerStatus)) corev1.Pod {
	p := corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "mirrord-agent-s1-x7k2p", Namespace: "shop"}}
	p.Spec.NodeName = "node-7"
	p.Status.Phase = corev1.PodPending
	s := corev1.ContainerStatus{Name: agentContainer}
	change(&p, &s)
	p.Status.ContainerStatuses = []corev1.ContainerStatus{s}
	return p
}

func agentRuns() corev1.Pod {
	return agentPod(func(p *corev1.Pod, s *corev1.ContainerStatus) {
		p.Status.Phase = corev1.PodRunning
		s.State.Running = &corev1.ContainerStateRunning{}
	})
}

func agentWaits(reason, message string) corev1.Pod {
	return agentPod(func(_ *corev1.Pod, s *corev1.ContainerStatus) {
		s.State.Waiting = &corev1.ContainerStateWaiting{Reason: reason, Message: message}
	})
}

func refusal(message string) []corev1.Event {
	return []corev1.Event{{Type: corev1.EventTypeWarning, Reason: "FailedCreate", Message: "Error creating: " + message}}
}

const readyLog = `time=now level=WARN msg="no target"
{"mirrord-agent":"1.2.3","key":"AGENTKEY","port":4711}
more
`

var target = &Target{Namespace: "shop", Pod: "web-1", Node: "node-7", Container: "app", ContainerID: "0123abcd"}

func TestStartAgent(t *testing.T) {
	a := &api{agent: []corev1.Pod{agentWaits("", ""), agentWaits("ContainerCreating", ""), agentRuns()}, log: readyLog}
	c := a.start(t, Options{})
	var steps []string
	var owned []Ref
	agent, err := c.StartAgent(context.Background(), target, AgentSpec{Session: "s1", PublicKey: "KEY",
		Owned: func(r Ref) {
			owned = append(owned, r)
			if a.did("create jobs") {
				t.Error("the Job was ordered before its reference was told")
			}
		}}, func(s string) { steps = append(steps, s) })
	if err != nil {
		t.Fatal(err)
	}
	if agent.Announced.Software != "1.2.3" || agent.Announced.Key != "AGENTKEY" || agent.port != 4711 || agent.Pod != "mirrord-agent-s1-x7k2p" || agent.Node != "node-7" || agent.Namespace != "shop" {
		t.Errorf("agent = %+v", agent)
	}
	if a.job.Name != "mirrord-agent-s1" || a.job.Spec.Template.Spec.NodeName != "node-7" || a.job.Spec.Template.Spec.Containers[0].Image != "registry.example/agent:1" {
		t.Errorf("job = %+v", a.job)
	}
	// Watches overtake the answer to the order, so the first step may be missing.
	if n := len(steps); n < 2 || !strings.Contains(steps[n-1], "started") || !strings.Contains(steps[n-2], "node-7") {
		t.Errorf("steps = %q", steps)
	}
	if len(owned) != 1 || owned[0].Job != "mirrord-agent-s1" || owned[0].Namespace != "shop" {
		t.Errorf("owned = %+v", owned)
	}

	for range 2 { // the second time there is nothing to delete
		if err := agent.Delete(context.Background()); err != nil {
			t.Errorf("Delete: %v", err)
		}
	}
	if len(a.deleted) != 1 || *a.deleted[0].PropagationPolicy != metav1.DeletePropagationBackground || *a.deleted[0].Preconditions.UID != "job-uid" {
		t.Errorf("deletions = %+v", a.deleted)
	}
}

func TestStartAgentElsewhere(t *testing.T) {
	a := &api{agent: []corev1.Pod{agentRuns()}, log: readyLog}
	c := a.start(t, Options{AgentNamespace: "agents"})
	agent, err := c.StartAgent(context.Background(), target, AgentSpec{Session: "s1", PublicKey: "KEY"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if a.job.Namespace != "agents" || agent.Namespace != "agents" || agent.Ref().Namespace != "agents" {
		t.Errorf("job is in %q, agent in %q, reference in %q; want agents", a.job.Namespace, agent.Namespace, agent.Ref().Namespace)
	}
}

func TestStartAgentFails(t *testing.T) {
	const psa = `pods "mirrord-agent-s1-" is forbidden: violates PodSecurity "baseline:latest": host namespaces (hostPID=true)`
	for _, c := range []struct {
		name    string
		api     *api
		o       Options
		code    string
		texts   []string
		nothing bool // was ever in the cluster
	}{
		{name: "may not create jobs", api: &api{forbid: map[string]bool{"create jobs": true}}, code: "forbidden", nothing: true,
			texts: []string{`you may not create jobs.batch in namespace "shop"`, "kubectl auth can-i create jobs.batch -n shop"}},
		{name: "may not watch pods", api: &api{forbid: map[string]bool{"watch pods": true}}, code: "forbidden", texts: []string{"watch pods"}},
		{name: "may not read logs", api: &api{agent: []corev1.Pod{agentRuns()}, forbid: map[string]bool{"get pods/log": true}}, code: "forbidden", texts: []string{"get pods/log"}},
		{name: "webhook refuses the job", nothing: true, api: &api{refuse: map[string]*metav1.Status{
			"create jobs": status(403, metav1.StatusReasonForbidden, `admission webhook "policy.example" denied the request: no host pids on Fridays`)}},
			code: "agent-refused", texts: []string{`admission webhook "policy.example" denied the request: no host pids on Fridays`}},
		{name: "no such namespace", nothing: true, api: &api{refuse: map[string]*metav1.Status{
			"create jobs": status(404, metav1.StatusReasonNotFound, `namespaces "agents" not found`)}}, o: Options{AgentNamespace: "agents"},
			code: "namespace-not-found", texts: []string{`no namespace "agents"`}},
		{name: "pod security refuses the pod", api: &api{events: refusal(psa)}, code: "agent-refused", texts: []string{psa, "--agent-namespace", "pod-security.kubernetes.io/enforce=privileged"}},
		{name: "quota refuses the pod", api: &api{events: refusal(`pods "x" is forbidden: exceeded quota: q, requested: pods=1`)}, code: "agent-refused", texts: []string{"exceeded quota: q", "kubectl describe quota -n shop"}},
		{name: "no such service account", api: &api{events: refusal(`pods "x-" is forbidden: error looking up service account shop/agents: serviceaccount "agents" not found`)},
			o: Options{Pod: Pod{ServiceAccount: "agents"}}, code: "agent-refused", texts: []string{`serviceaccount "agents" not found`}},
		{name: "image cannot be pulled", api: &api{agent: []corev1.Pod{agentWaits("ContainerCreating", ""), agentWaits("ErrImagePull", "no such host")}},
			code: "agent-image", texts: []string{"registry.example/agent:1", "ErrImagePull: no such host", "mirrord agent image --output agent.tar", "ctr -n k8s.io images import"}},
		{name: "image name is invalid", api: &api{agent: []corev1.Pod{agentWaits("InvalidImageName", "")}}, code: "agent-image", texts: []string{"InvalidImageName"}},
		{name: "unschedulable", api: &api{agent: []corev1.Pod{agentPod(func(p *corev1.Pod, _ *corev1.ContainerStatus) {
			p.Spec.NodeName = ""
			p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: corev1.PodReasonUnschedulable, Message: "0/3 nodes are available: 3 Insufficient cpu"}}
		})}}, code: "agent-unschedulable", texts: []string{"3 Insufficient cpu"}},
		{name: "node does not take it", api: &api{agent: []corev1.Pod{agentPod(func(p *corev1.Pod, _ *corev1.ContainerStatus) {
			p.Status.Phase, p.Status.Reason, p.Status.Message = corev1.PodFailed, "OutOfpods", "Node didn't have enough resource: pods"
		})}}, code: "agent-not-started", texts: []string{`"node-7"`, "OutOfpods: Node didn't have enough resource"}},
		{name: "container cannot be made", api: &api{agent: []corev1.Pod{agentWaits("CreateContainerError", "apparmor")}}, code: "agent-not-started", texts: []string{"CreateContainerError: apparmor"}},
		{name: "container cannot be made after the runtime's restart", api: &api{agent: []corev1.Pod{agentWaits("CreateContainerError", "error reading from server: EOF"),
			agentWaits("CreateContainerError", "apparmor")}}, code: "agent-not-started", texts: []string{"CreateContainerError: apparmor"}},
		{name: "pod is deleted", api: &api{agent: []corev1.Pod{agentPod(func(p *corev1.Pod, _ *corev1.ContainerStatus) {
			p.DeletionTimestamp = new(metav1.Now())
		})}}, code: "agent-ended", texts: []string{"deleted"}},
		{name: "agent ends at once", api: &api{agent: []corev1.Pod{agentPod(func(p *corev1.Pod, s *corev1.ContainerStatus) {
			p.Status.Phase = corev1.PodFailed
			s.State.Terminated = &corev1.ContainerStateTerminated{ExitCode: 1}
		})}, log: "one\nlevel=ERROR msg=\"no such container\"\n"}, code: "agent-ended", texts: []string{"no such container"}},
		{name: "agent of an older release", api: &api{agent: []corev1.Pod{agentRuns(), agentPod(func(p *corev1.Pod, s *corev1.ContainerStatus) {
			p.Status.Phase = corev1.PodFailed
			s.State.Terminated = &corev1.ContainerStateTerminated{ExitCode: 1}
		})}, log: "flag provided but not defined: -beam\nUsage of mirrord-agent:\n  -key string\nlevel=ERROR msg=\"agent ends\" error=\"flag provided but not defined: -beam\"\n"},
			code: "agent-version", texts: []string{"older than this mirrord: update the agent's image", "option -beam"}},
		{name: "agent says nothing", api: &api{agent: []corev1.Pod{agentRuns()}}, code: "agent-ended", texts: []string{"said nothing"}},
		{name: "agent is killed for its memory", api: &api{agent: []corev1.Pod{agentRuns(), agentPod(func(p *corev1.Pod, s *corev1.ContainerStatus) {
			p.Status.Phase = corev1.PodFailed
			s.State.Terminated = &corev1.ContainerStateTerminated{ExitCode: 137, Reason: "OOMKilled"}
		})}, log: "one\n"}, code: "agent-ended", texts: []string{"killed for its memory", "one", "OOMKilled, with code 137", "kubectl describe node node-7", "kubectl get limitranges -n shop"}},
		{name: "agent is evicted", api: &api{agent: []corev1.Pod{agentPod(func(p *corev1.Pod, s *corev1.ContainerStatus) {
			p.Status.Phase, p.Status.Reason, p.Status.Message = corev1.PodFailed, "Evicted", "the node was low on memory"
			s.State.Terminated = &corev1.ContainerStateTerminated{ExitCode: 143, Reason: "Error"}
		})}}, code: "agent-ended", texts: []string{"Evicted: the node was low on memory"}},
		{name: "image for another machine", api: &api{agent: []corev1.Pod{agentRuns()}, log: "exec /mirrord-agent: exec format error\n"},
			code: "agent-architecture", texts: []string{"exec format error", "--agent-image", `"node-7"`}},
		{name: "node of another architecture", nothing: true, o: Options{Architecture: "arm64"}, api: &api{}, code: "agent-architecture",
			texts: []string{`"node-7"`, "the node is amd64", "is for arm64"}},
		{name: "node with another system", nothing: true, code: "agent-architecture", texts: []string{"runs windows"}, api: &api{others: objects{"nodes": {
			"node-7": nodeNamed("node-7", func(n *corev1.Node) { n.Status.NodeInfo.OperatingSystem = "windows" })}}}},
		{name: "node not ready", nothing: true, code: "node-not-ready", texts: []string{`node "node-7" is not ready`, "NodeStatusUnknown (Kubelet stopped posting node status.)", "kubectl describe node node-7"},
			api: &api{others: objects{"nodes": {"node-7": nodeNamed("node-7", func(n *corev1.Node) {
				n.Status.Conditions[0] = corev1.NodeCondition{Type: corev1.NodeReady, Status: corev1.ConditionUnknown, Reason: "NodeStatusUnknown", Message: "Kubelet stopped posting node status."}
			})}}}},
		{name: "namespace is being deleted", nothing: true, api: &api{refuse: map[string]*metav1.Status{"create jobs": status(403, metav1.StatusReasonForbidden,
			`jobs.batch "x" is forbidden: unable to create new content in namespace shop because it is being terminated`)}},
			code: "namespace-ending", texts: []string{`namespace "shop" of context "test" is being deleted`, "--agent-namespace"}},
		{name: "no pod in time", api: &api{}, o: Options{StartTimeout: 100 * time.Millisecond}, code: "agent-not-ready",
			texts: []string{"no pod for the job mirrord-agent-s1", "kubectl get events -n shop"}},
		{name: "not ready in time", o: Options{StartTimeout: time.Second}, api: &api{agent: []corev1.Pod{agentWaits("ContainerCreating", "")},
			events: []corev1.Event{{Type: corev1.EventTypeWarning, Reason: "FailedMount", Message: "disk on fire"}}},
			code: "agent-not-ready", texts: []string{"within 1s", "is Pending", "agent: ContainerCreating", "the node has not taken it up", "FailedMount: disk on fire"}},
		{name: "no image in this build", nothing: true, api: &api{}, o: Options{Image: "-"}, code: "agent-image", texts: []string{"--agent-image"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			cl := c.api.start(t, c.o)
			if c.o.Image == "-" {
				cl.options.Image = ""
			}
			_, err := cl.StartAgent(context.Background(), target, AgentSpec{Session: "s1", PublicKey: "KEY"}, nil)
			expect(t, err, c.code, c.texts...)
			if got := c.api.did("delete jobs"); got == c.nothing {
				t.Errorf("deleted the Job: %v, want %v", got, !c.nothing)
			}
			if c.api.job != nil {
				t.Error("the Job was left behind")
			}
		})
	}
}

// TestStartAgentWithoutEvents: who may not read events can still start agents.
func TestStartAgentWithoutEvents(t *testing.T) {
	a := &api{agent: []corev1.Pod{agentRuns()}, log: readyLog, forbid: map[string]bool{"watch events": true}}
	c := a.start(t, Options{})
	if _, err := c.StartAgent(context.Background(), target, AgentSpec{Session: "s1", PublicKey: "KEY"}, nil); err != nil {
		t.Fatal(err)
	}
}

// TestStartAgentOnUnknownNode: most users may not read nodes; what is wrong
// with one shows later.
func TestStartAgentOnUnknownNode(t *testing.T) {
	a := &api{agent: []corev1.Pod{agentRuns()}, log: readyLog, forbid: map[string]bool{"get nodes": true}}
	c := a.start(t, Options{Architecture: "arm64", PullPolicy: "Always"})
	if _, err := c.StartAgent(context.Background(), target, AgentSpec{Session: "s1", PublicKey: "KEY"}, nil); err != nil {
		t.Fatal(err)
	}
	if got := a.job.Spec.Template.Spec.Containers[0].ImagePullPolicy; got != corev1.PullAlways {
		t.Errorf("pull policy %q, want %q", got, corev1.PullAlways)
	}
}

func TestStartAgentOnLostNode(t *testing.T) {
	a := &api{others: objects{"nodes": {"node-7": nil}}}
	c := a.start(t, Options{})
	_, err := c.StartAgent(context.Background(), &Target{Namespace: "shop", Node: "node-8"}, AgentSpec{Session: "s1"}, nil)
	expect(t, err, "node-not-ready", `"node-8" is not there any more`)
}

func TestStartAgentCancelled(t *testing.T) {
	a := &api{agent: []corev1.Pod{agentWaits("ContainerCreating", "")}}
	c := a.start(t, Options{})
	ctx, cancel := context.WithCancel(context.Background())
	_, err := c.StartAgent(ctx, target, AgentSpec{Session: "s1", PublicKey: "KEY"}, func(string) { cancel() })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want %v", err, context.Canceled)
	}
	if a.job != nil || len(a.deleted) != 1 {
		t.Errorf("the Job was left behind: %d deletions", len(a.deleted))
	}
}

// TestStartAgentLeavesWord: what cannot be removed is named.
func TestStartAgentLeavesWord(t *testing.T) {
	a := &api{agent: []corev1.Pod{agentWaits("ErrImagePull", "")}, forbid: map[string]bool{"delete jobs": true}}
	c := a.start(t, Options{})
	_, err := c.StartAgent(context.Background(), target, AgentSpec{Session: "s1", PublicKey: "KEY"}, nil)
	expect(t, err, "agent-image", "could not be removed", "kubectl delete job mirrord-agent-s1 -n shop")
}

func TestDeleteRef(t *testing.T) {
	a := &api{agent: []corev1.Pod{agentRuns()}, log: readyLog}
	c := a.start(t, Options{})
	var ref Ref
	if _, err := c.StartAgent(context.Background(), target, AgentSpec{Session: "s1", PublicKey: "KEY", Owned: func(r Ref) { ref = r }}, nil); err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(ref)
	if err != nil {
		t.Fatal(err)
	}
	var again Ref
	if err := json.Unmarshal(b, &again); err != nil || again != ref {
		t.Fatalf("reference %+v came back as %+v, %v", ref, again, err)
	}
	if err := DeleteRef(context.Background(), again); err != nil {
		t.Fatal(err)
	}
	if a.job != nil || len(a.deleted) != 1 {
		t.Errorf("%d deletions, job %v", len(a.deleted), a.job)
	}
}

// TestDeleteWhileAway: an API server that restarts is asked again, as long as
// there is time.
func TestDeleteWhileAway(t *testing.T) {
	away := status(503, metav1.StatusReasonServiceUnavailable, "not yet")
	a := &api{refuse: map[string]*metav1.Status{"delete jobs": away}}
	c := a.start(t, Options{})
	ctx, cancel := context.WithTimeout(context.Background(), 3*againPause)
	defer cancel()
	ref := Ref{Namespace: "shop", Job: "mirrord-agent-s1", UID: "1"}
	if err := c.remove(ctx, ref); err == nil {
		t.Error("removed by nobody")
	}
	if n := a.count("delete jobs"); n < 2 {
		t.Errorf("asked %d times", n)
	}
}

func TestPassing(t *testing.T) {
	statusError := func(code int32) error {
		return &apierrors.StatusError{ErrStatus: *status(code, "", "x")}
	}
	for _, c := range []struct {
		name string
		err  error
		want bool
	}{
		{"nobody listens", &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}, true},
		{"no answer", fmt.Errorf("get: %w", errNoAnswer), true},
		{"cut", &url.Error{Op: "Get", Err: io.ErrUnexpectedEOF}, true},
		{"not ready", statusError(503), true},
		{"busy", statusError(429), true},
		{"no such thing", statusError(404), false},
		{"no permission", statusError(403), false},
		{"login", fmt.Errorf("getting credentials: %w", &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}), false},
		{"the end", context.Canceled, false},
	} {
		if got := passing(c.err); got != c.want {
			t.Errorf("%s: got %v, want %v", c.name, got, c.want)
		}
	}
}

// TestDeleteRefOfLateJob: the process that ordered the Job was killed before
// the order was carried out.
func TestDeleteRefOfLateJob(t *testing.T) {
	a := &api{}
	c := a.start(t, Options{})
	ref := Ref{Kubeconfig: c.options.Kubeconfig, Namespace: "shop", Job: "mirrord-agent-s1"}
	begin := time.Now()
	if err := DeleteRef(context.Background(), ref); err != nil {
		t.Errorf("of a Job that never comes: %v", err)
	}
	if took := time.Since(begin); took > lateCreation+time.Second {
		t.Errorf("took %v", took)
	}
	watches := a.count("watch jobs")
	done := make(chan error)
	go func() { done <- DeleteRef(context.Background(), ref) }()
	for a.count("watch jobs") == watches {
		time.Sleep(time.Millisecond)
	}
	err := c.batch.Post().Namespace("shop").Resource("jobs").Body(job("mirrord-agent-s1", "shop", Options{Image: "i"}, target, AgentSpec{})).Do(context.Background()).Error()
	if err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Errorf("of a Job that comes late: %v", err)
	}
	if a.job != nil {
		t.Error("the late Job was left behind")
	}
}

func TestAnnounced(t *testing.T) {
	long := strings.Repeat("x", 2*maxLogLine)
	said := protocol.Announcement{Software: "1", Key: "K", Port: 7, Messages: protocol.Versions{Min: 1, Max: 1}, Link: 1}
	for _, c := range []struct {
		name, log string
		want      announcement
		last      string
		again     bool // it is to be read again
	}{
		{name: "first line", log: `{"mirrord-agent":"1","key":"K","port":7}` + "\n", want: announcement{Announcement: said}},
		{name: "after other lines", log: "a\n{}\n\n[1]\n" + `{"mirrord-agent":"1","key":"K","port":7,"new":true}` + "\nz", want: announcement{Announcement: said}},
		{name: "without newline", log: `{"mirrord-agent":"1","key":"K","port":7}`, want: announcement{Announcement: said}},
		{name: "after a line without end", log: long + "\n" + `{"mirrord-agent":"1","key":"K","port":7}`, want: announcement{Announcement: said}},
		{name: "another user", log: `{"mirrord-agent":"1","as":{"uid":7,"gid":8,"groups":[9]}}`, want: announcement{As: &ids{UID: 7, GID: new(int64(8)), Groups: []int64{9}}}},
		{name: "never", log: "1\n2\n3\n4\n5\n6\n", last: "2 3 4 5 6"},
		{name: "empty", log: ""},
		{name: "not to be followed", log: "a\nfailed to create fsnotify watcher: too many open files", last: "a failed to create fsnotify watcher: too many open files", again: true},
		{name: "not to be followed any more", log: `{"mirrord-agent":"1","key":"K","port":7}` + "\nfailed to create fsnotify watcher: too many open files", want: announcement{Announcement: said}},
		{name: "no key", log: `{"mirrord-agent":"1","port":7}`, last: `{"mirrord-agent":"1","port":7}`},
		{name: "impossible port", log: `{"mirrord-agent":"1","key":"K","port":70000}`, last: `{"mirrord-agent":"1","key":"K","port":70000}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, last, err := announced(strings.NewReader(c.log))
			if !reflect.DeepEqual(got, c.want) || strings.Join(last, " ") != c.last || (err == nil) != (c.want.Port != 0 || c.want.As != nil) {
				t.Errorf("announced = %+v, %q, %v; want %+v, %q", got, last, err, c.want, c.last)
			}
			if again := err != nil && err != io.EOF && passing(err); again != c.again {
				t.Errorf("it is read again after %v: %v, want %v", err, again, c.again)
			}
		})
	}
}

func FuzzAnnounced(f *testing.F) {
	f.Add(readyLog)
	f.Add("{\"mirrord-agent\":\"1\",\"key\":\"K\",\"port\":7}")
	f.Add(`{"mirrord-agent":"1","as":{"uid":-7,"gid":null}}`)
	f.Add(strings.Repeat("{", 100))
	f.Fuzz(func(t *testing.T, log string) {
		a, last, err := announced(strings.NewReader(log))
		if err == nil && a.As == nil && (a.Key == "" || a.Port <= 0 || a.Port > 65535) || len(last) > keptLines {
			t.Errorf("announced = %+v, %q, %v", a, last, err)
		}
	})
}
