// Command mirrord runs a program in the context of a Kubernetes pod.
package main

import (
	"os"

	"github.com/mirrord-go/mirrord/internal/local/cli"
	"github.com/mirrord-go/mirrord/internal/local/sandbox/boot"
)

// version is set by the linker.
var version = "0.1.0-dev"

func main() {
	boot.Main() // does not return in the roles that live inside a sandbox
	os.Exit(cli.Main(version, os.Args))
}
