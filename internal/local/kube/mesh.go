package kube

import (
	"context"
	"errors"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/mirrord-go/mirrord/internal/failure"
)

// This file is about what stands between a pod's clients and its ports, as far as
// the API server knows.

// proxies are the containers of meshes that take a pod's traffic.
var proxies = map[string]string{"istio-proxy": "Istio", "linkerd-proxy": "Linkerd", "kuma-sidecar": "Kuma", "consul-dataplane": "Consul"}

// ambient is Istio's annotation of pods whose traffic its node's proxy takes.
const ambient = "ambient.istio.io/redirection"

// Mesh is the service mesh that takes the pod's traffic; empty: none that is
// known.
func (t *Target) Mesh() string {
	if t.pod == nil {
		return ""
	}
	for _, c := range slices.Concat(t.pod.Spec.Containers, t.pod.Spec.InitContainers) {
		if name := proxies[c.Name]; name != "" {
			return name
		}
	}
	if t.pod.Annotations[ambient] == "enabled" {
		return "Istio (ambient)"
	}
	return ""
}

// features are what an agent beside t needs for those of a session: only
// connection tracking knows which copies would be made twice in a mesh.
func (t *Target) features(wanted []Feature) []Feature {
	if t.Mesh() == "" || !slices.Contains(wanted, FeatureMirror) {
		return wanted
	}
	return append(slices.Clone(wanted), FeatureMesh)
}

// refusedOfMesh is why the cluster refuses an agent that takes more capabilities
// in a mesh than its session wants; empty: it does not, or all are wanted, as
// stealing wants them.
func refusedOfMesh(err error, wanted, features []Feature) string {
	if len(features) == len(wanted) || slices.Contains(wanted, FeatureSteal) {
		return ""
	}
	return refused(err)
}

// refused is why the cluster refuses an agent; empty: err is something else.
func refused(err error) string {
	if f := (*failure.Error)(nil); errors.As(err, &f) && f.Code == "agent-refused" {
		return f.Why
	}
	return ""
}

// byCilium reports whether Cilium is a node's network.
func byCilium(n *corev1.Node) bool {
	return slices.ContainsFunc(n.Status.Conditions, func(c corev1.NodeCondition) bool {
		return c.Type == corev1.NodeNetworkUnavailable && c.Reason == "CiliumIsUp"
	})
}

// CiliumSettings are those of the cluster's Cilium, by its own names. Many users
// may not read them: codes of any request.
func (c *Cluster) CiliumSettings(ctx context.Context) (map[string]string, error) {
	const namespace, name = "kube-system", "cilium-config"
	m := &corev1.ConfigMap{}
	err := c.core.Get().Namespace(namespace).Resource("configmaps").Name(name).Do(impatient(ctx)).Into(m)
	if err != nil {
		return nil, c.explain(ctx, err, "get", "configmaps", namespace)
	}
	return m.Data, nil
}
