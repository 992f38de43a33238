package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/mirrord-go/mirrord/internal/failure"
)

// A kind is a local cluster's own way to take an image archive.
type kind struct {
	name string
	// from tells by the kubeconfig's context whether a cluster is of this kind,
	// and its name; nil: contexts do not tell.
	from func(context string) (cluster string, ok bool)
	// argv gives the tool's words; the archive is a file, or where it is "-"
	// the tool's input.
	argv    func(cluster, archive string) []string
	byInput bool // the tool reads the archive from its input
	named   bool // the tool has to be told the cluster's name
	here    bool // only the machine that the tool runs on gets the image
}

// prefixed are contexts that the tool names after its cluster.
func prefixed(prefix string) func(string) (string, bool) {
	return func(context string) (string, bool) { return strings.CutPrefix(context, prefix) }
}

// exactly are contexts of these names.
func exactly(names ...string) func(string) (string, bool) {
	return func(context string) (string, bool) { return context, slices.Contains(names, context) }
}

// words is a command that does not name the cluster.
func words(argv ...string) func(string, string) []string {
	return func(string, string) []string { return argv }
}

// kinds by the documentation of each tool. Those that read their input get the
// archive so: as snaps (microk8s, docker) they see no files of /tmp.
var kinds = []kind{
	{name: "kind", from: prefixed("kind-"), named: true, argv: func(cluster, archive string) []string {
		return []string{"kind", "load", "image-archive", archive, "--name", cluster}
	}},
	{name: "k3d", from: prefixed("k3d-"), named: true, argv: func(cluster, archive string) []string {
		return []string{"k3d", "image", "import", archive, "--cluster", cluster}
	}},
	{name: "minikube", from: exactly("minikube"), named: true, argv: func(cluster, archive string) []string {
		return []string{"minikube", "image", "load", archive, "--profile", cluster}
	}},
	{name: "docker", from: exactly("docker-desktop", "rancher-desktop", "orbstack"), byInput: true, argv: words("docker", "load")},
	{name: "podman", byInput: true, argv: words("podman", "load")},
	{name: "k3s", from: exactly("k3s"), byInput: true, here: true, argv: words("k3s", "ctr", "images", "import", "-")},
	{name: "microk8s", from: exactly("microk8s"), byInput: true, here: true, argv: words("microk8s", "ctr", "image", "import", "-")},
	{name: "containerd", from: exactly("containerd"), byInput: true, here: true, argv: words("ctr", "-n", "k8s.io", "images", "import", "-")},
}

// Auto lets FindLoader find the cluster's kind by the context's name.
const Auto = "auto"

// Loaders are the kinds of clusters that images can be loaded into.
func Loaders() []string {
	names := []string{Auto}
	for _, k := range kinds {
		names = append(names, k.name)
	}
	return names
}

// ByContext reports whether the context says something about how to load into a
// cluster of this kind. Where it does not, no kubeconfig is needed.
func ByContext(kindName string) bool {
	return kindName == Auto || slices.ContainsFunc(kinds, func(k kind) bool { return k.name == kindName && k.named })
}

// A Loader gives images to the nodes of one local cluster, by its own tool.
type Loader struct {
	// Making is the command line that makes the image, for what messages say to
	// type.
	Making  string
	kind    kind
	cluster string
}

// FindLoader finds the tool for clusters of a kind of Loaders; with Auto, for
// the cluster of the kubeconfig's context. Code: image-load-unknown.
func FindLoader(kindName, kubeContext string) (*Loader, error) {
	for _, k := range kinds {
		cluster, ok := kubeContext, false
		if k.from != nil {
			if of, is := k.from(kubeContext); is {
				cluster, ok = of, true
			}
		}
		if k.name == kindName || kindName == Auto && ok {
			return &Loader{Making: "mirrord agent image", kind: k, cluster: cluster}, nil
		}
	}
	what := fmt.Sprintf("no way is known to load images into the cluster of context %q", kubeContext)
	if kindName != Auto {
		what = fmt.Sprintf("%q is no kind of cluster that mirrord can load images into", kindName)
	}
	return nil, failure.Usage("image-load-unknown", what,
		"where this machine is a node, name the kind: mirrord agent image --load=k3s\n"+
			"otherwise push to a registry that the nodes can pull from: mirrord agent image --push REGISTRY/mirrord-agent:TAG\n"+
			"or give it to each node: mirrord agent image --output - | ssh NODE sudo ctr -n k8s.io images import -",
		"the kinds are %s", strings.Join(Loaders(), ", "))
}

