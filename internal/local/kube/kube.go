// Package kube finds a target in a Kubernetes cluster, starts the agent beside
// it, and gives byte pipes to that agent.
//
// The command line calls it; nothing else in mirrord knows Kubernetes. It uses
// whatever kubectl would use (KUBECONFIG, contexts, exec plugins, proxies,
// impersonation) and touches the network and the files that a kubeconfig
// names, nothing more of the machine. What it makes in the cluster is one Job,
// which Agent.Delete or DeleteRef removes and which removes itself.
//
// Everything that can go wrong for a person's reason (no cluster, no such pod,
// no permission, a policy's refusal, an image that cannot be pulled) is a
// *failure.Error with a code of its own; ctx's own error is returned as it is.
//
// Hazards. client-go's typed clients and its complete scheme cost 5 ms at each
// start of any program that links them, also of the ones that mirrord starts
// in the sandbox: use the REST client and the small scheme of this room. And
// credentials may come from a plugin that asks the user something: no deadline
// may cover them, only what the network does (see patience).
package kube

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"k8s.io/apimachinery/pkg/runtime/schema"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	_ "k8s.io/client-go/plugin/pkg/client/auth/oidc" // the one login of kubectl's that is no exec plugin
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"k8s.io/klog/v2"

	"github.com/mirrord-go/mirrord/internal/failure"
)

const (
	// DefaultStartTimeout is how long an agent may take until it is ready: on a
	// node that does not have its image a pull of 5 MB and the pod's start.
	DefaultStartTimeout = 60 * time.Second

	// dialTimeout and answerTimeout bound what the network may take on the way
	// to the API server, so that a cluster behind a closed VPN is reported
	// within five seconds. The second covers a server that takes the connection
	// and stays silent.
	dialTimeout   = 4 * time.Second
	answerTimeout = 5 * time.Second
)

// Options of Connect. The zero value is what kubectl does without flags.
type Options struct {
	Kubeconfig string // a file; empty: $KUBECONFIG, else ~/.kube/config, else the pod's own account
	Context    string // of the kubeconfig; empty: its current one
	Namespace  string // of targets; empty: the context's, else "default"
	// AgentNamespace is where agents run; empty: in the target's namespace.
	AgentNamespace string
	Image          string // of the agent: an exact reference
	// Architecture that Image is for, as Go names it; empty: not known.
	Architecture string
	PullPolicy   string // Kubernetes' word for when nodes pull Image; empty: IfNotPresent
	Version      string // of mirrord, for the API server's logs
	// InsecureTLS accepts any certificate from the API server, or none but a
	// proper one; nil: as the kubeconfig says.
	InsecureTLS *bool
	// NoProxy leaves out the proxy that the environment names.
	NoProxy bool
	// StartTimeout replaces DefaultStartTimeout.
	StartTimeout time.Duration
	// Pod is what the agent's pod is to have; of none in the target's pod.
	Pod Pod
}

// Cluster is one cluster as one user. Its methods may be called concurrently.
type Cluster struct {
	options   Options
	config    *rest.Config
	http      *http.Client
	core      *rest.RESTClient
	batch     *rest.RESTClient
	words     words
	context   string
	namespace string
	// overSPDY is set once the API server refused a port-forward over
	// WebSocket and gave one over SPDY.
	overSPDY atomic.Bool
}

