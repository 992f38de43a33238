package kube

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/mirrord-go/mirrord/internal/failure"
)

func anywhere(t *testing.T) *Cluster {
	t.Helper()
	server := httptest.NewTLSServer(http.NotFoundHandler())
	t.Cleanup(server.Close)
	c, err := Connect(Options{Kubeconfig: kubeconfig(t, server.URL, server.Certificate())})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// Of two verbs the one that lacks is named, with the command that prints all.
func TestLackingVerb(t *testing.T) {
	refusal := apierrors.NewForbidden(schema.GroupResource{Resource: "pods"}, "web-1",
		errors.New(`User "dev" cannot create resource "pods/portforward" in API group "" in the namespace "shop"`))
	err := anywhere(t).explain(t.Context(), refusal, "get and create", "pods/portforward", "shop")
	expect(t, err, "forbidden", "you may not create pods/portforward", "verbs: [create]",
		"kubectl auth can-i create pods --subresource=portforward -n shop", "mirrord rbac -n shop -t TARGET")
}

// The arguments of a login program may hold what it logs in with.
func TestFailedLoginProgram(t *testing.T) {
	c := anywhere(t)
	c.config.ExecProvider = &clientcmdapi.ExecConfig{Command: "login", Args: []string{"--password=secret"}}
	err := c.explain(t.Context(), errors.New("getting credentials: exec: executable login failed with exit code 1"), "get", "pods", "shop")
	expect(t, err, "cluster-login", `"login" of the kubeconfig has failed`, "kubectl get pods -n shop")
	if f := failure.From(err); strings.Contains(f.Error()+f.Do, "secret") {
		t.Errorf("its arguments are said: %v; %s", f, f.Do)
	}
}
