package kube

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"
)

// What helps to find out why a session failed.

const (
	// maxLogs is how many agents' logs are read, the newest: a person has one
	// session at a time, or a few.
	maxLogs = 5
	// maxLogBytes bounds each; an agent writes some lines in its life.
	maxLogBytes = 256 << 10
)

// A Log is the log of an agent's pod.
type Log struct {
	Pod  string
	Text []byte
}

// Logs reads the logs of the agents that user has in the namespace of agents
// now. The codes are those of any request; forbidden names pods.
func (c *Cluster) Logs(ctx context.Context, user string) ([]Log, error) {
	namespace := c.AgentNamespace()
	pods := &corev1.PodList{}
	err := c.core.Get().Namespace(namespace).Resource("pods").VersionedParams(&metav1.ListOptions{
		LabelSelector: "app.kubernetes.io/name=mirrord-agent"}, c.words.parameters).Do(impatient(ctx)).Into(pods)
	if err != nil {
		return nil, c.explain(ctx, err, "list", "pods", namespace)
	}
	pods.Items = slices.DeleteFunc(pods.Items, func(p corev1.Pod) bool { return p.Annotations[annotationUser] != user })
	slices.SortFunc(pods.Items, func(a, b corev1.Pod) int { return b.CreationTimestamp.Compare(a.CreationTimestamp.Time) })
	var all []Log
	for _, p := range pods.Items[:min(len(pods.Items), maxLogs)] {
		r, err := c.core.Get().Namespace(namespace).Resource("pods").Name(p.Name).SubResource("log").
			VersionedParams(&corev1.PodLogOptions{Container: agentContainer, LimitBytes: new(int64(maxLogBytes))}, c.words.parameters).Stream(impatient(ctx))
		if err != nil {
			return all, c.explain(ctx, err, "get", "pods/log", namespace)
		}
		text, err := io.ReadAll(io.LimitReader(r, maxLogBytes))
		r.Close()
		if err != nil {
			return all, c.explain(ctx, err, "get", "pods/log", namespace)
		}
		all = append(all, Log{p.Name, text})
	}
	return all, nil
}

// AgentNamespace is where agents go for targets in Namespace.
func (c *Cluster) AgentNamespace() string { return c.agentNamespace(&Target{Namespace: c.namespace}) }

// credential is a member of a kubeconfig whose value is secret, in YAML or
// JSON: also value, which variables of an exec plugin have. A text that begins
// in the next line (YAML's | and >) is taken as far as that line goes.
var credential = regexp.MustCompile(`(?i)["']?\b(token|password|client-key-data|client-certificate-data|id-token|refresh-token|access-token|client-secret|value)["']?\s*:\s*(?:[|>][+-]?\s*\n\s*(\S+)|"([^"]*)"|'([^']*)'|([^\s,}]+))`)

// tokenFile names the file that a login's token is in, which a server may repeat
// as one that stands here.
var tokenFile = regexp.MustCompile(`(?i)["']?\btokenFile["']?\s*:\s*(?:"([^"]*)"|'([^']*)'|([^\s,}]+))`)

// maxToken bounds what is read of such a file, in bytes: a header has no more.
const maxToken = 64 << 10

// userinfo is the password in a URL.
var userinfo = regexp.MustCompile(`://[^\s/@"']*:([^\s/@"']+)@`)

// Secrets gives the credentials in the kubeconfigs that o means and of proxies, for whoever
// must not repeat them. The files are searched, not understood: they may be
// broken.
func Secrets(o Options) (all []string) {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = o.Kubeconfig
	for _, name := range []string{"HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"} {
		for _, m := range userinfo.FindAllStringSubmatch(os.Getenv(name), -1) {
			all = append(all, m[1])
		}
	}
	for _, file := range rules.GetLoadingPrecedence() {
		b, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		text := string(b)
		for _, m := range credential.FindAllStringSubmatch(text, -1) {
			all = append(all, strings.Join(m[2:], ""))
		}
		for _, m := range tokenFile.FindAllStringSubmatch(text, -1) {
			if token := tokenIn(strings.Join(m[1:], ""), filepath.Dir(file)); token != "" {
				all = append(all, token)
			}
		}
		for _, m := range userinfo.FindAllStringSubmatch(text, -1) {
			all = append(all, m[1])
		}
	}
	return all
}

// tokenIn reads a token from a file, whose name is relative to dir if it is not
// absolute; empty: there is none.
func tokenIn(name, dir string) string {
	if !filepath.IsAbs(name) {
		name = filepath.Join(dir, name)
	}
	fi, err := os.Stat(name)
	if err != nil || !fi.Mode().IsRegular() || fi.Size() > maxToken {
		return ""
	}
	b, err := os.ReadFile(name)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}
