package kube

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/mirrord-go/mirrord/internal/failure"
)

// userPod is a pod whose container runs as the security context says.
func userPod(pod *corev1.PodSecurityContext, c *corev1.SecurityContext) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "web-1", Namespace: "shop", UID: "u"}, Spec: corev1.PodSpec{SecurityContext: pod,
		Containers: []corev1.Container{{Name: "side"}, {Name: "app", SecurityContext: c}}}}
}

// TestSecurities: the ways to run the agent in the target's pod, by who the
// target is and what is wanted. One line a way: user, group, must not be root,
// capabilities added and dropped, what is lost.
func TestSecurities(t *testing.T) {
	basic := []Feature{FeatureNetwork, FeatureFiles}
	mirror, steal := append(basic, FeatureMirror), append(basic, FeatureSteal)
	unknown := userPod(nil, nil)
	known := userPod(&corev1.PodSecurityContext{RunAsUser: new(int64(7)), RunAsGroup: new(int64(8))}, &corev1.SecurityContext{RunAsUser: new(int64(1234))})
	nonRoot := userPod(&corev1.PodSecurityContext{RunAsNonRoot: new(true)}, nil)
	root := userPod(nil, &corev1.SecurityContext{RunAsUser: new(int64(0)),
		Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}, Add: []corev1.Capability{"CHOWN"}}})
	reported := userPod(nil, nil)
	reported.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "app", User: &corev1.ContainerUser{Linux: &corev1.LinuxContainerUser{UID: 33, GID: 34}}}}
	for _, c := range []struct {
		name     string
		pod      *corev1.Pod
		features []Feature
		as       *ids
		want     []string
	}{
		{"known user", known, basic, nil, []string{"1234 8 true [] [ALL] []"}},
		{"known user, mirror", known, mirror, nil, []string{"0 0 false [SETUID SETGID NET_RAW] [ALL] []", "0 0 false [] [] []", "1234 8 true [] [ALL] [mirror]"}},
		{"known user, steal", known, steal, nil, []string{"0 0 false [SETUID SETGID NET_ADMIN BPF] [ALL] []", "1234 8 true [] [ALL] [steal]"}},
		{"the image's user", unknown, basic, nil, []string{"0 0 false [] [] []", "65534 ? true [] [ALL] []"}},
		{"the image's user, mirror", unknown, mirror, nil, []string{"0 0 false [NET_RAW] [] []", "0 0 false [] [] []", "65534 ? true [] [ALL] [mirror]"}},
		{"the image's user, never root", nonRoot, basic, nil, []string{"65534 ? true [] [ALL] []"}},
		{"found out", nonRoot, basic, &ids{UID: 5, GID: new(int64(6))}, []string{"5 6 true [] [ALL] []"}},
		{"root", root, basic, nil, []string{"0 0 false [CHOWN] [ALL] []"}},
		{"root, steal", root, steal, nil, []string{"0 0 false [BPF CHOWN NET_ADMIN] [ALL] []", "0 0 false [CHOWN] [ALL] [steal]"}},
		{"the node's report", reported, basic, nil, []string{"33 34 true [] [ALL] []"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got []string
			for _, w := range securities(&Target{Container: "app", pod: c.pod}, c.features, c.as) {
				gid, caps := "?", corev1.Capabilities{}
				if w.context.RunAsGroup != nil {
					gid = fmt.Sprint(*w.context.RunAsGroup)
				}
				if w.context.Capabilities != nil {
					caps = *w.context.Capabilities
				}
				got = append(got, fmt.Sprintf("%d %s %v %v %v %v", *w.context.RunAsUser, gid, *w.context.RunAsNonRoot, caps.Add, caps.Drop, w.lost))
				if sc := w.context; !*sc.ReadOnlyRootFilesystem || *sc.AllowPrivilegeEscalation || sc.SeccompProfile == nil || sc.Privileged != nil {
					t.Errorf("not confined: %+v", sc)
				}
			}
			if strings.Join(got, "\n") != strings.Join(c.want, "\n") {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(c.want, "\n"))
			}
		})
	}
}

