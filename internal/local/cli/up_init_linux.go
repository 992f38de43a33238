package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/spf13/cobra"

	"github.com/mirrord-go/mirrord/internal/failure"
)

// upTemplate is a file of services to begin with; it is one that works.
const upTemplate = `# Services that mirrord up runs together, each in the context of its target.
# mirrord up --dry-run shows what this means; every key: docs/flows/up.md.

services:
  # Without a target it is the deployment, statefulset, … of this name.
  shop:
    run:
      command: ["python3", "-m", "http.server", "8080"]
      # dir: ../shop                # where to run it

  # cart:
  #   target:
  #     path: deployment/cart       # or: target: none
  #     namespace: staging
  #   default_mode: split           # requests that match; mirror: copies; replace: all
  #   http_filter:                  # default: header baggage: mirrord-session=KEY
  #     header_filter: "^x-user: {{ key }}$"
  #   ignore_ports: [9090]
  #   env:
  #     override: {LOG_LEVEL: debug}
  #   run:
  #     command: ["node", "app.js"]

# common:
#   context: kind-dev               # of the kubeconfig
`

func (a *app) upInit() *cobra.Command {
	var name string
	c := &cobra.Command{
		Use:   "init",
		Short: "Write a file of services to begin with",
		Long: `init writes a file with one service and the keys that are used most, as comments. It
replaces no file, and asks no cluster.`,
		Example: "  mirrord up init\n  mirrord up init -o services.yaml",
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
			if errors.Is(err, fs.ErrExist) {
				return failure.Usage("up-file-exists", fmt.Sprintf("there is a file %s already", name), "name another one: mirrord up init -o services.yaml", "it would be replaced")
			}
			if err == nil {
				_, err = f.WriteString(upTemplate)
				err = errors.Join(err, f.Close())
			}
			if err != nil {
				return failure.Wrap(err, "up-file-unwritable", fmt.Sprintf("the file %s cannot be written", name), "name another one: mirrord up init -o FILE")
			}
			fmt.Fprintf(os.Stderr, "mirrord: %s is written; change it, then: mirrord up --dry-run\n", name)
			return nil
		},
	}
	c.Flags().StringVarP(&name, "output", "o", "mirrord-up.yaml", "the file to write")
	return c
}
