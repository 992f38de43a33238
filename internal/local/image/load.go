package image

import (
	"context"
	"fmt"
	"os/exec"
	"slices"
	"strings"

	"github.com/mirrord-go/mirrord/internal/failure"
)

// A loader is a local cluster's own way to take an image archive.
type loader struct {
	name string
	// from tells by the kubeconfig's context whether a cluster is of this kind,
	// and its name.
	from func(context string) (cluster string, ok bool)
	argv func(cluster, archive string) []string
}

// prefixed are contexts that the tool names after its cluster.
func prefixed(prefix string) func(string) (string, bool) {
	return func(context string) (string, bool) { return strings.CutPrefix(context, prefix) }
}

func exactly(name string) func(string) (string, bool) {
	return func(context string) (string, bool) { return name, context == name }
}

// loaders by the documentation of each tool.
var loaders = []loader{
	{"kind", prefixed("kind-"), func(cluster, archive string) []string {
		return []string{"kind", "load", "image-archive", archive, "--name", cluster}
	}},
	{"k3d", prefixed("k3d-"), func(cluster, archive string) []string {
		return []string{"k3d", "image", "import", archive, "--cluster", cluster}
	}},
	{"minikube", exactly("minikube"), func(cluster, archive string) []string {
		return []string{"minikube", "image", "load", archive, "--profile", cluster}
	}},
	{"docker", func(context string) (string, bool) {
		return context, context == "docker-desktop" || context == "rancher-desktop" || context == "orbstack"
	}, func(_, archive string) []string { return []string{"docker", "load", "--input", archive} }},
	{"k3s", exactly("k3s"), func(_, archive string) []string { return []string{"k3s", "ctr", "images", "import", archive} }},
	{"microk8s", exactly("microk8s"), func(_, archive string) []string {
		return []string{"microk8s", "ctr", "image", "import", archive}
	}},
	{"containerd", exactly("containerd"), func(_, archive string) []string {
		return []string{"ctr", "--namespace", "k8s.io", "images", "import", archive}
	}},
}

// Auto lets Load find the cluster's kind by the context's name.
const Auto = "auto"

// Loaders are the kinds of clusters that Load knows.
func Loaders() []string {
	names := []string{Auto}
	for _, l := range loaders {
		names = append(names, l.name)
	}
	return names
}

// Load gives the archive to the nodes of a local cluster, by the tool of its
// kind; with Auto by that of the context. It returns the command that it ran.
// Codes: image-load-unknown, image-not-loaded.
func Load(ctx context.Context, kind, kubeContext, archive string) (command string, err error) {
	i := slices.IndexFunc(loaders, func(l loader) bool {
		_, ok := l.from(kubeContext)
		return l.name == kind || kind == Auto && ok
	})
	if i < 0 {
		what := fmt.Sprintf("no way is known to load images into the cluster of context %q", kubeContext)
		if kind != Auto {
			what = fmt.Sprintf("%q is no kind of cluster that mirrord can load images into", kind)
		}
		return "", failure.Usage("image-load-unknown", what,
			"push the image to a registry that the nodes can pull from: mirrord agent image --push REGISTRY/mirrord-agent:TAG; or on each node: ctr -n k8s.io images import agent.tar",
			"the kinds are %s", strings.Join(Loaders(), ", "))
	}
	cluster, ok := loaders[i].from(kubeContext)
	if !ok {
		cluster = kubeContext
	}
	argv := loaders[i].argv(cluster, archive)
	command = strings.Join(argv, " ")
	if out, err := exec.CommandContext(ctx, argv[0], argv[1:]...).CombinedOutput(); err != nil {
		why := strings.TrimSpace(string(out))
		if why != "" {
			why = "\n" + why
		}
		return command, &failure.Error{Code: "image-not-loaded", What: "the image could not be loaded: " + command, Why: err.Error() + why,
			Do: "run that command yourself with an archive: mirrord agent image --output agent.tar", Cause: err}
	}
	return command, nil
}
