package doctor

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mirrord-go/mirrord/internal/leak"
	"github.com/mirrord-go/mirrord/internal/local/kube"
)

func TestMain(m *testing.M) { os.Exit(leak.Main(m)) }

// lines are checks as text: "good user namespaces", "bad /dev/fuse no-fuse".
func lines(checks []Check) string {
	var all []string
	for _, c := range checks {
		line := string(c.State) + " " + c.Name
		if c.Failure != nil {
			line += " " + c.Failure.Code
		}
		all = append(all, line)
	}
	return strings.Join(all, "\n")
}

// A cluster of one pod whose API server says what the test wants.
type cluster struct {
	denied  string // "verb resource" that reviews deny, separated by commas
	refusal string // of a pod on trial
	version int    // status of the answer, if not 200
	login   int    // status of reviews, if not 200
	arch    string
	sidecar string // container of the pod besides its own
	cilium  string // settings of Cilium, as JSON; empty: it is not there
}

func (a cluster) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	fail := func(code int, message string) {
		w.WriteHeader(code)
		fmt.Fprintf(w, `{"apiVersion": "v1", "kind": "Status", "status": "Failure", "code": %d, "reason": %q, "message": %q}`,
			code, map[int]string{401: "Unauthorized", 403: "Forbidden", 404: "NotFound"}[code], message)
	}
	node := fmt.Sprintf(`{"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}, "status": {"nodeInfo": {"operatingSystem": "linux", "architecture": %q}, "conditions": %s}}`,
		a.arch, map[bool]string{true: `[{"type": "NetworkUnavailable", "status": "False", "reason": "CiliumIsUp"}]`, false: "[]"}[a.cilium != ""])
	switch path := r.Method + " " + r.URL.Path; {
	case path == "GET /version" && a.version != 0:
		fail(a.version, "no")
	case path == "GET /version":
		fmt.Fprint(w, `{"gitVersion": "v1.99.0"}`)
	case strings.HasSuffix(path, "/selfsubjectaccessreviews") && a.login != 0:
		fail(a.login, "Unauthorized")
	case strings.HasSuffix(path, "/selfsubjectaccessreviews"):
		var v struct {
			Spec struct {
				ResourceAttributes struct{ Verb, Resource, Subresource string }
			}
		}
		json.NewDecoder(r.Body).Decode(&v)
		at := v.Spec.ResourceAttributes
		what := strings.TrimSuffix(at.Verb+" "+at.Resource+"/"+at.Subresource, "/")
		fmt.Fprintf(w, `{"status": {"allowed": %v}}`, !strings.Contains(","+a.denied+",", ","+what+","))
	case path == "GET /api/v1/nodes":
		fmt.Fprintf(w, `{"apiVersion": "v1", "kind": "NodeList", "items": [%s]}`, node)
	case path == "GET /api/v1/nodes/n1":
		fmt.Fprint(w, node)
	case path == "GET /api/v1/namespaces/shop":
		fmt.Fprint(w, `{"metadata": {"name": "shop"}}`)
	case path == "GET /api/v1/namespaces/shop/pods/web":
		fmt.Fprintf(w, `{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web", "namespace": "shop"}, "spec": {"nodeName": "n1", "containers": [{"name": "app"}], "initContainers": [{"name": %q}]},
			"status": {"phase": "Running", "containerStatuses": [{"name": "app", "ready": true, "containerID": "containerd://1", "state": {"running": {}}}]}}`, a.sidecar)
	case path == "GET /api/v1/namespaces/kube-system/configmaps/cilium-config" && a.cilium == "forbidden":
		fail(403, "no")
	case path == "GET /api/v1/namespaces/kube-system/configmaps/cilium-config":
		fmt.Fprintf(w, `{"apiVersion": "v1", "kind": "ConfigMap", "data": %s}`, a.cilium)
	case r.Method == "POST" && r.URL.Query().Get("dryRun") == "All" && strings.HasSuffix(path, "/jobs"):
		fmt.Fprint(w, `{"apiVersion": "batch/v1", "kind": "Job"}`)
	case r.Method == "POST" && r.URL.Query().Get("dryRun") == "All" && a.refusal != "":
		fail(403, a.refusal)
	case r.Method == "POST" && r.URL.Query().Get("dryRun") == "All":
		fmt.Fprint(w, `{"apiVersion": "v1", "kind": "Pod"}`)
	default:
		fail(404, r.URL.Path+" not found")
	}
}

