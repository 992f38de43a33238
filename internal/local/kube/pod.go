package kube

import (
	"encoding/json"
	"fmt"
	"maps"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/mirrord-go/mirrord/internal/failure"
)

// Pod is what a user wants the agent's own pod to have beside what the agent
// needs, or in place of what it would get.
type Pod struct {
	Labels         map[string]string // of Job and pod
	Annotations    map[string]string // of Job and pod
	NodeSelector   map[string]string
	ServiceAccount string
	PriorityClass  string
	PullSecrets    []string          // names
	Tolerations    string            // a JSON list; empty: every taint is tolerated
	Requests       map[string]string // quantities by resource; nil: the usual ones
	Limits         map[string]string
	AppArmor       string // a type, "Localhost/NAME" for a profile of the node's; empty: the usual one
	Seccomp        string
	Privileged     bool
	Meshed         bool // a mesh may put its proxy beside the agent
}

// check finds what is no pod's, before anything is sent. Code agent-pod.
func (p *Pod) check() error {
	bad := func(what string, err error) error {
		return failure.New("agent-pod", what, "correct it in the configuration, section agent", "%v", err)
	}
	if _, err := p.tolerations(); err != nil {
		return bad("the tolerations of the agent's pod cannot be read", err)
	}
	for _, amounts := range []map[string]string{p.Requests, p.Limits} {
		if _, err := quantities(amounts); err != nil {
			return bad("the resources of the agent's pod cannot be read", err)
		}
	}
	return nil
}

// apply changes a pod that has all that its agent needs. It was checked.
func (p *Pod) apply(pod *corev1.PodSpec) {
	if len(p.NodeSelector) > 0 {
		if pod.NodeSelector == nil {
			pod.NodeSelector = map[string]string{}
		}
		maps.Copy(pod.NodeSelector, p.NodeSelector)
	}
	pod.ServiceAccountName, pod.PriorityClassName = p.ServiceAccount, p.PriorityClass
	for _, name := range p.PullSecrets {
		pod.ImagePullSecrets = append(pod.ImagePullSecrets, corev1.LocalObjectReference{Name: name})
	}
	if p.Tolerations != "" {
		pod.Tolerations, _ = p.tolerations()
	}
	c := &pod.Containers[0]
	if p.Requests != nil {
		c.Resources.Requests, _ = quantities(p.Requests)
	}
	if p.Limits != nil {
		c.Resources.Limits, _ = quantities(p.Limits)
	}
	if kind, name, _ := strings.Cut(p.AppArmor, "/"); kind != "" {
		c.SecurityContext.AppArmorProfile = &corev1.AppArmorProfile{Type: corev1.AppArmorProfileType(kind), LocalhostProfile: orNil(name)}
	}
	if kind, name, _ := strings.Cut(p.Seccomp, "/"); kind != "" {
		pod.SecurityContext.SeccompProfile = &corev1.SeccompProfile{Type: corev1.SeccompProfileType(kind), LocalhostProfile: orNil(name)}
	}
	if p.Privileged {
		c.SecurityContext.Privileged = new(true)
	}
}

func orNil(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

func (p *Pod) tolerations() (list []corev1.Toleration, err error) {
	if p.Tolerations == "" {
		return nil, nil
	}
	return list, json.Unmarshal([]byte(p.Tolerations), &list)
}

func quantities(amounts map[string]string) (corev1.ResourceList, error) {
	all := corev1.ResourceList{}
	for name, text := range amounts {
		q, err := resource.ParseQuantity(text)
		if err != nil {
			return nil, fmt.Errorf("%s: %q: %w", name, text, err)
		}
		all[corev1.ResourceName(name)] = q
	}
	return all, nil
}