// TestEphemeral: what the cluster gets, as a golden file.
func TestEphemeral(t *testing.T) {
	target := &Target{Namespace: "shop", Pod: "web-1", Container: "app", ContainerID: "0123abcd", HostNetwork: true,
		pod: userPod(nil, &corev1.SecurityContext{RunAsUser: new(int64(1234)), RunAsGroup: new(int64(99))})}
	s := AgentSpec{Session: "s1", PublicKey: "KEY", Features: []Feature{FeatureNetwork, FeatureFiles}, InPod: true}
	got, err := json.MarshalIndent(ephemeral("mirrord-agent-s1", Options{Image: "i"}, target, s, securities(target, s.Features, nil)[0].context), "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	const file = "testdata/ephemeral.json"
	if *update {
		if err := os.WriteFile(file, append(got, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if string(got)+"\n" != string(want) {
		t.Errorf("the container is not that of %s (see what changed with -update):\n%s", file, got)
	}
	target.pod.Spec.ShareProcessNamespace = new(true)
	if args := strings.Join(arguments(target, s), " "); !strings.Contains(args, "-container 0123abcd -in-pod") || strings.Contains(args, "-pid") {
		t.Errorf("among the processes of the whole pod: %s", args)
	}
}

// admission is a pod's ephemeralcontainers, and the policies before it.
type admission struct {
	refuses func(c corev1.EphemeralContainer) string // by a policy; empty: it does not
	answer  *metav1.Status                           // instead
	logs    []string                                 // of the containers in the order of their coming
	got     []corev1.EphemeralContainer
	pod     corev1.Pod
}

// serve answers what the test's API server does not know.
func (ad *admission) serve(a *api, w http.ResponseWriter, r *http.Request, key string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch key {
	case "patch pods/ephemeralcontainers":
		if ad.answer != nil {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(int(ad.answer.Code))
			json.NewEncoder(w).Encode(ad.answer)
			return true
		}
		var p struct {
			Spec struct{ EphemeralContainers []corev1.EphemeralContainer }
		}
		b, _ := io.ReadAll(r.Body)
		if err := json.Unmarshal(b, &p); err != nil || len(p.Spec.EphemeralContainers) != 1 || r.Header.Get("Content-Type") != "application/strategic-merge-patch+json" {
			a.fail(w, 400, "BadRequest", fmt.Sprintf("%s: %v", b, err))
			return true
		}
		c := p.Spec.EphemeralContainers[0]
		if why := ad.refuses(c); why != "" {
			a.fail(w, 403, "Forbidden", `pods "web-1" is forbidden: violates PodSecurity "x": `+why)
			return true
		}
		if r.URL.Query().Get("dryRun") == "" {
			ad.got = append(ad.got, c)
			ad.pod.Status.EphemeralContainerStatuses = append(ad.pod.Status.EphemeralContainerStatuses,
				corev1.ContainerStatus{Name: c.Name, State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}})
		}
		send(w, typed(&ad.pod))
	case "watch pods":
		w.Header().Set("Content-Type", "application/json")
		send(w, map[string]any{"type": "ADDED", "object": typed(&ad.pod)})
	case "get pods/log":
		name := r.URL.Query().Get("container")
		for i, c := range ad.got {
			if c.Name == name {
				io.WriteString(w, ad.logs[i])
			}
		}
	default:
		return false
	}
	return true
}

func TestStartInPod(t *testing.T) {
	const as = `{"mirrord-agent":"1","as":{"uid":33,"gid":34}}` + "\n"
	noCaps := func(c corev1.EphemeralContainer) string {
		if k := c.SecurityContext.Capabilities; k != nil && len(k.Add) > 0 {
			return "capabilities"
		}
		return ""
	}
	restricted := func(c corev1.EphemeralContainer) string {
		if !*c.SecurityContext.RunAsNonRoot {
			return "runAsNonRoot != true"
		}
		return ""
	}
	noRaw := func(c corev1.EphemeralContainer) string {
		if k := c.SecurityContext.Capabilities; k != nil && slices.Contains(k.Add, "NET_RAW") {
			return "NET_RAW is not allowed"
		}
		return ""
	}
	all := func(corev1.EphemeralContainer) string { return "" }
	user := userPod(nil, &corev1.SecurityContext{RunAsUser: new(int64(1234)), RunAsGroup: new(int64(8))})
	for _, c := range []struct {
		name     string
		ad       *admission
		pod      *corev1.Pod
		features []Feature
		lost     string
		code     string
		says     []string
		users    string // of the containers that were made
	}{
		{name: "without capability", ad: &admission{refuses: restricted, logs: []string{readyLog}}, pod: user, users: "1234"},
		{name: "mirror", ad: &admission{refuses: all, logs: []string{readyLog}}, pod: user, features: []Feature{FeatureMirror}, users: "0"},
		{name: "mirror by the runtime's grace", ad: &admission{refuses: noCaps, logs: []string{readyLog}}, pod: user, features: []Feature{FeatureMirror}, users: "0"},
		{name: "no mirror", ad: &admission{refuses: restricted, logs: []string{readyLog}}, pod: user, features: []Feature{FeatureMirror}, users: "1234", lost: "NET_RAW"},
		{name: "steal", ad: &admission{refuses: all, logs: []string{readyLog}}, pod: user, features: []Feature{FeatureSteal}, users: "0"},
		{name: "no steal", ad: &admission{refuses: noCaps}, pod: user, features: []Feature{FeatureSteal}, code: "agent-refused", says: []string{"NET_ADMIN, BPF", "capabilities", "leave --steal away"}},
		{name: "no steal that ends connections", ad: &admission{refuses: noRaw}, pod: user, features: []Feature{FeatureSteal, FeatureDrain}, code: "agent-refused",
			says: []string{"NET_ADMIN, BPF, NET_RAW", "NET_RAW is not allowed", `{"agent": {"flush_connections": false}}`, "leave --steal away"}},
		{name: "steal that ends none", ad: &admission{refuses: noRaw, logs: []string{readyLog}}, pod: user, features: []Feature{FeatureSteal}, users: "0"},
		{name: "nothing at all", ad: &admission{refuses: func(corev1.EphemeralContainer) string { return "nobody" }}, pod: user, code: "agent-refused", says: []string{"nobody"}},
		{name: "the image's user", ad: &admission{refuses: restricted, logs: []string{as, readyLog}}, pod: userPod(nil, nil), users: "65534 33"},
		{name: "changing users", ad: &admission{refuses: restricted, logs: []string{as, as}}, pod: userPod(nil, nil), code: "target-unreachable", users: "65534 33"},
		{name: "no permission", ad: &admission{answer: status(403, "Forbidden", `pods "web-1" is forbidden: User "dev" cannot patch resource "pods/ephemeralcontainers" in API group "" in the namespace "shop"`)},
			pod: user, code: "forbidden", says: []string{"patch pods/ephemeralcontainers", `resources: ["pods/ephemeralcontainers"], verbs: [patch]`}},
		{name: "an old cluster", ad: &admission{answer: status(404, "NotFound", "the server could not find the requested resource")}, pod: user, code: "ephemeral-unknown", says: []string{"1.23"}},
		{name: "no such pod", ad: &admission{answer: status(404, "NotFound", `pods "web-1" not found`)}, pod: user, code: "target-not-found"},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.ad.pod = *c.pod.DeepCopy()
			a := &api{own: c.ad.serve}
			cl := a.start(t, Options{})
			target := &Target{Namespace: "shop", Pod: "web-1", UID: "u", Node: "node-7", Container: "app", pod: c.pod}
			owned := false
			agent, err := cl.StartAgent(context.Background(), target, AgentSpec{Session: "s1", PublicKey: "K", Features: c.features, InPod: true, Owned: func(Ref) { owned = true }}, nil)
			var users []string
			for _, got := range c.ad.got {
				users = append(users, fmt.Sprint(*got.SecurityContext.RunAsUser))
			}
			if got := strings.Join(users, " "); got != c.users {
				t.Errorf("agents of users %q, want %q", got, c.users)
			}
			if c.code != "" {
				expect(t, err, c.code, c.says...)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(agent.Lost, "\n"); (got == "") != (c.lost == "") || !strings.Contains(got, c.lost) {
				t.Errorf("lost: %q, want %q", got, c.lost)
			}
			if agent.Pod != "web-1" || agent.Announced.Key == "" || owned || a.did("create jobs") || a.did("delete jobs") {
				t.Errorf("agent %+v, owned: %v, asked %v", agent, owned, a.asked)
			}
			if err := DeleteRef(context.Background(), agent.Ref()); err != nil {
				t.Errorf("of another process: %v", err)
			}
			if err := agent.Delete(context.Background()); err != nil {
				t.Errorf("there is nothing to remove: %v", err)
			}
		})
	}
}

// TestTryInPod: the doctor's rehearsal makes nothing.
func TestTryInPod(t *testing.T) {
	ad := &admission{refuses: func(corev1.EphemeralContainer) string { return "" }}
	cl := (&api{own: ad.serve}).start(t, Options{})
	target := &Target{Namespace: "shop", Pod: "web-1", Container: "app"}
	if err := cl.TryAgent(context.Background(), target, []Feature{FeatureNetwork}, true); err != nil || len(ad.got) > 0 {
		t.Errorf("%v; made %v", err, ad.got)
	}
	ad.refuses = func(corev1.EphemeralContainer) string { return "all of it" }
	err := cl.TryAgent(context.Background(), target, []Feature{FeatureNetwork}, true)
	if f := failure.From(err); f.Code != "agent-refused" || !strings.Contains(f.Why, "all of it") {
		t.Errorf("refused: %v", err)
	}
}
