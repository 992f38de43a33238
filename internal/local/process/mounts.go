package process

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
)

// maxMountinfo bounds what is read of a mount table, in bytes: machines with
// thousands of mounts stay below it.
const maxMountinfo = 8 << 20

// Mounts gives where the process pid has volumes, sorted, as an agent beside it
// would say: what is mounted there beside the root and the kernel's own file
// systems. A process that has no mounts of its own has no volumes. Errors are
// those of Start.
func Mounts(pid int) ([]string, error) {
	t, err := look(pid)
	if err != nil {
		return nil, err
	}
	theirs, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/mnt", pid))
	if err != nil {
		return nil, t.denied(err)
	}
	if ours, err := os.Readlink("/proc/self/ns/mnt"); err != nil || ours == theirs {
		return nil, err
	}
	f, err := os.Open(fmt.Sprintf("/proc/%d/mountinfo", pid))
	if err != nil {
		return nil, t.denied(err)
	}
	defer f.Close()
	table, err := io.ReadAll(io.LimitReader(f, maxMountinfo))
	if err != nil {
		return nil, t.denied(err)
	}
	return volumes(string(table)), nil
}

// kernelTypes are file systems that show the kernel's state, which is the
// machine's and not the target's.
var kernelTypes = []string{"proc", "sysfs", "cgroup", "cgroup2", "devpts", "mqueue", "devtmpfs", "securityfs", "debugfs", "tracefs",
	"bpf", "pstore", "configfs", "fusectl", "binfmt_misc", "hugetlbfs", "efivarfs", "autofs", "nsfs", "ramfs"}

// volumes picks the mount points of volumes from a table in the form of
// /proc/PID/mountinfo (proc_pid_mountinfo(5)).
func volumes(table string) (points []string) {
	for line := range strings.Lines(table) {
		before, after, _ := strings.Cut(line, " - ")
		f, kind := strings.Fields(before), strings.Fields(after)
		if len(f) < 5 || len(kind) < 1 || slices.Contains(kernelTypes, kind[0]) {
			continue
		}
		if p := unescape(f[4]); p != "/" && strings.HasPrefix(p, "/") && !kernels(p) {
			points = append(points, p)
		}
	}
	slices.Sort(points)
	return slices.Compact(points)
}

// kernels reports whether a path lies in the kernel's own directories.
func kernels(p string) bool {
	return slices.ContainsFunc([]string{"/proc/", "/sys/", "/dev/"}, func(d string) bool { return strings.HasPrefix(p+"/", d) })
}

// unescape undoes the kernel's octal escapes of blanks, newlines and
// backslashes.
func unescape(s string) string {
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
