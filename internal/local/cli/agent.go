package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"github.com/spf13/cobra"

	"github.com/mirrord-go/mirrord/internal/failure"
	"github.com/mirrord-go/mirrord/internal/local/image"
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

func (a *app) imageCommand() *cobra.Command {
	var output, name string
	c := &cobra.Command{
		Use:   "image",
		Short: "Write the agent's container image, or print its name",
		Long: `image makes the container image of the agent out of this very program, so that no
registry is needed. The archive can be loaded by containerd, docker, podman, kind,
k3s and minikube. Without --output it prints the image's name, which is the one
that exec uses by default.`,
		Example: `  mirrord agent image --output agent.tar
  kind load image-archive agent.tar
  mirrord agent image --output - | docker load`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			ref := name
			if ref == "" {
				var err error
				if ref, err = image.Reference(a.version); err != nil {
					return err
				}
			}
			if output == "" {
				fmt.Println(ref)
				return nil
			}
			return a.writeImage(output, ref)
		},
	}
	c.Flags().StringVarP(&output, "output", "o", "", "file to write the image to; - for stdout")
	c.Flags().StringVar(&name, "name", os.Getenv("MIRRORD_AGENT_IMAGE"), "name of the image (default: this build's)")
	return c
}

// writeImage writes whole files only: a name that exists is replaced when the
// new image is complete.
func (a *app) writeImage(output, ref string) error {
	program, err := image.Agent()
	if err != nil {
		return err
	}
	if output == "-" {
		return image.Write(os.Stdout, program, ref, a.version, runtime.GOARCH)
	}
	f, err := os.CreateTemp(filepath.Dir(output), ".image-*")
	if err != nil {
		return failure.Wrap(err, "image-not-written", "the image cannot be written there", "choose another place: mirrord agent image --output /tmp/agent.tar")
	}
	defer os.Remove(f.Name())
	defer f.Close()
	err = image.Write(f, program, ref, a.version, runtime.GOARCH)
	if err == nil {
		err = f.Chmod(0o644)
	}
	if err == nil {
		err = f.Close()
	}
	if err == nil {
		err = os.Rename(f.Name(), output)
	}
	if err != nil {
		return failure.Wrap(err, "image-not-written", "the image cannot be written", "choose another place: mirrord agent image --output /tmp/agent.tar")
	}
	fmt.Fprintf(os.Stderr, "mirrord: %s is in %s\n", ref, output)
	return nil
}
