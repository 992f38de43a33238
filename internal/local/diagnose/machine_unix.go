//go:build unix

package diagnose

import (
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Machine describes this machine: kernel, architecture, distribution.
func Machine() map[string]string {
	m := map[string]string{}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		m["kernel"] = unix.ByteSliceToString(u.Release[:])
		m["build"] = unix.ByteSliceToString(u.Version[:])
		m["machine"] = unix.ByteSliceToString(u.Machine[:])
	}
	for _, file := range []string{"/etc/os-release", "/usr/lib/os-release"} { // os-release(5)
		b, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(b)) {
			if v, ok := strings.CutPrefix(line, "PRETTY_NAME="); ok {
				m["distribution"] = strings.Trim(strings.TrimSpace(v), `"'`)
			}
		}
		break
	}
	return m
}
