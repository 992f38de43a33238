package kube

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/mirrord-go/mirrord/internal/failure"
)

// maxListed bounds the objects that near names are looked for among, so that a
// wrong name in a huge namespace is still answered at once.
const maxListed = 1000

// notFound says what may have been meant by r, as far as the user may know:
// near names of the same kind, the same name of another kind, or that the
// namespace is not there.
func (c *Cluster) notFound(ctx context.Context, r reference, cause error) error {
	f := &failure.Error{Code: "target-not-found", What: fmt.Sprintf("there is no %s %q", r.kind.name, r.name), Cause: cause,
		Why: "looked in " + c.place(c.namespace), Do: fmt.Sprintf("kubectl get %s -n %s", r.kind.resource, c.namespace)}
	var (
		wait      sync.WaitGroup
		same      list
		listed    error
		others    []string
		namespace error
	)
	wait.Go(func() { listed = c.list(ctx, r.kind, "", maxListed, true, &same) })
	wait.Go(func() { others = c.named(ctx, r.name) })
	wait.Go(func() { namespace = c.absentNamespace(ctx) })
	wait.Wait()
	if err := ended(ctx); err != nil {
		return err
	}
	names := same.names()
	close := near(r.name, names)
	switch {
	case namespace != nil:
		return namespace
	case unknownKind(cause):
		f.Why = fmt.Sprintf("this cluster does not know %s", r.kind.rbac)
		f.Do = "kubectl get deployments,statefulsets,pods -n " + c.namespace
	case len(close) > 0:
		f.Why += "; near names: " + strings.Join(close, ", ")
		f.Do = fmt.Sprintf("mirrord exec -t %s/%s ...; all of them: %s", r.kind.name, close[0], f.Do)
	case listed == nil && len(names) == 0:
		f.Why += ", which has no " + r.kind.resource + " at all"
		f.Do = "name the right namespace: mirrord exec -n NAMESPACE ...; all of them: kubectl get " + r.kind.resource + " -A"
	}
	if len(others) > 0 {
		f.Why += "; but there is " + strings.Join(others, ", ")
		f.Do = fmt.Sprintf("did you mean: mirrord exec -t %s ...", others[0])
	}
	return f
}

// unknownKind tells an API that the cluster does not have from an object that
// it does not have.
func unknownKind(err error) bool {
	return apierrors.IsNotFound(err) && strings.Contains(message(err), "could not find the requested resource")
}

// Named gives the targets, as -t takes them, that have a name, of whatever kind; workloads come
// first. What cannot be read is not there.
func (c *Cluster) Named(ctx context.Context, name string) []string { return c.named(ctx, name) }

// named lists the targets of any kind that have the name, in the order of
// kinds. What cannot be read is not there.
func (c *Cluster) named(ctx context.Context, name string) (targets []string) {
	has := make([]bool, len(kinds))
	var wait sync.WaitGroup
	for i, k := range kinds {
		wait.Go(func() {
			has[i] = c.core.Get().AbsPath(k.api).Namespace(c.namespace).Resource(k.resource).Name(name).
				SetHeader("Accept", headOfOne).Do(impatient(ctx)).Error() == nil
		})
	}
	wait.Wait()
	for i, k := range kinds {
		if has[i] {
			targets = append(targets, k.name+"/"+name)
		}
	}
	return targets
}

// absentNamespace is a failure if the targets' namespace is surely not there.
// Who may not read namespaces cannot know.
func (c *Cluster) absentNamespace(ctx context.Context) error {
	err := c.core.Get().Resource("namespaces").Name(c.namespace).SetHeader("Accept", headOfOne).Do(impatient(ctx)).Error()
	if !apierrors.IsNotFound(err) {
		return nil
	}
	err = c.explain(ctx, err, "get", "namespaces", c.namespace)
	f, ok := errors.AsType[*failure.Error](err)
	if !ok { // ctx has ended
		return err
	}
	if names := c.Namespaces(ctx); names != nil {
		f.Do = suggest(c.namespace, names, "mirrord exec -n %s ...", f.Do)
	}
	return f
}

// withKind completes the failure of a target without a kind by those that the
// name has.
func (c *Cluster) withKind(ctx context.Context, name string, err error) error {
	f, ok := errors.AsType[*failure.Error](err)
	if _, isKind := kindOf(name); !ok || isKind {
		return err
	}
	found := c.named(ctx, name)
	if len(found) == 0 {
		return err
	}
	better := *f
	better.Why += "; " + c.place(c.namespace) + " has " + strings.Join(found, ", ")
	better.Do = fmt.Sprintf("did you mean: mirrord exec -t %s ...", found[0])
	return &better
}
