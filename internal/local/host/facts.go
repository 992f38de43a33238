package host

import (
	"os"
	"regexp"
	"strconv"
	"strings"
)

// Settings of the kernel that decide about user namespaces.
const (
	limitSetting    = "user.max_user_namespaces"
	debianSetting   = "kernel.unprivileged_userns_clone"
	restrictSetting = "kernel.apparmor_restrict_unprivileged_userns" // Ubuntu 23.10 and newer
	ptraceSetting   = "kernel.yama.ptrace_scope"
)

// Facts are what can be seen of this machine.
type Facts struct {
	Release   string // of the kernel
	UID       int
	Container string // "docker container", "podman container", "pod", …; empty: none is seen
	WSL       int    // 0: not on Windows
	Distro    string // of WSL
	CapBound  uint64 // capabilities that this process, and what it starts, can have
	Filtered  bool   // this process has a seccomp filter
	AppArmor  bool   // is in force
	Rules     bool   // its parser knows "userns,"
	Label     string // of this process, by AppArmor or SELinux
	Program   string // path of mirrord
	Files     uint64 // hard limit of open files
	Processes uint64 // limit of processes
	// Settings are those of the kernel, as "1"; one that it does not have is
	// missing.
	Settings map[string]string
	Devices  map[string]uint32 // permission bits; one that does not exist is missing
	Owners   Owners
}

// read gives the text of a small file without its end of line; empty if it
// cannot be read.
func read(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return strings.TrimRight(string(b), "\x00\n")
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// container tells what kind of container this is, by the marks that each kind
// leaves.
func container(env, read func(string) string, exists func(string) bool) string {
	switch {
	case env("CODESPACES") != "" || env("REMOTE_CONTAINERS") != "":
		return "dev container"
	case env("KUBERNETES_SERVICE_HOST") != "":
		return "pod"
	case exists("/run/.containerenv"):
		return "podman container"
	case exists("/.dockerenv"):
		return "docker container"
	}
	if name := read("/run/systemd/container"); name != "" && name != "wsl" { // systemd's own knowledge, systemd-detect-virt(1)
		return name + " container"
	}
	return ""
}

// wsl tells Microsoft's kernels by their names: "5.15.90.1-microsoft-standard-WSL2",
// "4.4.0-19041-Microsoft".
func wsl(release string) int {
	switch {
	case !strings.Contains(strings.ToLower(release), "microsoft"):
		return 0
	case kernelBefore(release, 4, 5):
		return 1
	}
	return 2
}

var versionForm = regexp.MustCompile(`^(\d+)\.(\d+)`)

// kernelBefore compares the release of a kernel; of an unknown form it is new.
func kernelBefore(release string, major, minor int) bool {
	m := versionForm.FindStringSubmatch(release)
	if m == nil {
		return false
	}
	a, _ := strconv.Atoi(m[1])
	b, _ := strconv.Atoi(m[2])
	return a < major || a == major && b < minor
}

// field gives one of /proc/PID/status (proc_pid_status(5)).
func field(status, name string) string {
	for line := range strings.Lines(status) {
		if value, ok := strings.CutPrefix(line, name+":"); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// restricted: AppArmor takes the capabilities of a user namespace away from
// programs without a profile, and this one has none.
func (f Facts) restricted() bool {
	return f.Settings[restrictSetting] == "1" && !strings.HasPrefix(f.Label, profileName+" (")
}

// confined: this process has an AppArmor profile, not merely a name.
func (f Facts) confined() bool {
	return f.AppArmor && f.Label != "" && f.Label != "unconfined" && !strings.HasSuffix(f.Label, "(unconfined)")
}

func (f Facts) distribution() string {
	if f.Distro != "" {
		return f.Distro
	}
	return "DISTRIBUTION"
}

// Kernel says what is wrong with the kernel itself; empty: nothing. The tree's
// end needs pidfd_open(2), Linux 5.3, its mounts open_tree(2), Linux 5.2.
func (f Facts) Kernel() (why, do string) {
	switch {
	case f.WSL == 1:
		return "WSL 1 has no Linux kernel", "in Windows: wsl --set-version " + f.distribution() + " 2"
	case kernelBefore(f.Release, 5, 3):
		return "Linux " + f.Release + " is too old: 5.3 has what is needed", "use a newer kernel"
	}
	return "", ""
}

// NoPtrace: no process may look into another one's descriptors, not even the
// owner of its user namespace (Yama, Documentation/admin-guide/LSM/Yama.rst).
func (f Facts) NoPtrace() bool { return f.PtraceScope() == "3" }

// NoTracing: nobody but root may trace even a process that he has started.
func (f Facts) NoTracing() bool { return f.NoPtrace() || f.PtraceScope() == "2" && f.UID != 0 }

// PtraceScope is the setting of Yama; empty: the kernel has none.
func (f Facts) PtraceScope() string { return f.Settings[ptraceSetting] }

// fewFiles is a limit of open files with which a session of many connections
// meets its end: each takes two descriptors here.
const fewFiles = 4096

// Limits says which limit is narrow; empty: none.
func (f Facts) Limits() string {
	if f.Files > 0 && f.Files < fewFiles {
		return "only " + limit(f.Files) + " open files are allowed, half as many connections at once: raise it, ulimit -Hn " + strconv.Itoa(16*fewFiles)
	}
	return ""
}
