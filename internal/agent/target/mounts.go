package target

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
)

// Mount is one mount of the target.
type Mount struct {
	Point string // where, an absolute path in the target
	Type  string // of the file system
}

// Mounts gives the target's volumes: what is mounted in its container beside
// the root and the kernel's own file systems. A process that has no mounts of
// its own has no volumes.
func (t *Target) Mounts() ([]Mount, error) { return t.mounts.value, t.mounts.err }

func readMounts(pid int) ([]Mount, error) {
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/mnt", pid))
	if err != nil {
		return nil, err
	}
	defer ns.Close()
	if same(ns, "mnt") {
		return nil, nil
	}
	f, err := os.Open(fmt.Sprintf("/proc/%d/mountinfo", pid))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxMountinfo))
	if err != nil {
		return nil, err
	}
	return volumes(string(b)), nil
}

// kernelTypes are file systems that show the kernel's state, which is the
// machine's and not the pod's.
var kernelTypes = []string{"proc", "sysfs", "cgroup", "cgroup2", "devpts", "mqueue", "devtmpfs", "securityfs", "debugfs", "tracefs",
	"bpf", "pstore", "configfs", "fusectl", "binfmt_misc", "hugetlbfs", "efivarfs", "autofs", "nsfs", "ramfs"}

// volumes picks the volumes from a mount table in the form of
// /proc/PID/mountinfo (proc_pid_mountinfo(5)), sorted, each point once.
func volumes(table string) (list []Mount) {
	for line := range strings.Lines(table) {
		before, after, ok := strings.Cut(line, " - ")
		f, rest := strings.Fields(before), strings.Fields(after)
		if !ok || len(f) < 5 || len(rest) < 1 {
			continue
		}
		m := Mount{Point: unescape(f[4]), Type: rest[0]}
		if m.Point == "/" || !strings.HasPrefix(m.Point, "/") || slices.Contains(kernelTypes, m.Type) || kernels(m.Point) {
			continue
		}
		list = append(list, m)
	}
	slices.SortFunc(list, func(a, b Mount) int { return strings.Compare(a.Point, b.Point) })
	return slices.CompactFunc(list, func(a, b Mount) bool { return a.Point == b.Point })
}

// kernels reports whether a path lies in the kernel's own directories.
func kernels(path string) bool {
	for _, d := range []string{"/proc", "/sys", "/dev"} {
		if path == d || strings.HasPrefix(path, d+"/") {
			return true
		}
	}
	return false
}

// unescape undoes the kernel's octal escapes of blanks, newlines and
// backslashes.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
