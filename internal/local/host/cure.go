package host

import (
	"fmt"
	"slices"
	"strings"
	"syscall"

	"github.com/mirrord-go/mirrord/internal/local/sandbox/handoff"
	"github.com/mirrord-go/mirrord/internal/shell"
)

// A Cure is what mends a missing piece: one of the three.
type Cure struct {
	// Commands mend it, run by root on this machine in this order; each may be
	// run again without harm.
	Commands []Command `json:"commands,omitempty"`
	// Run are arguments that the container must be started with.
	Run []string `json:"run_args,omitempty"`
	// Else is what a person can do where neither will.
	Else string `json:"-"`
}

// A Command is a program with its arguments.
type Command struct {
	Argv  []string `json:"argv"`
	Input string   `json:"input,omitempty"` // for its standard input
}

// String is the command as one types it into a shell; sudo stands before it if
// root is needed.
func (c Command) String() string { return c.line("") }

// Sudo is String for somebody who is not root.
func (c Command) Sudo() string { return c.line("sudo ") }

func (c Command) line(prefix string) string {
	text := prefix + shell.Line(c.Argv...)
	if c.Input == "" {
		return text
	}
	var lines []string
	for l := range strings.Lines(c.Input) {
		lines = append(lines, shell.Quote(strings.TrimSuffix(l, "\n")))
	}
	return `printf '%s\n' ` + strings.Join(lines, " ") + " | " + text
}

// text is what a failure tells to do.
func (c Cure) text(f Facts) string {
	switch {
	case len(c.Run) > 0 && f.Container == "pod":
		return "in the spec of this pod's container: securityContext: {privileged: true}; or a dev container elsewhere: mirrord doctor --devcontainer"
	case len(c.Run) > 0:
		return "start the container with: " + strings.Join(c.Run, " ") + "\nall that a container needs: mirrord doctor --devcontainer"
	case len(c.Commands) > 0 && f.Container != "":
		var lines []string
		for _, x := range c.Commands {
			lines = append(lines, x.Sudo())
		}
		return "on the machine that runs this " + f.Container + ":\n" + strings.Join(lines, "\n")
	case len(c.Commands) > 0:
		lines := []string{"let mirrord mend it: sudo " + shell.Quote(f.program()) + " doctor --fix", "or do it yourself:"}
		for _, x := range c.Commands {
			lines = append(lines, "  "+x.Sudo())
		}
		return strings.Join(lines, "\n")
	}
	return c.Else
}

func (f Facts) program() string {
	if f.Program == "" {
		return "mirrord"
	}
	return f.Program
}

// Files that --fix writes. Each has a name of its own, so that removing them
// undoes it.
const (
	sysctlFile  = "/etc/sysctl.d/60-mirrord.conf"
	modulesFile = "/etc/modules-load.d/mirrord.conf"
	rulesFile   = "/etc/udev/rules.d/60-mirrord.rules"
	profileFile = "/etc/apparmor.d/" + profileName
	profileName = "mirrord"
)

// manyNamespaces is the limit of user namespaces that is proposed: what
// distributions have on small machines (kernel/fork.c: half of max_threads).
const manyNamespaces = "15000"

type setting struct{ name, value string }

// zero are the settings that forbid user namespaces, with better values.
func (f Facts) zero() (all []setting) {
	for _, s := range []setting{{limitSetting, manyNamespaces}, {debianSetting, "1"}} {
		if f.Settings[s.name] == "0" {
			all = append(all, s)
		}
	}
	return all
}

func (f Facts) settings() Cure { return set(f.zero()) }

func set(all []setting) Cure {
	if len(all) == 0 {
		return Cure{}
	}
	text := ""
	for _, s := range all {
		text += s.name + " = " + s.value + "\n"
	}
	return Cure{Commands: []Command{
		// Added, not replaced: what an earlier call set stays.
		{Argv: []string{"tee", "-a", sysctlFile}, Input: text},
		{Argv: []string{"sysctl", "-p", sysctlFile}},
	}}
}

// profile lets this program, by its path, make user namespaces.
func (f Facts) profile() Cure {
	if !f.Rules { // the line "userns," would be an error
		return set([]setting{{restrictSetting, "0"}})
	}
	text := "# Lets mirrord make user namespaces, as its sandboxes are made of them.\n" +
		"abi <abi/4.0>,\ninclude <tunables/global>\n\n" +
		"profile " + profileName + " " + pattern(f.program()) + " flags=(unconfined) {\n  userns,\n}\n"
	return Cure{Commands: []Command{
		{Argv: []string{"tee", profileFile}, Input: text},
		{Argv: []string{"apparmor_parser", "-r", profileFile}},
	}}
}

