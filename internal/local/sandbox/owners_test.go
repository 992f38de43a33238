package sandbox

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mirrord-go/mirrord/internal/local/sandbox/tree"
)

// ownersOf sets ids aside for a user, by name or number, in a mount namespace of
// the test's own.
func ownersOf(user string) string {
	return fmt.Sprintf(`mount -t tmpfs none /mnt && echo %s:200000:65536 >/mnt/ids && mount --bind /mnt/ids /etc/subuid && mount --bind /mnt/ids /etc/subgid && `, user)
}

// ownersFor is what is before the front is started.
func ownersFor(uid int, before string) adjust {
	return func(c *exec.Cmd) {
		c.Args = []string{"sh", "-c", fmt.Sprintf(`%s exec setpriv --reuid %d --regid %[2]d --clear-groups "$@" "$0"`, before, uid), c.Path}
		c.Path = "/bin/sh"
		c.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS}
	}
}

const showMaps = "tr -s ' ' </proc/self/uid_map; tr -s ' ' </proc/self/gid_map; cat /proc/self/setgroups; "

func TestOwners(t *testing.T) {
	for uid, want := range map[int][2]string{
		userUID: {" 1000 1000 1\n 65534 200000 1\n 0 200001 1000\n 1001 201001 64533\n 65535 265534 2\n", "deny"},
		0:       {" 0 0 1\n 65534 200000 1\n 1 200001 65533\n 65535 265534 2\n", "allow"},
	} {
		t.Run(fmt.Sprint(uid), func(t *testing.T) {
			r := start(t, uid, scenario{}.sh(showMaps+"id -u; id -g"), ownersFor(uid, ownersOf(fmt.Sprint(uid))))
			if got := r.code(); got != 0 {
				t.Errorf("exit code: got %d, want 0", got)
			}
			<-r.printed
			if got, want := r.output.String(), want[0]+want[0]+fmt.Sprintf("%s\n%d\n%[2]d\n", want[1], uid); got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		})
	}
}

// TestOwnersMissing: without one of the pieces all is as if nobody had heard of
// them.
func TestOwnersMissing(t *testing.T) {
	for name, before := range map[string]string{
		"no ids":               `mount --bind /dev/null /etc/subuid && mount --bind /dev/null /etc/subgid &&`,
		"ids of somebody else": ownersOf("4711"),
		"no ids of groups":     ownersOf("1000") + `mount --bind /dev/null /etc/subgid && `,
		"no newuidmap":         ownersOf("1000") + `mount --bind /dev/null /usr/bin/newuidmap &&`,
		"no newgidmap":         ownersOf("1000") + `mount --bind /dev/null /usr/bin/newgidmap &&`,
		"newuidmap not root's": ownersOf("1000") + `cp /usr/bin/newuidmap /mnt/x && mount --bind /mnt/x /usr/bin/newuidmap &&`,
		"no privileges":        ownersOf("1000") + `set -- --no-new-privs;`,
		"newuidmap that hangs": ownersOf("1000") + `printf '#!/bin/sh\nexec sleep 60\n' >/mnt/x && chmod +x /mnt/x && mount --bind /mnt/x /usr/bin/newuidmap &&`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := start(t, userUID, scenario{}.sh(showMaps+"id -u; id -g"), ownersFor(userUID, before))
			if got := r.code(); got != 0 {
				t.Errorf("exit code: got %d, want 0", got)
			}
			<-r.printed
			if got, want := r.output.String(), " 1000 1000 1\n 1000 1000 1\ndeny\n1000\n1000\n"; got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		})
	}
}

// TestOwnersHalf: the map that newuidmap made stays where newgidmap fails.
func TestOwnersHalf(t *testing.T) {
	r := start(t, userUID, scenario{}.sh(showMaps), ownersFor(userUID, ownersOf("1000")+`cp /usr/bin/newgidmap /mnt/x && mount --bind /mnt/x /usr/bin/newgidmap &&`))
	if got := r.code(); got != 0 {
		t.Errorf("exit code: got %d, want 0", got)
	}
	<-r.printed
	if got := r.output.String(); !strings.Contains(got, " 0 200001 1000\n") || !strings.HasSuffix(got, "\n 1000 1000 1\ndeny\n") {
		t.Errorf("got %q", got)
	}
}

