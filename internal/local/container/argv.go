package container

import (
	"path"
	"slices"
	"strings"
)

// Mount is a path that the container is to have from the session's view of
// files.
type Mount struct {
	Path     string
	Writable bool
}

// Inside is what the container is to find.
type Inside struct {
	EnvFile string   // of variables, in the form of --env-file
	Passed  []string // names of variables that the engine itself has
	Mounts  []Mount
}

// Argv is the command line that runs the container in the session. What the user
// has said of a variable, of a path, of the hostname wins.
func (r *Run) Argv(in Inside) []string {
	argv := slices.Concat(r.Engine, r.Verb)
	add := func(name, value string) { argv = append(argv, Option{Name: name, Value: value}.String()) }
	add("network", "host") // of the sandbox, where the engine runs
	_, hostname := r.Option("hostname")
	if _, uts := r.Option("uts"); !uts && !hostname {
		add("uts", "host")
	}
	if !r.has("rootfs") {
		add("pull", "never") // it is there: the target's network need not lead to the registry
	}
	if in.EnvFile != "" {
		add("env-file", in.EnvFile)
	}
	for _, name := range in.Passed {
		add("env", name)
	}
	taken := r.Targets()
	for _, m := range in.Mounts {
		if slices.ContainsFunc(taken, func(t string) bool { return m.Path == t || strings.HasPrefix(m.Path, t+"/") }) {
			continue
		}
		value := "type=bind,src=" + m.Path + ",dst=" + m.Path
		if !m.Writable {
			value += ",ro=true"
		}
		add("mount", value)
	}
	for _, o := range r.Options {
		switch o.Name {
		case "network", "net", "publish", "publish-all", "pull", "detach":
		default:
			argv = append(argv, o.String())
		}
	}
	if strings.HasPrefix(r.Image, "-") { // a directory of --rootfs, behind "--"
		argv = append(argv, "--")
	}
	return append(append(argv, r.Image), r.Args...)
}

// Mountable tells whether a path can be said in an option --mount, which is a
// line of CSV, and does not replace what the engine itself provides.
func Mountable(p string) bool {
	if strings.ContainsAny(p, ",\"\n:=") || !path.IsAbs(p) || path.Clean(p) == "/" {
		return false
	}
	for _, own := range []string{"/proc", "/sys", "/dev", "/etc/resolv.conf", "/etc/hosts", "/etc/hostname"} {
		if p == own || strings.HasPrefix(p, own+"/") {
			return false
		}
	}
	return true
}

// engines says which variables change what an engine does, rather than its
// container.
func engines(name string) bool {
	for _, prefix := range []string{"CONTAINER", "_CONTAINERS", "DOCKER_", "PODMAN_", "BUILDAH_", "STORAGE_", "REGISTRY_", "REGISTRIES_", "XDG_", "LISTEN_", "SSL_CERT_", "GO"} {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return slices.Contains([]string{"HOME", "PATH", "TMPDIR", "USER", "NOTIFY_SOCKET", "DBUS_SESSION_BUS_ADDRESS"}, name) || strings.HasSuffix(strings.ToLower(name), "_proxy")
}

// lineMax is what engines read as a line of a file of variables
// (bufio.MaxScanTokenSize), less a little.
const lineMax = 60 << 10

// Variables divides the container's variables ("NAME=value"): what a file in the
// form of --env-file can hold, which is the user's own files' equal, and what
// only the engine's own environment can, since it has several lines. Those of
// the latter that would change what the engine does are lost.
func Variables(vars []string) (file []byte, passed, lost []string) {
	for _, kv := range vars {
		name, value, ok := strings.Cut(kv, "=")
		switch {
		case !ok || name == "" || strings.ContainsAny(name, " \t\n#*") || strings.Contains(kv, "\x00"):
		case len(kv) < lineMax && !strings.ContainsAny(value, "\n\r\"'`\\"):
			file = append(append(file, kv...), '\n')
		case engines(name):
			lost = append(lost, name)
		default:
			passed = append(passed, kv)
		}
	}
	return file, passed, lost
}
