package host

import (
	"errors"
	"strings"
	"syscall"
	"testing"

	"github.com/mirrord-go/mirrord/internal/failure"
	"github.com/mirrord-go/mirrord/internal/local/sandbox/handoff"
)

// Every way in which a sandbox can fail is told with what to do about it.
func TestExplain(t *testing.T) {
	for _, c := range []struct {
		step  handoff.Step
		errno syscall.Errno
		code  string
		exit  int
	}{
		{handoff.StepUserNS, syscall.EPERM, "no-user-namespaces", 0},
		{handoff.StepMap, syscall.EPERM, "no-user-namespaces", 0},
		{handoff.StepTUN, syscall.ENOENT, "no-tun", 0},
		{handoff.StepFUSE, syscall.EACCES, "no-fuse", 0},
		{handoff.StepNFT, syscall.EPROTONOSUPPORT, "no-nftables", 0},
		{handoff.StepBind, syscall.ENOSYS, "no-sandbox", 0},
		{handoff.StepMount, syscall.EPERM, "no-sandbox", 0},
		{handoff.StepSeccomp, syscall.ENOSYS, "no-sandbox", 0},
		{handoff.StepOwners, 0, "no-sandbox", 0},
		{handoff.StepChdir, syscall.ENOENT, "no-working-directory", 0},
		{handoff.StepLookup, syscall.ENOENT, "command-not-started", 127},
		{handoff.StepExec, syscall.EACCES, "command-not-started", 126},
		{handoff.StepLost, 0, "no-sandbox", 0},
	} {
		for _, facts := range []Facts{{}, Look(), {Container: "docker container", Filtered: true}, {Container: "pod"}, {WSL: 2}} {
			cause := &handoff.Error{Step: c.step, Path: "/x", Errno: c.errno}
			err, _ := Explain(cause, facts)
			f, ok := errors.AsType[*failure.Error](err)
			if !ok {
				t.Errorf("%s: %v is no failure for a person", c.step, err)
				continue
			}
			if f.Code != c.code || f.Exit != c.exit || f.What == "" || f.Why == "" || f.Do == "" || !errors.Is(err, cause) {
				t.Errorf("%s in %+v: got %+v, want code %s, exit %d", c.step, facts, f, c.code, c.exit)
			}
		}
	}
	other := errors.New("other")
	if err, cure := Explain(other, Facts{}); err != other || len(cure.Commands)+len(cure.Run) > 0 {
		t.Error("what is no failure of the sandbox must stay as it is")
	}
}

