package e2e

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// setAside makes mirrord's user one for whom ids are set aside, whatever this
// machine's files say.
func setAside(c *exec.Cmd) {
	script := fmt.Sprintf(`mount -t tmpfs none /mnt && echo %d:200000:65536 >/mnt/ids && mount --bind /mnt/ids /etc/subuid && mount --bind /mnt/ids /etc/subgid &&
		exec setpriv --reuid %[1]d --regid %[1]d --clear-groups "$0" "$@"`, user)
	c.Args = append([]string{"sh", "-c", script, c.Path}, c.Args[1:]...)
	c.Path = "/bin/sh"
	c.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
}

// known is in, by a user for whom ids are set aside.
func known(t testing.TB, args ...string) string {
	t.Helper()
	r := startCommand(t, append([]string{w.mirrord, "exec", "-n", w.namespace}, args...), setAside)
	if code := r.end(); code != 0 {
		t.Fatalf("exit code %d, stderr:\n%s", code, r.stderr)
	}
	return strings.TrimSpace(r.stdout.String())
}

// ownersPods are a root, a root who may not give files away, and a user.
const ownersPods = `
apiVersion: v1
kind: Pod
metadata: {name: owners-%s}
spec:
  terminationGracePeriodSeconds: 0
  volumes: [{name: scratch, emptyDir: {}}]
  initContainers:
  - name: files
    image: debian:1
    command: [sh, -c, "cd /scratch; chmod 777 .; for id in 0 999 1000 10001 70000; do echo x >of-$id; chown $id:$id of-$id; done"]
    volumeMounts: [{name: scratch, mountPath: /scratch}]
  containers:
  - {name: app, image: "debian:1", command: [sleep, "100000"], volumeMounts: [{name: scratch, mountPath: /scratch}], securityContext: {%s}}
`

// TestOwners: the pod's files are shown with their owners, those of its process
// as the program's own; chown is what the pod's kernel lets its process do.
func TestOwners(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	const names = "0 999 1000 10001 70000"
	for _, c := range []struct {
		name, security string
		flags          []string
		seen           string // of names
		chown          string // to 999:998, then to oneself
		ends           string
	}{
		{"root", "", nil, "1000 999 65534 10001 65534", "999:998 1000:1000", "0:0"},
		{"root-in-pod", "", []string{"-e"}, "1000 999 65534 10001 65534", "999:998 1000:1000", "0:0"},
		{"weak", "capabilities: {drop: [CHOWN]}", nil, "1000 999 65534 10001 65534", "refused 1000:1000", "0:0"},
		{"user", "runAsUser: 10001, runAsGroup: 10001", nil, "0 999 65534 1000 65534", "refused 1000:1000", "10001:10001"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := w.cluster.Apply(ctx, w.namespace, fmt.Sprintf(ownersPods, c.name, c.security)); err != nil {
				t.Fatal(err)
			}
			if err := w.cluster.WaitReady(ctx, w.namespace, "pod/owners-"+c.name); err != nil {
				t.Fatal(err)
			}
			args := append(withFS(t, map[string]any{"mode": "write"})[:2], "-q", "-t", "pod/owners-"+c.name)
			script := fmt.Sprintf(`cd /scratch; for id in %s; do stat -c %%u of-$id; done; touch mine
				chown 999:998 mine 2>/dev/null && stat -c %%u:%%g mine || echo refused
				chown 1000:1000 mine && stat -c %%u:%%g mine`, names)
			got := strings.Join(strings.Fields(known(t, append(append(args, c.flags...), "sh", "-c", script)...)), " ")
			if want := c.seen + " " + c.chown; got != want {
				t.Errorf("got %s, want %s", got, want)
			}
			if got := kubectl(t, "exec", "owners-"+c.name, "--", "stat", "-c", "%u:%g", "/scratch/mine"); got != c.ends {
				t.Errorf("in the pod: got %s, want %s", got, c.ends)
			}
		})
	}
}
