package host

import (
	"strings"

	"github.com/mirrord-go/mirrord/internal/failure"
	"github.com/mirrord-go/mirrord/internal/shell"
)

// systems are the names of systems that have no sandbox, by GOOS. Each is a
// section of docs/hosts.md.
var systems = map[string]string{"darwin": "macOS", "windows": "Windows"}

// Elsewhere says that a command line of mirrord's, argv without its name, cannot
// run on a system other than Linux, why, and where it can.
func Elsewhere(goos string, argv ...string) *failure.Error {
	system, ok := systems[goos]
	if !ok {
		system = goos
	}
	line := "mirrord " + shell.Line(argv...)
	var do []string
	switch goos {
	case "darwin":
		do = []string{"in a virtual machine that shares your files, for example Lima's: lima " + line}
	case "windows":
		do = []string{"in WSL 2, which shares your files: wsl " + line, "where there is no WSL yet: wsl --install"}
	default:
		do = []string{"in a virtual machine with Linux: " + line}
	}
	do = append(do, "in a container: "+DockerRun(goos)+" IMAGE "+line)
	if ok {
		do = append(do, "how to set them up: docs/hosts.md, "+system)
	}
	return &failure.Error{Code: "needs-linux", What: "mirrord " + argv[0] + " needs Linux, and this is " + system,
		Why: "it is about sessions in which a command has network, files and host name of its own: namespaces, which only Linux has",
		Do:  strings.Join(do, "\n")}
}

// DockerRun is the command that starts a container for sessions, up to the image,
// on a system other than Linux. It shares the kubeconfig and the working directory.
func DockerRun(goos string) string {
	home, here := "$HOME", "$PWD"
	if goos == "windows" { // in PowerShell
		home, here = "$env:USERPROFILE", "${PWD}"
	}
	args := []string{"docker run -it --rm"}
	for _, a := range RunArguments {
		args = append(args, a.Arg)
	}
	return strings.Join(append(args, `-v "`+home+`/.kube:/root/.kube:ro"`, `-v "`+here+`:/work"`, "-w /work"), " ")
}
