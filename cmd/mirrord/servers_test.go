package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"testing"
)

// A team is a registry of images that ana may use.
type team struct{ registry http.Handler }

func (s team) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if user, password, _ := r.BasicAuth(); user != "ana" || password != "s3cr3t" {
		w.Header().Set("WWW-Authenticate", `Basic realm="team"`)
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	s.registry.ServeHTTP(w, r)
}

// A crowd is an API server with this many ready pods, and a deployment of them
// all, in every namespace; and nothing that is called nobody.
type crowd int

func (pods crowd) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	type object = map[string]any
	if path.Base(r.URL.Path) == "nobody" {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusNotFound)
		_ = json.NewEncoder(w).Encode(object{"apiVersion": "v1", "kind": "Status", "status": "Failure", "reason": "NotFound", "code": http.StatusNotFound})
		return
	}
	items := []object{}
	add := func(name string, spec, status object) {
		items = append(items, object{"metadata": object{"name": name, "creationTimestamp": "2026-01-01T00:00:00Z"}, "spec": spec, "status": status})
	}
	containers := []object{{"name": "app", "image": "app:1", "ports": []object{{"containerPort": 8080}}}}
	kind := map[string]string{"pods": "PodList", "namespaces": "NamespaceList"}[path.Base(r.URL.Path)]
	switch path.Base(r.URL.Path) {
	case "pods":
		for i := range int(pods) {
			add(fmt.Sprintf("web-%04d", i), object{"containers": containers}, object{"phase": "Running", "containerStatuses": []object{{"name": "app", "ready": true}}})
		}
	case "deployments":
		add("web", object{"replicas": pods, "template": object{"spec": object{"containers": containers}}}, object{"readyReplicas": pods})
	case "namespaces":
		add("shop", nil, nil)
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(object{"apiVersion": "v1", "kind": kind, "items": items})
}

// kubeconfigOf writes one that leads to an API server, and gives its name.
func kubeconfigOf(t *testing.T, dir, url string) string {
	t.Helper()
	name := filepath.Join(dir, "kubeconfig")
	text := fmt.Sprintf(`{"apiVersion": "v1", "kind": "Config", "current-context": "here",
		"clusters": [{"name": "c", "cluster": {"server": %q}}], "users": [{"name": "u", "user": {}}],
		"contexts": [{"name": "here", "context": {"cluster": "c", "user": "u", "namespace": "shop"}}]}`, url)
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}