// pattern is a path as AppArmor matches it (apparmor.d(5), globbing).
func pattern(path string) string {
	var b strings.Builder
	for _, r := range path {
		if strings.ContainsRune(`*?[]{}^,"\@`, r) {
			b.WriteByte('\\')
		}
		b.WriteRune(r)
	}
	return `"` + b.String() + `"`
}

// device is the cure for a device that is not there or not for everybody.
func (f Facts) device(h *handoff.Error, path string, minor int, module string) Cure {
	switch {
	case f.Container != "":
		return Cure{Run: []string{"--device=" + path}}
	case f.WSL == 2 && h.Errno != syscall.EACCES:
		return Cure{Else: "in Windows: wsl --update, then wsl --shutdown; then, here: sudo modprobe " + module}
	}
	c := Cure{}
	if h.Errno != syscall.EACCES && h.Errno != syscall.EPERM {
		c = f.modules(module)
		dir, _, _ := cutLast(path, "/")
		c.Commands = append(c.Commands, Command{Argv: []string{"mkdir", "-p", dir}},
			Command{Argv: []string{"sh", "-c", fmt.Sprintf("test -c %s || mknod %[1]s c 10 %d", path, minor)}})
	}
	// For now, and for every start.
	c.Commands = append(c.Commands, Command{Argv: []string{"chmod", "0666", path}})
	if h.Errno == syscall.EACCES || h.Errno == syscall.EPERM {
		c.Commands = append(c.Commands, Command{Argv: []string{"tee", "-a", rulesFile}, Input: fmt.Sprintf("KERNEL==%q, MODE=\"0666\"\n", module)})
	}
	return c
}

func cutLast(s, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
}

// modules loads modules of the kernel, now and at every start.
func (f Facts) modules(names ...string) Cure {
	if f.WSL == 2 {
		return Cure{Else: "in Windows: wsl --update, then wsl --shutdown; then, here: sudo modprobe -a " + strings.Join(names, " ")}
	}
	return Cure{Commands: []Command{
		{Argv: append([]string{"modprobe", "-a"}, names...)},
		{Argv: []string{"tee", "-a", modulesFile}, Input: strings.Join(names, "\n") + "\n"},
	}}
}

// RunArgument is one that a container needs to be started with.
type RunArgument struct {
	Arg string `json:"arg"`
	For string `json:"for"`
}

// RunArguments are all that a container of Docker or Podman needs for
// sessions, whatever its user: no capability and no root among them. Docker's
// own seccomp profile forbids clone(2) with CLONE_NEWUSER, mount(2),
// move_mount(2) and pivot_root(2), the last one even to those with
// CAP_SYS_ADMIN; its AppArmor profile forbids mount(2).
var RunArguments = []RunArgument{
	{"--device=/dev/net/tun", "the network of the pod"},
	{"--device=/dev/fuse", "the files of the pod"},
	{"--security-opt=seccomp=unconfined", "user namespaces, mounts and the change of root, which the default profile of Docker forbids"},
	{"--security-opt=apparmor=unconfined", "mounts, which the default profile of Docker on a host with AppArmor forbids"},
}

// labelArgument is for hosts with SELinux.
const labelArgument = "--security-opt=label=disable"

// unconfined are the arguments without which a container forbids something to
// the kernel rather than lacks a device.
func (f Facts) unconfined() []string {
	args := []string{RunArguments[2].Arg}
	if f.AppArmor {
		args = append(args, RunArguments[3].Arg)
	}
	if strings.Contains(f.Label, ":container_t:") { // SELinux
		args = append(args, labelArgument)
	}
	return args
}

// ForUsers are the cures of what stands in the way of an ordinary user,
// although root, who asks, may not meet it.
func (f Facts) ForUsers() []Cure {
	var all []Cure
	if c := f.settings(); len(c.Commands) > 0 {
		all = append(all, c)
	}
	if f.restricted() {
		all = append(all, f.profile())
	}
	for _, d := range []struct {
		path, module string
		minor        int
	}{{"/dev/net/tun", "tun", 200}, {"/dev/fuse", "fuse", 229}} {
		h := &handoff.Error{Errno: syscall.ENOENT}
		mode, there := f.Devices[d.path]
		if there {
			h.Errno = syscall.EACCES
		}
		if mode&0o666 != 0o666 {
			all = append(all, f.device(h, d.path, d.minor, d.module))
		}
	}
	return all
}

// Commands joins the commands of cures, each once.
func Commands(cures ...Cure) []Command {
	var all []Command
	for _, c := range cures {
		for _, x := range c.Commands {
			if !slices.ContainsFunc(all, func(y Command) bool { return y.String() == x.String() }) {
				all = append(all, x)
			}
		}
	}
	return all
}
