package cli

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strings"
	"sync"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/mirrord-go/mirrord/internal/event"
	"github.com/mirrord-go/mirrord/internal/failure"
	"github.com/mirrord-go/mirrord/internal/local/image"
	"github.com/mirrord-go/mirrord/internal/local/kube"
	"github.com/mirrord-go/mirrord/internal/local/monitor"
)

func (a *app) agentCommand() *cobra.Command {
	c := &cobra.Command{
		Use:     "agent",
		Short:   "Work with the agent's image",
		Example: "  mirrord agent image --output agent.tar",
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	c.AddCommand(a.imageCommand())
	return c
}

// imageFlags are the flags of agent image.
type imageFlags struct {
	output, push, load, name string
	context, kubeconfig      string
	insecure, json           bool
}

func (a *app) imageCommand() *cobra.Command {
	var f imageFlags
	c := &cobra.Command{
		Use:   "image",
		Short: "Write, push or load the agent's container image, or print its name",
		Long: `image makes the container image of the agent out of this very program, so that no
registry is needed.

  --output FILE   writes an archive that containerd, docker, podman, kind, k3s and
                  minikube load
  --load          gives it to the nodes of a local cluster by that cluster's own tool
  --push REF      pushes it to a registry of yours, with docker's credentials, and
                  says what to write into the configuration then

Without any of these it prints the image's name, which is the one that exec uses
by default. Equal builds make equal images: the digest says whether a node or a
registry has this one. docs/air-gapped.md has all of it.`,
		Example: `  mirrord agent image --load
  mirrord agent image --load=containerd
  mirrord agent image --push registry.example/team/mirrord-agent:1
  mirrord agent image --push registry.example/team/mirrord-agent -o json
  mirrord agent image --output agent.tar`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if f.output == "json" { // as the other commands take it; a file of that name is ./json
				f.output, f.json = "", true
			}
			if err := f.check(); err != nil {
				return err
			}
			ctx, stop := interruptible()
			defer stop()
			return a.image(ctx, f)
		},
	}
	fl := c.Flags()
	fl.StringVarP(&f.output, "output", "o", "", "file to write the image to; - for stdout; json: the same as --json")
	fl.StringVar(&f.push, "push", "", "name to push the image by; without a tag it gets this build's")
	fl.BoolVar(&f.insecure, "insecure", false, "with --push: HTTP without TLS, to a registry on this machine's loopback")
	fl.StringVar(&f.load, "load", "", "load it into a local cluster; --load=KIND where the context's name does not tell: "+strings.Join(image.Loaders(), ", "))
	fl.Lookup("load").NoOptDefVal = image.Auto
	fl.BoolVar(&f.json, "json", false, "print name, digest and platforms as one JSON object")
	fl.StringVar(&f.name, "name", os.Getenv("MIRRORD_AGENT_IMAGE"), "name of the image (default: this build's)")
	fl.StringVar(&f.context, "context", os.Getenv("MIRRORD_KUBE_CONTEXT"), "with --load: kubeconfig context of the cluster")
	fl.StringVar(&f.kubeconfig, "kubeconfig", os.Getenv("MIRRORD_KUBECONFIG"), "with --load: kubeconfig file")
	c.MarkFlagsMutuallyExclusive("push", "load")
	c.MarkFlagsMutuallyExclusive("push", "name")
	_ = c.RegisterFlagCompletionFunc("context", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		names, _ := kube.Contexts(kube.Options{Kubeconfig: f.kubeconfig})
		return names, cobra.ShellCompDirectiveNoFileComp
	})
	_ = c.RegisterFlagCompletionFunc("load", cobra.FixedCompletions(image.Loaders(), cobra.ShellCompDirectiveNoFileComp))
	return c
}

// check refuses what cannot be meant together.
func (f imageFlags) check() error {
	switch {
	case f.output != "" && (f.push != "" || f.load != ""):
		return failure.Usage("usage", "--output does not go with --push or --load", "one after the other: mirrord agent image --output agent.tar", "each is a way to give the image away")
	case f.output == "-" && f.json:
		return failure.Usage("usage", "--output - does not go with --json", "name a file: mirrord agent image --output agent.tar --json", "both write to stdout")
	case f.insecure && f.push == "":
		return failure.Usage("usage", "--insecure is for --push", "mirrord agent image --insecure --push localhost:5000/mirrord-agent:1", "nothing is pushed")
	}
	return nil
}

// made is what agent image prints as JSON.
type made struct {
	Image     string   `json:"image"`
	Digest    string   `json:"digest"`
	Platforms []string `json:"platforms"`
	Pinned    string   `json:"pinned,omitempty"`    // pushed: the name of these very bytes
	File      string   `json:"file,omitempty"`      // written
	LoadedBy  string   `json:"loaded_by,omitempty"` // the tool
}