// What is missing is named, with the one thing that mends it.
func TestCures(t *testing.T) {
	is := func(name, value string) map[string]string { return map[string]string{name: value} }
	docker := Facts{Container: "docker container", Filtered: true, AppArmor: true, Label: "docker-default (enforce)"}
	ubuntu := Facts{Settings: is(restrictSetting, "1"), AppArmor: true, Rules: true, Label: "unconfined", UID: 1000, Program: "/opt/my tools/mirrord"}
	const sudo = "sudo mirrord doctor --fix"
	for _, c := range []struct {
		name    string
		step    handoff.Step
		errno   syscall.Errno
		facts   Facts
		code    string
		why, do string // parts
		fix     string // commands, joined by "; "
		run     string
	}{
		{"limit", handoff.StepUserNS, syscall.ENOSPC, Facts{Settings: is(limitSetting, "0")}, "no-user-namespaces", "user.max_user_namespaces is 0", sudo,
			"printf '%s\\n' 'user.max_user_namespaces = 15000' | tee -a /etc/sysctl.d/60-mirrord.conf; sysctl -p /etc/sysctl.d/60-mirrord.conf", ""},
		{"limit around a container", handoff.StepUserNS, syscall.ENOSPC, Facts{Settings: is(limitSetting, "0"), Container: "docker container"}, "no-user-namespaces",
			"user.max_user_namespaces is 0", "on the machine that runs this docker container:", "printf '%s\\n' 'user.max_user_namespaces = 15000' | tee -a /etc/sysctl.d/60-mirrord.conf; sysctl -p /etc/sysctl.d/60-mirrord.conf", ""},
		{"outer limit", handoff.StepUserNS, syscall.ENOSPC, Facts{Settings: is(limitSetting, "9")}, "no-user-namespaces", "limit", "around this container", "", ""},
		{"Debian", handoff.StepUserNS, syscall.EPERM, Facts{Settings: is(debianSetting, "0")}, "no-user-namespaces", "kernel.unprivileged_userns_clone is 0", sudo,
			"printf '%s\\n' 'kernel.unprivileged_userns_clone = 1' | tee -a /etc/sysctl.d/60-mirrord.conf; sysctl -p /etc/sysctl.d/60-mirrord.conf", ""},
		{"processes", handoff.StepUserNS, syscall.EAGAIN, Facts{Processes: 30}, "no-user-namespaces", "ulimit -u says 30", "ulimit -u unlimited", "", ""},
		{"kernel without", handoff.StepUserNS, syscall.EINVAL, Facts{Release: "6.1"}, "no-user-namespaces", "CONFIG_USER_NS", "6.1", "", ""},
		{"WSL 1", handoff.StepUserNS, syscall.EINVAL, Facts{WSL: 1, Distro: "Debian"}, "no-user-namespaces", "WSL 1", "wsl --set-version Debian 2", "", ""},
		{"chroot", handoff.StepUserNS, syscall.EPERM, Facts{}, "no-user-namespaces", "", "leave the chroot", "", ""},
		{"Docker", handoff.StepUserNS, syscall.EPERM, docker, "no-user-namespaces", "seccomp profile of this docker container", "mirrord doctor --devcontainer", "",
			"--security-opt=seccomp=unconfined --security-opt=apparmor=unconfined"},
		{"unknown container", handoff.StepUserNS, syscall.EPERM, Facts{Filtered: true}, "no-user-namespaces", "container or sandbox", "", "", "--security-opt=seccomp=unconfined"},
		{"root without CAP_SETFCAP", handoff.StepMap, syscall.EPERM, docker, "no-user-namespaces", "CAP_SETFCAP", "", "", "--cap-add=SETFCAP"},
		{"pod", handoff.StepUserNS, syscall.EPERM, Facts{Container: "pod", Filtered: true}, "no-user-namespaces", "this pod", "securityContext: {privileged: true}", "", "--security-opt=seccomp=unconfined"},
		{"Ubuntu", handoff.StepMap, syscall.EPERM, ubuntu, "no-user-namespaces", "AppArmor", "sudo '/opt/my tools/mirrord' doctor --fix",
			"printf '%s\\n' '# Lets mirrord make user namespaces, as its sandboxes are made of them.' 'abi <abi/4.0>,' 'include <tunables/global>' '' " +
				`'profile mirrord "/opt/my tools/mirrord" flags=(unconfined) {' '  userns,' '}' | tee /etc/apparmor.d/mirrord; apparmor_parser -r /etc/apparmor.d/mirrord`, ""},
		{"Ubuntu, later step", handoff.StepTUN, syscall.EPERM, Facts{Settings: is(restrictSetting, "1")}, "no-user-namespaces", "AppArmor", "",
			"printf '%s\\n' 'kernel.apparmor_restrict_unprivileged_userns = 0' | tee -a /etc/sysctl.d/60-mirrord.conf; sysctl -p /etc/sysctl.d/60-mirrord.conf", ""},
		{"AppArmor, another reason", handoff.StepTUN, syscall.ENOENT, ubuntu, "no-tun", "no such file", "modprobe",
			"modprobe -a tun; printf '%s\\n' tun | tee -a /etc/modules-load.d/mirrord.conf; mkdir -p /dev/net; sh -c 'test -c /dev/net/tun || mknod /dev/net/tun c 10 200'; chmod 0666 /dev/net/tun", ""},
		{"AppArmor, no such command", handoff.StepExec, syscall.EACCES, ubuntu, "command-not-started", "", "PATH", "", ""},
		{"AppArmor, other profile", handoff.StepMap, syscall.EPERM, Facts{UID: 1000, AppArmor: true, Label: "strict (enforce)", Rules: true, Program: "/m"}, "no-user-namespaces", "profile strict (enforce)", "",
			"printf '%s\\n' '# Lets mirrord make user namespaces, as its sandboxes are made of them.' 'abi <abi/4.0>,' 'include <tunables/global>' '' " +
				`'profile mirrord "/m" flags=(unconfined) {' '  userns,' '}' | tee /etc/apparmor.d/mirrord; apparmor_parser -r /etc/apparmor.d/mirrord`, ""},
		{"device of root's", handoff.StepFUSE, syscall.EACCES, Facts{}, "no-fuse", "permission denied", sudo,
			`chmod 0666 /dev/fuse; printf '%s\n' 'KERNEL=="fuse", MODE="0666"' | tee -a /etc/udev/rules.d/60-mirrord.rules`, ""},
		{"device in a container", handoff.StepFUSE, syscall.EPERM, docker, "no-fuse", "not permitted", "--device=/dev/fuse", "", "--device=/dev/fuse"},
		{"no driver", handoff.StepTUN, syscall.ENODEV, Facts{}, "no-tun", "no such device", "",
			"modprobe -a tun; printf '%s\\n' tun | tee -a /etc/modules-load.d/mirrord.conf; mkdir -p /dev/net; sh -c 'test -c /dev/net/tun || mknod /dev/net/tun c 10 200'; chmod 0666 /dev/net/tun", ""},
		{"no driver, WSL", handoff.StepTUN, syscall.ENOENT, Facts{WSL: 2}, "no-tun", "", "wsl --update", "", ""},
		{"nftables", handoff.StepNFT, syscall.EPROTONOSUPPORT, Facts{}, "no-nftables", "", "modprobe",
			"modprobe -a nf_tables nft_chain_nat nf_nat; printf '%s\\n' nf_tables nft_chain_nat nf_nat | tee -a /etc/modules-load.d/mirrord.conf", ""},
		{"old kernel", handoff.StepBind, syscall.ENOSYS, Facts{Release: "4.19.0"}, "no-sandbox", "", "Linux 5.2 or newer; this is 4.19.0", "", ""},
		{"change of root in Docker", handoff.StepMount, syscall.EPERM, docker, "no-sandbox", "seccomp", "", "", "--security-opt=seccomp=unconfined --security-opt=apparmor=unconfined"},
		{"notice of listeners in Docker", handoff.StepSeccomp, syscall.EPERM, docker, "no-sandbox", "seccomp profile", "", "", "--security-opt=seccomp=unconfined --security-opt=apparmor=unconfined"},
		{"notice of listeners, old kernel", handoff.StepSeccomp, syscall.EINVAL, Facts{}, "no-sandbox", "", "Linux 5.6", "", ""},
		{"SELinux", handoff.StepMount, syscall.EACCES, Facts{Container: "podman container", Label: "system_u:system_r:container_t:s0:c1"}, "no-sandbox", "", "", "", "--security-opt=seccomp=unconfined --security-opt=label=disable"},
	} {
		err, cure := Explain(&handoff.Error{Step: c.step, Errno: c.errno}, c.facts)
		f, ok := errors.AsType[*failure.Error](err)
		if !ok || f.Code != c.code || !strings.Contains(f.Why, c.why) || !strings.Contains(f.Do, c.do) {
			t.Errorf("%s: got %+v, want code %s, why %q, do %q", c.name, f, c.code, c.why, c.do)
		}
		var fix []string
		for _, x := range cure.Commands {
			fix = append(fix, x.String())
			if !strings.Contains(f.Do, x.Sudo()) {
				t.Errorf("%s: %q is not told:\n%s", c.name, x.Sudo(), f.Do)
			}
		}
		if got := strings.Join(fix, "; "); got != c.fix {
			t.Errorf("%s: commands:\ngot  %s\nwant %s", c.name, got, c.fix)
		}
		if got := strings.Join(cure.Run, " "); got != c.run {
			t.Errorf("%s: run arguments: got %q, want %q", c.name, got, c.run)
		}
	}
	// Where mounting is what fails, the device is there.
	err, cure := Explain(&handoff.Error{Step: handoff.StepFUSE, Path: MountOf("/dev/fuse"), Errno: syscall.EACCES}, docker)
	if f := failure.From(err); f.Code != "no-fuse" || strings.Join(cure.Run, " ") != "--security-opt=seccomp=unconfined --security-opt=apparmor=unconfined" {
		t.Errorf("mount in Docker: got %+v, %q", f, cure.Run)
	}
}

