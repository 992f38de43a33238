package cli

import (
	"context"
	"fmt"
	"sync"

	"github.com/mirrord-go/mirrord/internal/config"
	"github.com/mirrord-go/mirrord/internal/event"
	"github.com/mirrord-go/mirrord/internal/failure"
)

// inferTargets finds in the cluster what has the names of services whose target
// nobody has named, all at once.
func (a *app) inferTargets(all *config.Services, out *upOutput) error {
	ctx, stop := interruptible()
	defer stop()
	errs := make([]error, len(all.List))
	var wg sync.WaitGroup
	for i := range all.List {
		s := &all.List[i]
		if !s.Infer {
			continue
		}
		wg.Go(func() {
			var target string
			if target, errs[i] = a.called(ctx, s); errs[i] == nil {
				s.SetTarget(target)
				out.event(i, event.Event{Level: event.Step, Code: "up-target", Text: "the target is " + target + ", which has the service's name", Facts: map[string]string{"target": target}})
			}
		})
	}
	wg.Wait()
	for i, err := range errs {
		if f := failure.From(err); f != nil {
			named := *f
			named.What = all.List[i].Name + ": " + f.What
			return &named
		}
	}
	return nil
}

// called gives the target that has the name of a service.
func (a *app) called(ctx context.Context, s *config.Service) (string, error) {
	cluster, err := a.cluster(s.Config)
	if err != nil {
		return "", err
	}
	defer cluster.Close()
	targets := cluster.Named(ctx, s.Name)
	if len(targets) > 0 {
		return targets[0], nil
	}
	_, err = cluster.Resolve(ctx, "deployment/"+s.Name) // says whether the cluster answers at all
	f := failure.From(err)
	if f == nil || f.Code != "target-not-found" {
		return "deployment/" + s.Name, err
	}
	return "", failure.Usage("up-target-unknown", fmt.Sprintf("nothing in namespace %s is called %s", cluster.Namespace(), s.Name),
		fmt.Sprintf("say what its target is: target: {path: deployment/NAME, namespace: NAMESPACE}, or none: target: none (the service is at %s)", s.Where),
		"the service has no target.path, so its name is looked for; %s", f.Do)
}
