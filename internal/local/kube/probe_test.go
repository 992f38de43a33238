package kube

import (
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

func TestProbes(t *testing.T) {
	always := corev1.ContainerRestartPolicyAlways
	http := func(port intstr.IntOrString, path string, change ...func(*corev1.HTTPGetAction)) *corev1.Probe {
		g := &corev1.HTTPGetAction{Port: port, Path: path}
		for _, c := range change {
			c(g)
		}
		return &corev1.Probe{ProbeHandler: corev1.ProbeHandler{HTTPGet: g}}
	}
	pod := &corev1.Pod{}
	pod.Status.PodIP = "10.0.0.7"
	pod.Spec.InitContainers = []corev1.Container{
		{Name: "migrate", Ports: []corev1.ContainerPort{{ContainerPort: 1}}},
		{Name: "proxy", RestartPolicy: &always, ReadinessProbe: http(intstr.FromInt32(15021), "/healthz/ready")}}
	pod.Spec.Containers = []corev1.Container{
		{Name: "app", Ports: []corev1.ContainerPort{{Name: "web", ContainerPort: 8080}, {Name: "dns", ContainerPort: 53, Protocol: corev1.ProtocolUDP}},
			StartupProbe:   http(intstr.FromString("web"), "health"),
			LivenessProbe:  http(intstr.FromString("web"), "/health"),
			ReadinessProbe: http(intstr.FromInt32(8080), "/ready?full=1")},
		{Name: "grpc", LivenessProbe: &corev1.Probe{ProbeHandler: corev1.ProbeHandler{GRPC: &corev1.GRPCAction{Port: 9000}}},
			ReadinessProbe: &corev1.Probe{ProbeHandler: corev1.ProbeHandler{GRPC: &corev1.GRPCAction{Port: 9000}}}},
		{Name: "other", LivenessProbe: http(intstr.FromInt32(8443), "/", func(g *corev1.HTTPGetAction) { g.Scheme = corev1.URISchemeHTTPS }),
			ReadinessProbe: http(intstr.FromInt32(80), "/", func(g *corev1.HTTPGetAction) { g.Host = "example.com" }),
			StartupProbe:   http(intstr.FromInt32(81), "", func(g *corev1.HTTPGetAction) { g.Host = "10.0.0.7" })},
		{Name: "rest", LivenessProbe: http(intstr.FromString("nobody"), "/"),
			ReadinessProbe: &corev1.Probe{ProbeHandler: corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromInt32(82)}}}},
	}
	got, grpc := probes(pod)
	want := []Probe{{8080, "/health"}, {8080, "/ready?full=1"}, {81, "/"}, {15021, "/healthz/ready"}}
	if !slices.Equal(got, want) || !slices.Equal(grpc, []uint16{9000}) {
		t.Errorf("probes = %v, %v; want %v, [9000]", got, grpc, want)
	}
	if got, want := ports(pod), []Port{{"web", 8080, "TCP"}, {"dns", 53, "UDP"}}; !slices.Equal(got, want) {
		t.Errorf("ports = %v, want %v", got, want)
	}
}
