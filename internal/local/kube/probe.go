package kube

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// A Probe is a request by which the node asks a container of the target's pod
// over plain HTTP whether it is alive, ready or started.
type Probe struct {
	Port uint16
	Path string // with its query, if it has one; begins with a slash
}

// A Port is one that a container of the target's pod declares.
type Port struct {
	Name     string // may be empty
	Number   uint16
	Protocol string // TCP, UDP or SCTP
}

// longLived are the containers of pod that run beside each other: the ordinary
// ones and the sidecars among the init containers.
func longLived(pod *corev1.Pod) []corev1.Container {
	all := slices.Clone(pod.Spec.Containers)
	for _, c := range pod.Spec.InitContainers {
		if c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			all = append(all, c)
		}
	}
	return all
}

// ports are those that the pod's containers declare, each once.
func ports(pod *corev1.Pod) (all []Port) {
	for _, c := range longLived(pod) {
		for _, p := range c.Ports {
			declared := Port{Name: p.Name, Number: uint16(p.ContainerPort), Protocol: string(p.Protocol)}
			if declared.Protocol == "" {
				declared.Protocol = string(corev1.ProtocolTCP)
			}
			if !slices.Contains(all, declared) {
				all = append(all, declared)
			}
		}
	}
	return all
}

// probes are the plain HTTP probes of all containers of pod, and the ports of
// its gRPC probes, each once. Probes by HTTPS cannot be told from other
// traffic, and those by commands and bare connections are no requests.
func probes(pod *corev1.Pod) (http []Probe, grpc []uint16) {
	for _, c := range longLived(pod) {
		for _, p := range []*corev1.Probe{c.StartupProbe, c.LivenessProbe, c.ReadinessProbe} {
			switch {
			case p == nil:
			case p.HTTPGet != nil && p.HTTPGet.Scheme != corev1.URISchemeHTTPS && reaches(pod, p.HTTPGet.Host):
				probe := Probe{Port: portOf(p.HTTPGet.Port, c), Path: "/" + strings.TrimPrefix(p.HTTPGet.Path, "/")}
				if probe.Port != 0 && !slices.Contains(http, probe) {
					http = append(http, probe)
				}
			case p.GRPC != nil && !slices.Contains(grpc, uint16(p.GRPC.Port)):
				grpc = append(grpc, uint16(p.GRPC.Port))
			}
		}
	}
	return http, grpc
}

// reaches reports whether a probe of that host comes to the pod: without one
// it goes to the pod's address.
func reaches(pod *corev1.Pod, host string) bool {
	return host == "" || host == pod.Status.PodIP ||
		slices.ContainsFunc(pod.Status.PodIPs, func(ip corev1.PodIP) bool { return ip.IP == host })
}

// portOf is the number of a port of container c, 0 if it has none of that name.
func portOf(port intstr.IntOrString, c corev1.Container) uint16 {
	if port.Type == intstr.Int {
		return uint16(port.IntVal)
	}
	for _, p := range c.Ports {
		if p.Name == port.StrVal {
			return uint16(p.ContainerPort)
		}
	}
	return 0
}
