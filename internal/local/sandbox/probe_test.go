package sandbox

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/mirrord-go/mirrord/internal/failure"
)

// proberRole prints a line for each ability: its step, and the code of the
// failure if there is one.
func proberRole() int {
	found, err := Probe(context.Background())
	if err != nil {
		fmt.Println("error", err)
		return 1
	}
	for _, a := range found {
		code := "yes"
		if a.Err != nil {
			code = failure.From(a.Err).Code
		}
		if a.Instead {
			code += ", without"
		}
		fmt.Println(a.Step, code)
	}
	return 0
}

func TestProbe(t *testing.T) {
	binary, err := testBinary()
	if err != nil {
		t.Fatal(err)
	}
	const user = `exec setpriv --reuid 1000 --regid 1000 --clear-groups "$0"`
	// A limit of zero in a namespace of its own: the machine's stays.
	const limited = `exec setpriv --reuid 1000 --regid 1000 --clear-groups unshare %s sh -c 'echo 0 >/proc/sys/user/max_user_namespaces; exec %s "$0"' "$0"`
	// What a container of Docker leaves its root, and forbids all.
	const docker = `exec setpriv --bounding-set -all,+chown,+dac_override,+fowner,+fsetid,+kill,+setgid,+setuid,+setpcap,+net_bind_service,+net_raw,+sys_chroot,+mknod,+audit_write,+setfcap "$0"`
	const admin = `exec setpriv --bounding-set -all,+chown,+dac_override,+fowner,+kill,+setgid,+setuid,+setpcap,+net_bind_service,+setfcap,+sys_admin,+net_admin "$0"`
	mapless := strings.Replace(docker, ",+setfcap", "", 1)
	all := "userns yes\ntun yes\nnft yes\nfuse yes\nbind yes\nmount yes\nseccomp yes\nowners no-sandbox, without\n"
	bare := func(result string) string {
		return strings.Replace(result, "owners no-sandbox, without", "owners yes", 1)
	}
	without := func(step, code string) string { return strings.Replace(all, step+" yes", step+" "+code, 1) }
	for _, c := range []struct {
		name, deny, script string
		want               string
	}{
		{"root", "", `exec "$0"`, all},
		{"user", "", user, all},
		{"no device for packets", "", `mount -t tmpfs none /dev/net; ` + user, without("tun", "no-tun, without")},
		{"no device for packets, no packet sockets", "packet sockets", `mount -t tmpfs none /dev/net; ` + user, without("tun", "no-tun")},
		{"no device for packets, root without namespaces", "user namespaces", `mount -t tmpfs none /dev/net; exec "$0"`,
			bare(strings.Replace(without("tun", "no-tun, without"), "userns yes", "userns no-user-namespaces, without", 1))},
		{"no nftables", "nftables", user, without("nft", "no-nftables, without")},
		{"no device for files", "", `mount --bind /dev/null /dev/fuse; ` + user, without("fuse", "no-fuse")},
		{"device for files of root's", "", `mount -t tmpfs none /mnt; mknod -m 600 /mnt/fuse c 10 229; mount --bind /mnt/fuse /dev/fuse; ` + user, without("fuse", "no-fuse")},
		{"no namespaces", "", fmt.Sprintf(limited, "--map-current-user --keep-caps", "setpriv --ambient-caps -all --inh-caps -all"), "userns no-user-namespaces\n"},
		{"no namespaces, root", "", fmt.Sprintf(limited, "-Ur", ""), bare(without("userns", "no-user-namespaces, without"))},
		{"no namespaces by a filter", "user namespaces", user, "userns no-user-namespaces\n"},
		{"no namespaces by a filter, root", "user namespaces", `exec "$0"`, bare(without("userns", "no-user-namespaces, without"))},
		{"no notification", "notification", user, without("seccomp", "no-sandbox, without")},
		{"no duplicates", "pidfd_getfd", user, without("seccomp", "no-sandbox, without")},
		{"no copies of mounts", "open_tree", user, without("bind", "no-sandbox")},
		// Which arguments a container needs: doctor --devcontainer.
		{"root in a container", "docker", docker, "userns no-user-namespaces\n"},
		{"user in a container", "docker", user, "userns no-user-namespaces\n"},
		{"root in a container without CAP_SETFCAP", "", mapless, "uid_map no-user-namespaces\n"},
		{"root in a container with capabilities", "docker with SYS_ADMIN", admin,
			strings.Replace(without("mount", "no-sandbox"), "seccomp yes", "seccomp no-sandbox, without", 1)},
		{"root in a container with seccomp=unconfined", "", docker, all},
		{"root in a container with capabilities and seccomp=unconfined, on a host without user namespaces", "user namespaces", admin, bare(without("userns", "no-user-namespaces, without"))},
		{"ids set aside for a user", "", ownersOf("1000") + user, bare(all)},
	} {
		t.Run(c.name, func(t *testing.T) {
			cmd := exec.Command("sh", "-c", "mount --bind /dev/null /etc/subuid && mount --bind /dev/null /etc/subgid && "+c.script, binary)
			cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
			cmd.Env = append(os.Environ(), roleVar+"=prober", denyVar+"="+c.deny, quickExit)
			out, err := cmd.CombinedOutput()
			if err != nil || string(out) != c.want {
				t.Errorf("got %s (%v), want %s", strings.ReplaceAll(string(out), "\n", ", "), err, strings.ReplaceAll(c.want, "\n", ", "))
			}
		})
	}
}