// Command is what Load runs, with the archive in this file if the tool reads
// no input.
func (l *Loader) Command(archive string) string {
	return strings.Join(l.kind.argv(l.cluster, archive), " ")
}

// ThisMachine reports whether only this machine gets the image, as a node, and
// no other node of its cluster.
func (l *Loader) ThisMachine() bool { return l.kind.here }

// stopTime is what a tool has to end in once it was asked to.
const stopTime = 5 * time.Second

// Load runs the tool on an archive that an Image has written. It hands each line
// that the tool says to said, one at a time. When ctx ends the tool is ended.
// Codes: image-load-tool-missing, image-load-denied, image-not-loaded.
func (l *Loader) Load(ctx context.Context, archive []byte, said func(line string)) error {
	name := "agent.tar"
	var input *bytes.Reader
	if l.kind.byInput {
		input = bytes.NewReader(archive)
	} else {
		dir, err := os.MkdirTemp("", "mirrord-image-")
		if err != nil {
			return fmt.Errorf("make a place for the archive: %w", err)
		}
		defer os.RemoveAll(dir)
		name = filepath.Join(dir, name)
		if err := os.WriteFile(name, archive, 0o644); err != nil {
			return fmt.Errorf("write the archive for %s: %w", l.kind.name, err)
		}
	}
	argv := l.kind.argv(l.cluster, name)
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	if input != nil {
		cmd.Stdin = input
	}
	out := &lines{said: said}
	cmd.Stdout, cmd.Stderr = out, out
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = stopTime
	err := cmd.Run()
	out.end()
	if err == nil {
		return nil
	}
	return l.explain(err, strings.Join(out.last, "\n"))
}

// denied are the words in which these tools say that they may not reach the
// runtime; the socket belongs to root or to a group.
var denied = regexp.MustCompile(`(?i)permission denied|insufficient permissions|access denied|operation not permitted|must be (run )?(as )?root`)

// explain says why a tool did not load the image, and what to type.
func (l *Loader) explain(err error, said string) error {
	byHand, tool := l.Making+" --output - | ", l.kind.argv("", "")[0]
	if !l.kind.byInput {
		byHand = l.Making + " --output agent.tar && "
	}
	why := err.Error()
	if said != "" {
		why += "\n" + said
	}
	f := &failure.Error{Why: why, Cause: err}
	switch {
	case errors.Is(err, exec.ErrNotFound), errors.Is(err, fs.ErrNotExist):
		f.Code, f.What = "image-load-tool-missing", tool+" is not on this machine, or not in PATH"
		f.Do = "type this where " + tool + " is: " + byHand + l.Command("agent.tar")
	case errors.Is(err, fs.ErrPermission), denied.MatchString(said):
		f.Code, f.What = "image-load-denied", "you may not load images with "+tool
		f.Do = byHand + "sudo " + l.Command("agent.tar")
	default:
		f.Code, f.What = "image-not-loaded", "the image could not be loaded by: "+l.Command("agent.tar")
		f.Do = "when its own complaint is mended, try again, or by hand: " + byHand + l.Command("agent.tar")
	}
	return f
}

const (
	// lastLines of what a tool said go into a failure: the reason is at the end.
	lastLines = 10
	// longestLine in bytes; what a tool says without an end is cut.
	longestLine = 4096
)

// lines takes what a tool says, line by line. A tool with one writer for both
// of its outputs writes from one goroutine.
type lines struct {
	said func(string)
	rest []byte
	last []string
}

func (l *lines) Write(b []byte) (int, error) {
	for _, c := range b {
		switch {
		case c == '\n' || c == '\r':
			l.end()
		case len(l.rest) < longestLine:
			l.rest = append(l.rest, c)
		}
	}
	return len(b), nil
}

// end ends the line that is under way.
func (l *lines) end() {
	line := strings.TrimSpace(string(l.rest))
	if l.rest = l.rest[:0]; line == "" {
		return
	}
	l.said(line)
	if l.last = append(l.last, line); len(l.last) > lastLines {
		l.last = l.last[1:]
	}
}