// setuidProgram is sleep(1) as a file of a subordinate id with the set-user-id
// bit: such files are in the stores of rootless container engines.
func setuidProgram(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp(filepath.Dir(binaryPath(t)), "setuid-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	p := filepath.Join(dir, "sleep")
	b, err := os.ReadFile("/bin/sleep")
	err = errors.Join(err, os.Chmod(dir, 0o755), os.WriteFile(p, b, 0o755), os.Chown(p, 200001, 200001), unix.Chmod(p, 0o6755))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestOwnersGiveNoRights: the command cannot become another user, and a set-user-id
// program of a subordinate id has his number and no capability.
func TestOwnersGiveNoRights(t *testing.T) {
	script := fmt.Sprintf(`grep -E 'Cap(Prm|Eff|Bnd)' /proc/self/status; setpriv --reuid 5 true 2>&1; setpriv --regid 5 --keep-groups true 2>&1; setpriv --groups 5 true 2>&1
		%s 1000 & sleep 0.1; grep -E 'Uid|Gid|Cap(Prm|Eff|Bnd)' /proc/$!/status; unshare -Ur sh -c 'grep CapEff /proc/self/status; cat /proc/self/uid_map' | tr -s ' '
		echo ready; exec sleep 1000`, setuidProgram(t))
	r := start(t, userUID, scenario{}.sh(script), ownersFor(userUID, ownersOf("1000")))
	r.prints("ready")
	r.await("running")
	out := strings.ReplaceAll(r.output.String(), "\t", " ")
	if n := strings.Count(out, "Operation not permitted"); n != 3 {
		t.Errorf("setreuid, setregid, setgroups: %d are refused, want all", n)
	}
	for set, n := range map[string]int{"CapPrm: 0000000000000000\n": 2, "CapEff: 0000000000000000\n": 2, "CapBnd: 0000000000000000\n": 2} {
		if strings.Count(out, set) != n {
			t.Errorf("want %d times %q in:\n%s", n, set, out)
		}
	}
	if !strings.Contains(out, "Uid: 1000 200001 200001 200001\n") && !strings.Contains(out, "Uid: 1000 0 0 0\n") {
		t.Errorf("the set-user-id program has other ids:\n%s", out)
	}
	if !strings.Contains(out, "\n 0 1000 1\n") || strings.Count(out, "CapEff:") != 3 {
		t.Errorf("a namespace in the sandbox has no rights:\n%s", out)
	}
	r.order(order{Do: "end"})
	r.await("ended")
	r.code()
	r.await("done")
}

// others are processes with subordinate ids: root inside may become them, others
// by a set-user-id program only.
func others(t *testing.T, uid int) string {
	script := setuidProgram(t) + " 1000 & "
	if uid == 0 {
		script += `setpriv --reuid 5 --regid 6 --clear-groups sleep 1000 & setpriv --reuid 7 --regid 7 --clear-groups sh -c 'trap "" TERM; exec sleep 1000' &
			setpriv --reuid 8 --regid 8 --clear-groups setsid unshare -Ur sleep 1000 & `
	}
	return script + "sleep 0.2; echo ready; "
}

// TestOwnersEnd: what has other ids than the caller's is ended with the rest, by
// whoever does it.
func TestOwnersEnd(t *testing.T) {
	for _, uid := range []int{userUID, 0} {
		how := func(t *testing.T) []adjust {
			all := []adjust{ownersFor(uid, ownersOf(fmt.Sprint(uid)))}
			if strings.HasSuffix(t.Name(), "/front") {
				all = append(all, func(c *exec.Cmd) { c.Env = append(c.Env, guardVar+"=1") })
			}
			return all
		}
		begin := func(t *testing.T, end string) (r *run, supervisor int) {
			r = start(t, uid, scenario{}.sh(others(t, uid)+end), how(t)...)
			supervisor = r.await("supervisor").N
			r.await("running")
			r.prints("ready")
			other := false
			for _, pid := range inNamespace(r.ns) {
				status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
				other = other || strings.Contains(string(status), "\t2000")
			}
			if !other {
				t.Error("no process has another id")
			}
			return r, supervisor
		}
		t.Run(fmt.Sprintf("%d/supervisor", uid), func(t *testing.T) {
			t.Parallel()
			r, _ := begin(t, "exec sleep 1000")
			r.order(order{Do: "end"})
			r.await("ended")
			r.await("done")
			r.code()
			r.vanish(time.Second)
		})
		t.Run(fmt.Sprintf("%d/helper", uid), func(t *testing.T) {
			t.Parallel()
			r, supervisor := begin(t, "exec sleep 1000")
			unix.Kill(supervisor, unix.SIGKILL)
			r.code()
			r.vanish(tree.Grace + 2*time.Second)
		})
		t.Run(fmt.Sprintf("%d/front", uid), func(t *testing.T) {
			t.Parallel()
			r, supervisor := begin(t, "exit 3")
			r.hurtHelper(unix.SIGKILL)
			unix.Kill(supervisor, unix.SIGKILL)
			if got := r.code(); got != 3 {
				t.Errorf("exit code: got %d, want 3", got)
			}
			r.vanish(time.Second)
		})
		t.Run(fmt.Sprintf("%d/front killed", uid), func(t *testing.T) {
			t.Parallel()
			r, _ := begin(t, "exec "+setuidProgram(t)+" 1000") // such a program has no parent-death signal
			for _, e := range r.seen {
				if e.Name == "front" {
					unix.Kill(e.N, unix.SIGKILL)
				}
			}
			r.cmd.Wait()
			r.await("front-gone")
			r.await("done")
			r.vanish(time.Second)
		})
	}
}
