package kube

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/mirrord-go/mirrord/internal/failure"
)

// explain turns the error of a request (verb and resource as RBAC names them)
// into a failure. If ctx has ended, that is the reason, and is returned.
func (c *Cluster) explain(ctx context.Context, err error, verb, resource, namespace string) error {
	if err := ended(ctx); err != nil {
		return err
	}
	f := &failure.Error{Cause: err, Why: message(err)}
	switch {
	case apierrors.IsForbidden(err):
		return c.forbidden(err, verb, resource, namespace)
	case c.config.ExecProvider != nil && strings.Contains(err.Error(), "getting credentials:"):
		return c.loginProgram(err, namespace)
	case apierrors.IsUnauthorized(err), strings.Contains(err.Error(), "getting credentials:"):
		f.Code, f.What = "cluster-login", "the cluster does not accept your login"
		f.Do = "log in again, as for kubectl; try: kubectl get pods -n " + cmp.Or(namespace, c.namespace)
		if f.Why == "Unauthorized" {
			f.Why = fmt.Sprintf("the API server %s says Unauthorized: the token or certificate is wrong or has expired", c.Server())
		}
	case apierrors.IsNotFound(err) && strings.HasPrefix(f.Why, "namespaces "):
		f.Code, f.What = "namespace-not-found", fmt.Sprintf("there is no namespace %q", namespace)
		f.Do = "kubectl get namespaces"
		if c.context != "" {
			f.Why += fmt.Sprintf(" (context %q)", c.context)
		}
	case badCertificate(err):
		f.Code, f.What = "cluster-certificate", fmt.Sprintf("the certificate of the API server %s cannot be trusted", c.Server())
		f.Do = "check certificate-authority and server in the kubeconfig: kubectl config view --minify"
	case unreachable(err):
		f.Code, f.What = "cluster-unreachable", fmt.Sprintf("the API server %s cannot be reached", c.Server())
		if op, ok := errors.AsType[*net.OpError](err); ok && op.Timeout() {
			f.Why += fmt.Sprintf(" (tried for %s)", dialTimeout)
		}
		f.Do = "check VPN, proxy and context; try: kubectl get pods"
		if c.context != "" {
			f.Do = fmt.Sprintf("check VPN and proxy, and that context %q is the right one; try: kubectl --context %s get pods", c.context, c.context)
		}
	default:
		f.Code, f.What = "cluster-error", fmt.Sprintf("the cluster could not %s %s in %s", verb, resource, c.place(namespace))
		f.Do = "try again; see what kubectl says: kubectl get pods -n " + namespace
	}
	return f
}

// ended gives the reason if ctx has ended. A socket with the deadline of ctx
// may notice it a moment earlier.
func ended(ctx context.Context) error {
	if d, ok := ctx.Deadline(); ok && !time.Now().Before(d) {
		<-ctx.Done()
	}
	if ctx.Err() == nil {
		return nil
	}
	return context.Cause(ctx)
}

// forbidden tells a lack of permission from the refusal of a policy: only the
// first is cured by a role.
func (c *Cluster) forbidden(err error, verb, resource, namespace string) error {
	text := message(err)
	if !strings.Contains(text, " cannot "+verb+" ") && !strings.Contains(text, " cannot ") {
		return c.refused(text, err, namespace)
	}
	_, rest, _ := strings.Cut(text, " cannot ")
	if one, _, _ := strings.Cut(rest, " "); slices.Contains(strings.Split(verb, " and "), one) {
		verb = one
	}
	f := c.Lacking(Permission{Verb: verb, Resource: resource, Namespace: namespace})
	f.Why, f.Cause = text, err
	if namespace != "" {
		f.Do += fmt.Sprintf("\nall that a session needs: mirrord rbac -n %s -t TARGET", namespace)
	}
	return f
}

