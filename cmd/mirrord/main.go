// Command mirrord runs a program in the context of a Kubernetes pod.
package main

import (
	"os"

	"github.com/mirrord-go/mirrord/internal/local/cli"
)

// version is set by the linker.
var version = "0.1.0-dev"

func main() {
	playInside()
	os.Exit(cli.Main(version, os.Args))
}