// Connect reads the kubeconfig. It does not talk to the cluster yet, so it
// fails only for what the kubeconfig says: codes no-kubeconfig,
// kubeconfig-invalid and context-not-found; and for what Options.Pod says, code
// agent-pod.
func Connect(o Options) (*Cluster, error) {
	if err := o.Pod.check(); err != nil {
		return nil, err
	}
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = o.Kubeconfig
	rules.Warner = func(error) {} // a missing file of several; if nothing is left, that is an error below
	overrides := &clientcmd.ConfigOverrides{CurrentContext: o.Context}
	loader := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, overrides)
	raw, err := loader.RawConfig()
	if err != nil {
		return nil, kubeconfigFailure(err, o, rules)
	}
	name := o.Context
	if name == "" {
		name = raw.CurrentContext
	}
	if _, ok := raw.Contexts[name]; !ok && name != "" {
		return nil, contextFailure(name, raw)
	}
	config, err := loader.ClientConfig()
	if err != nil {
		return nil, kubeconfigFailure(err, o, rules)
	}
	namespace := o.Namespace
	if namespace == "" {
		if namespace, _, err = loader.Namespace(); err != nil {
			return nil, kubeconfigFailure(err, o, rules)
		}
	}
	c := &Cluster{options: o, config: config, context: name, namespace: namespace}
	if err := c.connect(); err != nil {
		return nil, failure.Wrap(err, "kubeconfig-invalid", "the kubeconfig cannot be used", "try: kubectl get pods")
	}
	return c, nil
}

// Contexts are the names of the kubeconfig's contexts, in order. Errors are those
// of Connect.
func Contexts(o Options) ([]string, error) {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath, rules.Warner = o.Kubeconfig, func(error) {}
	raw, err := rules.Load()
	if err != nil {
		return nil, kubeconfigFailure(err, o, rules)
	}
	return slices.Sorted(maps.Keys(raw.Contexts)), nil
}

// connect makes the HTTP client and on it one REST client for each API group.
func (c *Cluster) connect() error {
	cfg := c.config
	cfg.QPS = -1 // a handful of requests: no brake of the client's own
	cfg.UserAgent = fmt.Sprintf("mirrord/%s (%s/%s)", c.options.Version, runtime.GOOS, runtime.GOARCH)
	cfg.WarningHandler = rest.NoWarnings{}
	cfg.Dial = (&net.Dialer{Timeout: dialTimeout, KeepAlive: 30 * time.Second}).DialContext
	cfg.Wrap(func(next http.RoundTripper) http.RoundTripper { return patience{next} })
	if insecure := c.options.InsecureTLS; insecure != nil {
		if cfg.Insecure = *insecure; cfg.Insecure {
			cfg.CAFile, cfg.CAData = "", nil // client-go refuses both
		}
	}
	if c.options.NoProxy && cfg.Proxy == nil { // the kubeconfig has none of its own
		cfg.Proxy = func(*http.Request) (*url.URL, error) { return nil, nil }
	}
	client, err := rest.HTTPClientFor(cfg)
	if err != nil {
		return err
	}
	c.http, c.words = client, newWords()
	if c.core, err = c.restClient("/api", schema.GroupVersion{Version: "v1"}); err != nil {
		return err
	}
	c.batch, err = c.restClient("/apis", schema.GroupVersion{Group: "batch", Version: "v1"})
	return err
}

func (c *Cluster) restClient(path string, gv schema.GroupVersion) (*rest.RESTClient, error) {
	cfg := rest.CopyConfig(c.config)
	cfg.APIPath = path
	cfg.GroupVersion = &gv
	cfg.NegotiatedSerializer = c.words.codecs.WithoutConversion()
	return rest.RESTClientForConfigAndClient(cfg, c.http)
}

// Close ends idle connections. A Cluster needs no Close for correctness, only
// to leave no goroutine behind.
func (c *Cluster) Close() { utilnet.CloseIdleConnectionsFor(c.http.Transport) }

// Server is the address of the API server, as a URL without its password.
func (c *Cluster) Server() string {
	u, err := url.Parse(c.config.Host)
	if err != nil { // then there is no client either
		return ""
	}
	return u.Redacted()
}

// Context is the name of the kubeconfig's context in use; empty for a pod's
// own account.
func (c *Cluster) Context() string { return c.context }

// Namespace is where targets are looked for.
func (c *Cluster) Namespace() string { return c.namespace }

// agentNamespace is where the agent for t goes.
func (c *Cluster) agentNamespace(t *Target) string {
	if c.options.AgentNamespace != "" {
		return c.options.AgentNamespace
	}
	return t.Namespace
}

