package cli

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/spf13/cobra"

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
  --push REF      pushes it to a registry of yours, with docker's credentials; then
                  name it: mirrord exec --agent-image REF, or "agent": {"image": REF}

Without any of these it prints the image's name, which is the one that exec uses
by default.`,
		Example: `  mirrord agent image --load
  mirrord agent image --push registry.example/team/mirrord-agent:1
  mirrord agent image --output agent.tar`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			ctx, stop := interruptible()
			defer stop()
			return a.image(ctx, f)
		},
	}
	fl := c.Flags()
	fl.StringVarP(&f.output, "output", "o", "", "file to write the image to; - for stdout")
	fl.StringVar(&f.push, "push", "", "name to push the image by")
	fl.StringVar(&f.load, "load", "", "load it into a local cluster; --load=KIND where the context's name does not tell: "+strings.Join(image.Loaders(), ", "))
	fl.Lookup("load").NoOptDefVal = image.Auto
	fl.StringVar(&f.name, "name", os.Getenv("MIRRORD_AGENT_IMAGE"), "name of the image (default: this build's)")
	fl.StringVar(&f.context, "context", os.Getenv("MIRRORD_KUBE_CONTEXT"), "with --load: kubeconfig context of the cluster")
	fl.StringVar(&f.kubeconfig, "kubeconfig", os.Getenv("MIRRORD_KUBECONFIG"), "with --load: kubeconfig file")
	c.MarkFlagsMutuallyExclusive("output", "push", "load")
	c.MarkFlagsMutuallyExclusive("push", "name")
	return c
}

func (a *app) image(ctx context.Context, f imageFlags) error {
	if f.push != "" {
		program, err := image.Agent()
		if err != nil {
			return err
		}
		if err := image.Push(ctx, program, f.push, a.version, runtime.GOARCH); err != nil {
			return err
		}
		fmt.Fprintf(os.Stderr, "mirrord: pushed %s\n", f.push)
		return nil
	}
	ref := f.name
	if ref == "" {
		var err error
		if ref, err = image.Reference(a.version); err != nil {
			return err
		}
	}
	switch {
	case f.load != "":
		return a.loadImage(ctx, f, ref)
	case f.output != "":
		err := a.writeImage(f.output, ref)
		if err == nil && f.output != "-" {
			fmt.Fprintf(os.Stderr, "mirrord: %s is in %s\n", ref, f.output)
		}
		return err
	}
	fmt.Println(ref)
	return nil
}

func (a *app) loadImage(ctx context.Context, f imageFlags, ref string) error {
	cluster, err := kube.Connect(kube.Options{Kubeconfig: f.kubeconfig, Context: f.context, Version: a.version})
	if err != nil {
		return err
	}
	defer cluster.Close()
	dir, err := os.MkdirTemp("", "mirrord-image-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	archive := filepath.Join(dir, "agent.tar")
	if err := a.writeImage(archive, ref); err != nil {
		return err
	}
	command, err := image.Load(ctx, f.load, cluster.Context(), archive)
	if err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "mirrord: loaded by: %s\n", monitor.Clean(command))
	return nil
}

// writeImage writes the image to a file, or to stdout for "-".
func (a *app) writeImage(output, ref string) error {
	program, err := image.Agent()
	if err != nil {
		return err
	}
	if output == "-" {
		return image.Write(os.Stdout, program, ref, a.version, runtime.GOARCH)
	}
	err = writeWhole(output, 0o644, func(f *os.File) error { return image.Write(f, program, ref, a.version, runtime.GOARCH) })
	if err != nil {
		return failure.Wrap(err, "image-not-written", "the image cannot be written", "choose another place: mirrord agent image --output /tmp/agent.tar")
	}
	return nil
}
