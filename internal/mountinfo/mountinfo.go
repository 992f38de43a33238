// Package mountinfo reads where a process has volumes, from its mount table.
//
// The agent asks for its target, and the developer's side for a target on this
// machine: both must say the same. It reads /proc and changes nothing; whoever
// may not look into the process gets the kernel's errno.
package mountinfo

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
)

// maxTable bounds what is read of a mount table, in bytes: machines with
// thousands of mounts stay below it.
const maxTable = 8 << 20

// Volumes gives the mount points of the volumes of process pid, sorted absolute
// paths: what is mounted there beside the root and the kernel's own file
// systems. A process that has no mounts of its own has no volumes. Errors wrap
// those of reading /proc.
func Volumes(pid int) ([]string, error) {
	theirs, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/mnt", pid))
	if err != nil {
		return nil, err
	}
	if ours, err := os.Readlink("/proc/self/ns/mnt"); err != nil || ours == theirs {
		return nil, err
	}
	f, err := os.Open(fmt.Sprintf("/proc/%d/mountinfo", pid))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	table, err := io.ReadAll(io.LimitReader(f, maxTable))
	if err != nil {
		return nil, err
	}
	return volumes(string(table)), nil
}

// kernelTypes are file systems that show the kernel's state, which is the
// machine's and not the process's.
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
