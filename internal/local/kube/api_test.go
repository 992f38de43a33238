package kube

import (
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/streaming/pkg/httpstream"
	"k8s.io/streaming/pkg/httpstream/spdy"

	"github.com/mirrord-go/mirrord/internal/failure"
)

// api is an API server that knows one namespace, "shop", and answers as the
// test says. Its fields are set before the first request.
type api struct {
	pods []corev1.Pod // there from the beginning
	// others are there too: objects by resource and name. Nodes that are not
	// among them are ready ones; namespaces are "shop" and these.
	others map[string]map[string]any
	denied map[string]bool   // what reviews of access deny, as "verb resource namespace"
	labels map[string]string // of every namespace
	agent  []corev1.Pod      // states of the agent's pod, told once the Job is there
	events []corev1.Event
	log    string // of the agent
	// forbid and refuse hold answers by "verb resource", as RBAC names them.
	forbid map[string]bool
	refuse map[string]*metav1.Status
	// hang names requests that are never answered.
	hang map[string]bool
	// serve is what the agent's port does with a connection; nil: it refuses.
	serve    func(*api, httpstream.Stream)
	wordless bool // the node closes without saying why
	// own answers first, if it is set and says true.
	own func(a *api, w http.ResponseWriter, r *http.Request, key string) bool

	mu      sync.Mutex
	asked   []string // "verb resource" of every request
	job     *batchv1.Job
	ordered chan struct{} // closed with the Job
	deleted []metav1.DeleteOptions
	conns   sync.WaitGroup // port-forwards
	ends    chan struct{}
}

const testPort = 4711

// start runs the server and returns a Cluster that talks to it, with o on top.
func (a *api) start(t testing.TB, o Options) *Cluster {
	t.Helper()
	before := runtime.NumGoroutine()
	a.ordered, a.ends = make(chan struct{}), make(chan struct{})
	server := secure(a)
	o.Kubeconfig = kubeconfig(t, server.URL, server.Certificate())
	if o.Image == "" {
		o.Image = "registry.example/agent:1"
	}
	c, err := Connect(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Close()
		close(a.ends)
		a.conns.Wait()
		server.CloseClientConnections()
		server.Close()
		c.Close()
		settle(t, before)
	})
	return c
}

// secure is a started server with TLS that keeps its complaints to itself.
func secure(h http.Handler) *httptest.Server {
	server := httptest.NewUnstartedServer(h)
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	return server
}

// settle waits until no more goroutines run than before.
func settle(t testing.TB, before int) {
	t.Helper()
	for end := time.Now().Add(3 * time.Second); runtime.NumGoroutine() > before; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			stacks := make([]byte, 1<<20)
			t.Fatalf("%d goroutines, %d before:\n%s", runtime.NumGoroutine(), before, stacks[:runtime.Stack(stacks, true)])
		}
	}
}