func (a *app) image(ctx context.Context, f imageFlags) error {
	done := made{Image: f.name, File: f.output}
	var err error
	switch {
	case f.push != "":
		done.Image, err = image.Tagged(f.push, a.version)
	case f.name == "":
		done.Image, err = image.Reference(a.version)
	}
	if err != nil {
		return err
	}
	if f.push == "" && f.load == "" && f.output == "" && !f.json {
		fmt.Println(done.Image)
		return nil
	}
	architectures := image.Architectures()
	if f.load != "" || f.output != "" {
		architectures = architectures[:1] // nodes differ in what they make of an archive with more
	}
	programs, err := image.Programs(architectures)
	if err != nil {
		return err
	}
	img, err := image.New(programs, a.version)
	if err != nil {
		return err
	}
	done.Digest, done.Platforms = img.Digest(), img.Platforms()
	switch {
	case f.push != "":
		err = a.pushImage(ctx, f, img, &done)
	case f.load != "":
		err = a.loadImage(ctx, f, img, &done)
	case f.output != "":
		err = a.writeImage(f, img, done)
	}
	if err != nil || !f.json {
		return err
	}
	return monitor.WriteJSON(os.Stdout, done, "  ")
}

func (a *app) pushImage(ctx context.Context, f imageFlags, img *image.Image, done *made) error {
	m := a.monitor(false, false)
	m.Show(event.Event{Level: event.Step, Code: "image-pushing", Text: "pushing " + done.Image})
	progress, end := meter()
	err := img.Push(ctx, image.Pushing{Ref: done.Image, Insecure: f.insecure, Progress: progress})
	end()
	if err != nil {
		return err
	}
	done.Pinned = done.Image[:strings.LastIndexByte(done.Image, ':')] + "@" + done.Digest
	if f.json {
		return nil
	}
	platforms := strings.Join(done.Platforms, " and ")
	m.Report("image-pushed", "pushed for nodes of "+platforms, []string{
		"for the configuration:   \"agent\": {\"image\": \"" + done.Image + "\"}",
		"or just these bytes:     \"agent\": {\"image\": \"" + done.Pinned + "\"}",
	}, done)
	return nil
}

func (a *app) loadImage(ctx context.Context, f imageFlags, img *image.Image, done *made) error {
	name := f.context
	if image.ByContext(f.load) {
		cluster, err := kube.Connect(kube.Options{Kubeconfig: f.kubeconfig, Context: f.context, Version: a.version})
		if err != nil {
			return err
		}
		name = cluster.Context()
		cluster.Close()
	}
	l, err := image.FindLoader(f.load, name)
	if err != nil {
		return err
	}
	if f.name != "" {
		l.Making += " --name " + f.name
	}
	var archive bytes.Buffer
	if err := img.Write(&archive, done.Image); err != nil {
		return err
	}
	done.LoadedBy = l.Command("agent.tar")
	m := a.monitor(false, false)
	m.Show(event.Event{Level: event.Step, Code: "image-loading", Text: "loading " + done.Image + " by: " + done.LoadedBy})
	err = l.Load(ctx, archive.Bytes(), func(line string) {
		m.Show(event.Event{Level: event.Step, Code: "image-tool", Text: "  " + line})
	})
	if err != nil {
		return err
	}
	text := "loaded"
	if l.ThisMachine() {
		text += " into this machine only; other nodes need it as well"
	}
	m.Show(event.Event{Level: event.Step, Code: "image-loaded", Text: text})
	return nil
}

// writeImage writes the image to a file, or to stdout for "-".
func (a *app) writeImage(f imageFlags, img *image.Image, done made) error {
	if f.output == "-" {
		return img.Write(os.Stdout, done.Image)
	}
	err := writeWhole(f.output, 0o644, func(file *os.File) error { return img.Write(file, done.Image) })
	if err != nil {
		return failure.Wrap(err, "image-not-written", "the image cannot be written", "choose another place: mirrord agent image --output /tmp/agent.tar")
	}
	a.monitor(false, false).Show(event.Event{Level: event.Step, Code: "image-written", Text: done.Image + " is in " + f.output})
	return nil
}

// meter shows on a terminal, in one line of its own, how much was sent; end takes
// the line away. Elsewhere it shows nothing.
func meter() (progress func(sent, total int64), end func()) {
	if mode := os.Getenv("MIRRORD_PROGRESS_MODE"); mode != "" && mode != "std" && mode != "standard" || !term.IsTerminal(int(os.Stderr.Fd())) {
		return nil, func() {}
	}
	var mu sync.Mutex // of shown and ended
	shown, ended := "", false
	progress = func(sent, total int64) {
		text := fmt.Sprintf("\r\x1b[Kmirrord: %.1f of %.1f MB", float64(sent)/1e6, float64(total)/1e6)
		mu.Lock()
		defer mu.Unlock()
		if text != shown && !ended {
			fmt.Fprint(os.Stderr, text)
			shown = text
		}
	}
	return progress, func() {
		mu.Lock()
		defer mu.Unlock()
		if ended = true; shown != "" {
			fmt.Fprint(os.Stderr, "\r\x1b[K")
		}
	}
}