// Lacking is the failure of a user without permission p; Why is left to the
// caller.
func (c *Cluster) Lacking(p Permission) *failure.Error {
	group, resource, sub := p.parts()
	verbs := strings.Split(p.Verb, " and ")
	check := fmt.Sprintf("kubectl auth can-i %s %s", verbs[0], strings.TrimSuffix(resource+"."+group, "."))
	if sub != "" {
		check += " --subresource=" + sub
		resource += "/" + sub
	}
	if p.Namespace != "" {
		check += " -n " + p.Namespace
	}
	return &failure.Error{Code: "forbidden", What: fmt.Sprintf("you may not %s %s in %s", p.Verb, p.Resource, c.place(p.Namespace)),
		Do: fmt.Sprintf("ask whoever runs the cluster for the verb %s on %s, a role with the rule\n  {apiGroups: [%q], resources: [%q], verbs: [%s]}\ncheck: %s",
			p.Verb, p.Resource, group, resource, strings.Join(verbs, ", "), check)}
}

// loginProgram explains a login program of the kubeconfig (exec) that is not
// there or has failed. Its arguments are not said: a password may be among them.
func (c *Cluster) loginProgram(err error, namespace string) error {
	p := c.config.ExecProvider
	f := &failure.Error{Code: "cluster-login", What: fmt.Sprintf("the login program %q of the kubeconfig has failed", p.Command), Cause: err}
	_, f.Why, _ = strings.Cut(err.Error(), "getting credentials: ")
	f.Why, _, _ = strings.Cut(f.Why, "\n") // client-go goes on for several lines
	f.Do = "log in again, as for kubectl; try: kubectl get pods -n " + cmp.Or(namespace, c.namespace)
	if strings.Contains(f.Why, "not found") || strings.Contains(f.Why, "no such file") {
		f.What = fmt.Sprintf("the login program %q of the kubeconfig is not there", p.Command)
		f.Do = "install it, or log in again in another way, as for kubectl"
		if p.InstallHint != "" {
			f.Do += "\n" + strings.TrimSpace(p.InstallHint)
		}
	}
	return f
}

// refused explains what an admission check of the cluster said about the agent.
func (c *Cluster) refused(text string, cause error, namespace string) error {
	f := &failure.Error{Code: "agent-refused", What: fmt.Sprintf("the cluster refuses the agent in %s", c.place(namespace)), Why: text, Cause: cause}
	switch {
	case strings.Contains(text, "violates PodSecurity"):
		f.Do = "run agents in a namespace that allows them: mirrord exec --agent-namespace NAMESPACE ..., " +
			"one with: kubectl label namespace NAMESPACE pod-security.kubernetes.io/enforce=privileged\n" +
			"or in the target's pod, which takes nothing more for files, environment, names and outgoing connections: mirrord exec -e ..."
	case strings.Contains(text, "exceeded quota"), strings.Contains(text, "failed quota"):
		f.Do = fmt.Sprintf("free some of it or have it raised: kubectl describe quota -n %s; or: mirrord exec --agent-namespace NAMESPACE ...", namespace)
	case strings.Contains(text, "is being terminated"):
		f.Code, f.What = "namespace-ending", fmt.Sprintf("%s is being deleted", c.place(namespace))
		f.Do = "name another namespace: mirrord exec --agent-namespace NAMESPACE ..."
	default:
		f.Do = "ask whoever runs the cluster, or run agents elsewhere: mirrord exec --agent-namespace NAMESPACE ..."
	}
	return f
}

// message is the text of the API server, without the layers that HTTP clients
// put around it.
func message(err error) string {
	var status apierrors.APIStatus
	if errors.As(err, &status) && status.Status().Message != "" {
		return status.Status().Message
	}
	return err.Error()
}

func badCertificate(err error) bool {
	var (
		authority x509.UnknownAuthorityError
		host      x509.HostnameError
		invalid   x509.CertificateInvalidError
		verify    *tls.CertificateVerificationError
		record    tls.RecordHeaderError
	)
	return errors.As(err, &authority) || errors.As(err, &host) || errors.As(err, &invalid) || errors.As(err, &verify) || errors.As(err, &record)
}

func unreachable(err error) bool {
	var (
		op   *net.OpError
		name *net.DNSError
	)
	return errors.Is(err, errNoAnswer) || errors.As(err, &op) || errors.As(err, &name)
}