func kubeconfig(t testing.TB, server string, authority *x509.Certificate) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "kubeconfig")
	pemText := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: authority.Raw})
	text := fmt.Sprintf(`{"apiVersion": "v1", "kind": "Config", "current-context": "test",
		"clusters": [{"name": "c", "cluster": {"server": %q, "certificate-authority-data": %q}}], "users": [{"name": "u", "user": {"token": "secret"}}],
		"contexts": [{"name": "test", "context": {"cluster": "c", "user": "u", "namespace": "shop"}}]}`, server, base64.StdEncoding.EncodeToString(pemText))
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func (a *api) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	if parts[0] == "apis" {
		parts = parts[1:]
	}
	parts = append(parts, "", "", "", "", "")[min(2, len(parts)):] // [namespaces NS] RESOURCE [NAME [SUB]]
	namespace := ""
	if parts[0] == "namespaces" && parts[2] != "" {
		namespace, parts = parts[1], parts[2:]
	}
	resource, name, sub := parts[0], parts[1], parts[2]
	if resource == "" {
		resource = strings.Trim(r.URL.Path, "/") // /version
	}
	verb := map[string]string{"POST": "create", "DELETE": "delete", "GET": "get", "PATCH": "patch"}[r.Method]
	switch {
	case sub != "":
		resource += "/" + sub
	case r.URL.Query().Get("watch") != "":
		verb = "watch"
	case verb == "get" && name == "":
		verb = "list"
	}
	key := verb + " " + resource
	a.mu.Lock()
	a.asked = append(a.asked, key)
	a.mu.Unlock()
	if r.Header.Get("Authorization") != "Bearer secret" {
		a.fail(w, 401, "Unauthorized", "Unauthorized")
		return
	}
	if a.hang[key] {
		select {
		case <-r.Context().Done():
		case <-a.ends:
		}
		return
	}
	if a.forbid[key] {
		a.fail(w, 403, "Forbidden", fmt.Sprintf(`%s is forbidden: User "dev" cannot %s resource %q in API group "" in the namespace %q`, resource, verb, resource, namespace))
		return
	}
	if s := a.refuse[key]; s != nil {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(int(s.Code))
		json.NewEncoder(w).Encode(s)
		return
	}
	if a.own != nil && a.own(a, w, r, key) {
		return
	}
	switch key {
	case "get pods":
		for _, p := range a.pods {
			if p.Name == name {
				send(w, typed(&p))
				return
			}
		}
		a.fail(w, 404, "NotFound", fmt.Sprintf("pods %q not found", name))
	case "list pods":
		selector, err := labels.Parse(r.URL.Query().Get("labelSelector"))
		if err != nil {
			a.fail(w, 400, "BadRequest", err.Error())
			return
		}
		var found []corev1.Pod
		for _, p := range a.pods {
			if selector.Matches(labels.Set(p.Labels)) {
				found = append(found, p)
			}
		}
		send(w, &corev1.PodList{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "PodList"}, Items: found})
	case "list version":
		send(w, map[string]string{"gitVersion": "v1.99.0"})
	case "create selfsubjectaccessreviews":
		a.review(w, r)
	case "create pods": // only ever as a trial
		a.trial(w, r)
	case "list events":
		send(w, &corev1.EventList{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "EventList"}, Items: a.events})
	case "watch pods":
		var states []any
		a.mu.Lock()
		for _, p := range a.agent {
			states = append(states, typed(&p))
		}
		a.mu.Unlock()
		a.tell(w, r, states)
	case "watch events":
		var events []any
		for _, e := range a.events {
			e.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Event"}
			events = append(events, e)
		}
		a.tell(w, r, events)
	case "watch jobs":
		a.tell(w, r, []any{&batchv1.Job{TypeMeta: metav1.TypeMeta{APIVersion: "batch/v1", Kind: "Job"}}})
	case "create jobs":
		a.createJob(w, r)
	case "delete jobs":
		a.deleteJob(w, r, name)
	case "get pods/log":
		io.WriteString(w, a.log)
	case "get pods/portforward", "create pods/portforward":
		a.forward(w, r)
	case "get nodes", "get namespaces", "list nodes", "list namespaces":
		a.other(w, resource, name)
	default:
		if a.others[resource] == nil {
			a.fail(w, 404, "NotFound", "the server could not find the requested resource")
			return
		}
		a.other(w, resource, name)
	}
}

// other answers for objects of which the test's server knows no more than
// their text.
func (a *api) other(w http.ResponseWriter, resource, name string) {
	all := maps.Clone(a.others[resource])
	if all == nil {
		all = map[string]any{}
	}
	switch resource {
	case "namespaces":
		all["shop"] = map[string]any{"metadata": map[string]any{"name": "shop", "labels": a.labels}}
	case "nodes":
		if all["node-7"] == nil {
			all["node-7"] = nodeNamed("node-7", nil)
		}
	}
	if name == "" {
		send(w, map[string]any{"apiVersion": "v1", "kind": strings.ToUpper(resource[:1]) + resource[1:len(resource)-1] + "List", "items": slices.Collect(maps.Values(all))})
		return
	}
	if all[name] == nil {
		a.fail(w, 404, "NotFound", fmt.Sprintf("%s %q not found", resource, name))
		return
	}
	send(w, all[name])
}

// nodeNamed is a node that works, changed by change.
func nodeNamed(name string, change func(*corev1.Node)) *corev1.Node {
	n := &corev1.Node{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Node"}, ObjectMeta: metav1.ObjectMeta{Name: name}}
	n.Status.NodeInfo.OperatingSystem, n.Status.NodeInfo.Architecture = "linux", "amd64"
	n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}
	if change != nil {
		change(n)
	}
	return n
}

// review answers a SelfSubjectAccessReview.
func (a *api) review(w http.ResponseWriter, r *http.Request) {
	var v struct {
		Spec struct {
			ResourceAttributes struct{ Namespace, Verb, Group, Resource, Subresource string }
		}
	}
	if err := json.NewDecoder(r.Body).Decode(&v); err != nil {
		a.fail(w, 400, "BadRequest", err.Error())
		return
	}
	at := v.Spec.ResourceAttributes
	resource := strings.TrimSuffix(at.Resource+"."+at.Group, ".")
	if at.Subresource != "" {
		resource += "/" + at.Subresource
	}
	send(w, map[string]any{"status": map[string]any{"allowed": !a.denied[strings.TrimSpace(at.Verb+" "+resource+" "+at.Namespace)]}})
}

// trial answers what must be a dry run.
func (a *api) trial(w http.ResponseWriter, r *http.Request) {
	if r.URL.Query().Get("dryRun") != "All" {
		a.fail(w, 500, "InternalError", "this would have made something")
		return
	}
	w.Header().Set("Content-Type", "application/json")
	io.Copy(w, r.Body)
}

func typed(p *corev1.Pod) *corev1.Pod {
	p.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"}
	return p
}

func send(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(v)
}

func (a *api) fail(w http.ResponseWriter, code int32, reason metav1.StatusReason, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(int(code))
	json.NewEncoder(w).Encode(status(code, reason, message))
}