// place names namespace and context for messages; without a namespace it is
// the whole cluster.
func (c *Cluster) place(namespace string) string {
	s := fmt.Sprintf("namespace %q", namespace)
	if namespace == "" {
		s = "the cluster"
	}
	if c.context != "" {
		s += fmt.Sprintf(" of context %q", c.context)
	}
	return s
}

// init keeps client-go from writing to the user's terminal: what matters comes
// back as an error. Its log is one for the whole process, and setting it later
// would race with whoever logs.
func init() { klog.SetLogger(klog.Logger{}) }

// patience bounds how long the API server may take to begin its answer, where
// the request's context says so. It sits below the login: a plugin that waits
// for its user does not count.
type patience struct{ next http.RoundTripper }

type patienceKey struct{}

// impatient gives a context whose requests must be answered within
// answerTimeout.
func impatient(ctx context.Context) context.Context {
	return context.WithValue(ctx, patienceKey{}, answerTimeout)
}

var errNoAnswer = errors.New("no answer within " + answerTimeout.String())

func (p patience) RoundTrip(r *http.Request) (*http.Response, error) {
	limit, ok := r.Context().Value(patienceKey{}).(time.Duration)
	if !ok {
		return p.next.RoundTrip(r)
	}
	ctx, cancel := context.WithCancelCause(r.Context())
	timer := time.AfterFunc(limit, func() { cancel(errNoAnswer) })
	resp, err := p.next.RoundTrip(r.WithContext(ctx))
	timer.Stop()
	if err != nil {
		if errors.Is(context.Cause(ctx), errNoAnswer) {
			err = errNoAnswer
		}
		cancel(nil)
		return nil, err
	}
	resp.Body = &endingBody{resp.Body, func() { cancel(nil) }}
	return resp, nil
}

// WrappedRoundTripper lets client-go find the transport below.
func (p patience) WrappedRoundTripper() http.RoundTripper { return p.next }

// endingBody tells when a response has been read.
type endingBody struct {
	io.ReadCloser
	end func()
}

func (b *endingBody) Close() error {
	err := b.ReadCloser.Close()
	b.end()
	return err
}

// kubeconfigFailure explains why a kubeconfig gives no cluster.
func kubeconfigFailure(err error, o Options, rules *clientcmd.ClientConfigLoadingRules) error {
	looked := strings.Join(rules.Precedence, ", ")
	if o.Kubeconfig != "" {
		looked = o.Kubeconfig
	}
	switch {
	case clientcmd.IsEmptyConfig(err), errors.Is(err, os.ErrNotExist):
		return &failure.Error{Code: "no-kubeconfig", What: "there is no kubeconfig, so no cluster to go to", Cause: err,
			Why: "looked at " + looked, Do: "export KUBECONFIG=FILE, or: mirrord exec --kubeconfig FILE ...; without a cluster try: mirrord demo"}
	case clientcmd.IsContextNotFound(err):
		return &failure.Error{Code: "context-not-found", What: "the kubeconfig has no such context", Why: err.Error(), Cause: err,
			Do: "kubectl config get-contexts"}
	}
	return &failure.Error{Code: "kubeconfig-invalid", What: "the kubeconfig cannot be used", Cause: err,
		Why: fmt.Sprintf("%s (looked at %s)", err, looked), Do: "kubectl config view"}
}

func contextFailure(name string, raw clientcmdapi.Config) error {
	var names []string
	for n := range raw.Contexts {
		names = append(names, n)
	}
	slices.Sort(names)
	why := "its contexts are " + strings.Join(names, ", ")
	if len(names) == 0 {
		why = "it has no contexts at all"
	}
	return &failure.Error{Code: "context-not-found", What: fmt.Sprintf("the kubeconfig has no context %q", name),
		Why: why, Do: suggest(name, names, "mirrord exec --context %s ...", "kubectl config get-contexts")}
}
