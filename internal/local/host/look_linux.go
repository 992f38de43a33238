package host

import (
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Look sees what is there. What it may not see is as if it were not there.
func Look() Facts {
	f := Facts{UID: os.Geteuid(), Settings: map[string]string{}, Devices: map[string]uint32{}, Distro: os.Getenv("WSL_DISTRO_NAME"), Owners: LookOwners()}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		f.Release = unix.ByteSliceToString(u.Release[:])
	}
	f.WSL = wsl(f.Release)
	f.Container = container(os.Getenv, read, exists)
	status := read("/proc/self/status")
	f.Filtered = field(status, "Seccomp") == "2"
	f.CapBound, _ = strconv.ParseUint(field(status, "CapBnd"), 16, 64)
	f.AppArmor = read("/sys/module/apparmor/parameters/enabled") == "Y"
	f.Rules = exists("/etc/apparmor.d/abi/4.0")
	f.Label = read("/proc/self/attr/current")
	f.Program, _ = os.Executable()
	var r unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &r) == nil {
		f.Files = r.Max
	}
	if unix.Getrlimit(unix.RLIMIT_NPROC, &r) == nil {
		f.Processes = r.Cur
	}
	for _, name := range []string{limitSetting, debianSetting, restrictSetting, ptraceSetting} {
		if v := read("/proc/sys/" + strings.ReplaceAll(name, ".", "/")); v != "" {
			f.Settings[name] = v
		}
	}
	for _, path := range []string{"/dev/net/tun", "/dev/fuse"} {
		var st unix.Stat_t
		if unix.Stat(path, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFCHR {
			f.Devices[path] = st.Mode & 0o777
		}
	}
	return f
}