func status(code int32, reason metav1.StatusReason, message string) *metav1.Status {
	return &metav1.Status{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}, Status: "Failure", Code: code, Reason: reason, Message: message}
}

// tell answers a watch: objects come when the Job is there, then nothing.
func (a *api) tell(w http.ResponseWriter, r *http.Request, objects []any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(200)
	w.(http.Flusher).Flush()
	select {
	case <-a.ordered:
	case <-r.Context().Done():
		return
	case <-a.ends:
		return
	}
	for i, o := range objects {
		kind := "MODIFIED"
		if i == 0 {
			kind = "ADDED"
		}
		send(w, map[string]any{"type": kind, "object": o})
		w.(http.Flusher).Flush()
	}
	select {
	case <-r.Context().Done():
	case <-a.ends:
	}
}

func (a *api) createJob(w http.ResponseWriter, r *http.Request) {
	if r.URL.Query().Get("dryRun") != "" {
		a.trial(w, r)
		return
	}
	j := &batchv1.Job{}
	if err := json.NewDecoder(r.Body).Decode(j); err != nil {
		a.fail(w, 400, "BadRequest", err.Error())
		return
	}
	j.UID = "job-uid"
	a.mu.Lock()
	a.job = j
	a.mu.Unlock()
	close(a.ordered)
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(201)
	json.NewEncoder(w).Encode(j)
}

func (a *api) deleteJob(w http.ResponseWriter, r *http.Request, name string) {
	var o metav1.DeleteOptions
	if err := json.NewDecoder(r.Body).Decode(&o); err != nil {
		a.fail(w, 400, "BadRequest", err.Error())
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.job == nil || a.job.Name != name {
		a.fail(w, 404, "NotFound", fmt.Sprintf("jobs.batch %q not found", name))
		return
	}
	a.deleted = append(a.deleted, o)
	a.job = nil
	send(w, metav1.Status{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}, Status: "Success"})
}

// forward is the node's end of a port-forward, over either upgrade.
func (a *api) forward(w http.ResponseWriter, r *http.Request) {
	a.conns.Add(1)
	defer a.conns.Done()
	streams := make(chan httpstream.Stream, 2)
	accept := func(s httpstream.Stream, _ <-chan struct{}) error { streams <- s; return nil }
	var conn httpstream.Connection
	if websocket.IsWebSocketUpgrade(r) {
		up := websocket.Upgrader{Subprotocols: []string{tunnelPrefix + portforward.PortForwardProtocolV1Name}}
		ws, err := up.Upgrade(w, r, nil)
		if err != nil {
			return
		}
		if conn, err = spdy.NewServerConnection(&framed{Conn: portforward.NewTunnelingConnection("server", ws)}, accept); err != nil {
			return
		}
	} else {
		if _, err := httpstream.Handshake(r, w, []string{portforward.PortForwardProtocolV1Name}); err != nil {
			return
		}
		if conn = spdy.NewResponseUpgrader().UpgradeResponse(w, r, accept); conn == nil {
			return
		}
	}
	defer conn.Close()
	var data, faults httpstream.Stream
	for data == nil || faults == nil {
		select {
		case s := <-streams:
			if s.Headers().Get(corev1.StreamType) == corev1.StreamTypeError {
				faults = s
			} else {
				data = s
			}
		case <-conn.CloseChan():
			return
		case <-a.ends:
			return
		}
	}
	switch {
	case data.Headers().Get(corev1.PortHeader) != strconv.Itoa(testPort), a.serve == nil:
		if !a.wordless {
			io.WriteString(faults, "connection refused")
		}
	default:
		served := make(chan struct{})
		go func() { defer close(served); a.serve(a, data) }()
		select {
		case <-served:
		case <-conn.CloseChan():
			<-served
		}
	}
	data.Close()
	faults.Close()
	select { // the client closes
	case <-conn.CloseChan():
	case <-a.ends:
	}
}

// did tells whether a request was made, count how often.
func (a *api) did(key string) bool { return a.count(key) > 0 }

func (a *api) count(key string) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	n := 0
	for _, k := range a.asked {
		if k == key {
			n++
		}
	}
	return n
}

// expect fails unless err is a failure with code whose parts hold the texts.
func expect(t *testing.T, err error, code string, texts ...string) *failure.Error {
	t.Helper()
	f, ok := errors.AsType[*failure.Error](err)
	if !ok {
		t.Fatalf("error %v is no failure; want code %s", err, code)
	}
	if f.Code != code {
		t.Errorf("code %s, want %s: %v", f.Code, code, f)
	}
	whole := f.What + "\n" + f.Why + "\n" + f.Do
	for _, text := range texts {
		if !strings.Contains(whole, text) {
			t.Errorf("failure does not say %q:\n%s", text, whole)
		}
	}
	if f.What == "" || f.Do == "" || strings.HasSuffix(f.What, ".") {
		t.Errorf("failure is not whole: %+v", f)
	}
	return f
}