// Root is told what hinders others.
func TestForUsers(t *testing.T) {
	both := map[string]uint32{"/dev/net/tun": 0o666, "/dev/fuse": 0o666}
	for _, c := range []struct {
		name  string
		facts Facts
		want  string
	}{
		{"nothing", Facts{Devices: both, Settings: map[string]string{limitSetting: "15000", debianSetting: "1", restrictSetting: "0"}}, ""},
		{"profile is there", Facts{Devices: both, Settings: map[string]string{restrictSetting: "1"}, Label: "mirrord (unconfined)"}, ""},
		{"restricted", Facts{Devices: both, Settings: map[string]string{restrictSetting: "1"}, Label: "unconfined", Rules: true}, "tee, apparmor_parser"},
		{"settings", Facts{Devices: both, Settings: map[string]string{limitSetting: "0", debianSetting: "0"}}, "tee, sysctl"},
		{"devices", Facts{Devices: map[string]uint32{"/dev/fuse": 0o600}}, "modprobe, tee, mkdir, sh, chmod, chmod, tee"},
	} {
		var got []string
		for _, x := range Commands(c.facts.ForUsers()...) {
			got = append(got, x.Argv[0])
		}
		if strings.Join(got, ", ") != c.want {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
	}
}

func TestContainer(t *testing.T) {
	for _, c := range []struct{ env, file, want string }{
		{"", "", ""}, {"", "/.dockerenv=", "docker container"}, {"", "/run/.containerenv=", "podman container"},
		{"KUBERNETES_SERVICE_HOST", "/.dockerenv=", "pod"}, {"CODESPACES", "/.dockerenv=", "dev container"},
		{"REMOTE_CONTAINERS", "", "dev container"}, {"", "/run/systemd/container=lxc", "lxc container"}, {"", "/run/systemd/container=wsl", ""},
	} {
		path, text, _ := strings.Cut(c.file, "=")
		got := container(func(name string) string {
			if name == c.env {
				return "yes"
			}
			return ""
		}, func(p string) string {
			if p == path {
				return text
			}
			return ""
		}, func(p string) bool { return p == path && path != "" })
		if got != c.want {
			t.Errorf("%+v: got %q", c, got)
		}
	}
}

func TestKernel(t *testing.T) {
	for release, want := range map[string][2]bool{ // too old, on WSL
		"6.1.0-56-amd64": {}, "5.3.0": {}, "5.2.21": {true, false}, "4.19.0-27-amd64": {true, false}, "unknown": {}, "": {},
		"5.15.90.1-microsoft-standard-WSL2": {false, true}, "4.4.0-19041-Microsoft": {true, true}, "10.0": {},
	} {
		f := Facts{Release: release, WSL: wsl(release)}
		why, do := f.Kernel()
		if (why != "") != want[0] || (do != "") != want[0] || (f.WSL > 0) != want[1] {
			t.Errorf("%q: got %q, %q, WSL %d", release, why, do, f.WSL)
		}
	}
	if (Facts{Files: 1024}).Limits() == "" || (Facts{Files: 1 << 20}).Limits() != "" || (Facts{}).Limits() != "" {
		t.Error("the limit of open files is judged wrongly")
	}
	for text, want := range map[string]string{"Name:\tx\nSeccomp:\t2\nSeccomp_filters:\t1\n": "2", "Seccomp:\t0\n": "0", "": "", "Seccomp:": ""} {
		if got := field(text, "Seccomp"); got != want {
			t.Errorf("%q: got %q", text, got)
		}
	}
}