func TestCluster(t *testing.T) {
	for _, c := range []struct {
		name   string
		api    cluster
		target string
		ok     bool
		want   []string // among the lines
		texts  []string // among what is said
	}{
		{"all is there", cluster{arch: "amd64"}, "pod/web", true, []string{"good kubeconfig", "good API server", "good login", "good may get pods",
			"good may get, create pods/portforward", "good target", "good node", "good agent allowed", "good agent's image"},
			[]string{`context "test"`, "v1.99.0", "pod/web/container/app on node n1", "n1 (linux/amd64)", "registry.example/agent:1"}},
		{"no target", cluster{arch: "amd64"}, "", true, []string{"skipped target", "good node", "good agent allowed"}, []string{"mirrord doctor -t pod/NAME"}},
		{"in a mesh", cluster{arch: "amd64", sidecar: "istio-proxy"}, "pod/web", true, []string{"good service mesh"}, []string{"Istio: the program gets what its proxy sends on"}},
		{"Cilium", cluster{arch: "amd64", cilium: `{"kube-proxy-replacement": "true"}`}, "pod/web", true, []string{"good Cilium"}, []string{"socket-level load balancing"}},
		{"Cilium below a mesh", cluster{arch: "amd64", sidecar: "linkerd-proxy", cilium: `{"kube-proxy-replacement": "true"}`}, "pod/web", true, []string{"good service mesh", "skipped Cilium"},
			[]string{"socketLB.hostNamespaceOnly=true"}},
		{"Cilium's settings are not to be read", cluster{arch: "amd64", cilium: "forbidden"}, "pod/web", true, []string{"skipped Cilium"}, []string{"kubectl get configmap cilium-config"}},
		{"no such target", cluster{arch: "amd64"}, "pod/wbe", false, []string{"bad target target-not-found", "good agent allowed"}, nil},
		{"API server in trouble", cluster{version: 500}, "", false, []string{"good kubeconfig", "bad API server cluster-error"}, nil},
		{"login expired", cluster{login: 401}, "", false, []string{"good API server", "bad login cluster-login"}, nil},
		{"permission missing", cluster{arch: "amd64", denied: "create pods/portforward"}, "pod/web", false, []string{"bad may get, create pods/portforward forbidden"},
			[]string{"you may not create pods/portforward", `{apiGroups: [""], resources: ["pods/portforward"], verbs: [create]}`}},
		{"permission that is a comfort", cluster{arch: "amd64", denied: "watch events"}, "pod/web", true, []string{"skipped may watch events"}, []string{"known late"}},
		{"other architecture", cluster{arch: "arm64"}, "pod/web", false, []string{"bad node agent-architecture"}, []string{"the node is arm64"}},
		{"policy", cluster{arch: "amd64", refusal: `pods "x" is forbidden: violates PodSecurity "baseline:latest": hostPID=true`}, "pod/web", false,
			[]string{"bad agent allowed agent-refused"}, []string{`violates PodSecurity "baseline:latest": hostPID=true`, "--agent-namespace"}},
		{"may not make pods", cluster{arch: "amd64", refusal: `pods is forbidden: User "dev" cannot create resource "pods"`}, "pod/web", true,
			[]string{"skipped agent allowed"}, []string{"you may not create pods"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			server := httptest.NewServer(c.api)
			defer server.Close()
			file := filepath.Join(t.TempDir(), "kubeconfig")
			err := os.WriteFile(file, fmt.Appendf(nil, `{"apiVersion": "v1", "kind": "Config", "current-context": "test", "clusters": [{"name": "c", "cluster": {"server": %q}}],
				"users": [{"name": "u", "user": {}}], "contexts": [{"name": "test", "context": {"cluster": "c", "user": "u", "namespace": "shop"}}]}`, server.URL), 0o600)
			if err != nil {
				t.Fatal(err)
			}
			var got []Check
			d := &doctor{o: Options{Target: c.target, Show: func(c Check) { got = append(got, c) }, Kube: kube.Options{Kubeconfig: file, Image: "registry.example/agent:1", Architecture: "amd64"},
				Features: []kube.Feature{kube.FeatureNetwork}}, ok: true}
			d.cluster(context.Background())
			if d.ok != c.ok {
				t.Errorf("ok %v, want %v", d.ok, c.ok)
			}
			said, err := json.Marshal(got)
			if err != nil {
				t.Fatal(err)
			}
			for _, want := range c.want {
				if !strings.Contains("\n"+lines(got)+"\n", "\n"+want+"\n") {
					t.Errorf("no line %q in:\n%s", want, lines(got))
				}
			}
			for _, text := range c.texts {
				if quoted, _ := json.Marshal(text); !strings.Contains(string(said), strings.Trim(string(quoted), `"`)) {
					t.Errorf("does not say %q:\n%s", text, said)
				}
			}
		})
	}
}
