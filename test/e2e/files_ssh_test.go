package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestFilesSSH: ssh, which looks closely at who owns a file and who else may read
// or write it, takes the target's keys and this machine's configuration, and
// refuses what it would refuse there. Ids may be set aside for the user or not.
func TestFilesSSH(t *testing.T) {
	base := ownDir(t, "ssh")
	root := filepath.Join(base, "root")
	keys := filepath.Join(root, "srv/keys")
	if err := os.MkdirAll(keys, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, mode := range map[string]os.FileMode{"closed": 0o600, "open": 0o644} {
		if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", filepath.Join(keys, name)).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		if err := os.Chmod(filepath.Join(keys, name), mode); err != nil {
			t.Fatal(err)
		}
	}
	target := rooted(t, root)
	// The machine's own configuration, which is root's.
	conf := filepath.Join(t.TempDir(), "conf")
	if err := os.Mkdir(conf, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(conf, "of-the-machine.conf"), []byte("Host there\n  User of-the-machine\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	const script = `ssh-keygen -y -f /srv/keys/closed | cut -d' ' -f1; ssh-keygen -y -f /srv/keys/open 2>&1 | grep -c 'too open'
ssh -G there | grep ^user.of`
	for _, ids := range []string{"", fmt.Sprintf("%d:200000:65536", user)} {
		t.Run("ids "+ids, func(t *testing.T) {
			r := startCommand(t, append(append([]string{w.mirrord, "exec"}, seeing(t, target, map[string]any{"mode": "read"})...), "sh", "-c", script), func(c *exec.Cmd) {
				set := fmt.Sprintf(`mount -t tmpfs none /mnt && echo %s >/mnt/ids && mount --bind /mnt/ids /etc/subuid && mount --bind /mnt/ids /etc/subgid && mount --bind %s /etc/ssh/ssh_config.d &&
					exec setpriv --reuid %d --regid %[3]d --clear-groups "$@"`, ids, conf, user)
				c.Args = append([]string{"unshare", "--mount", "sh", "-c", set, "sh"}, c.Args...)
				c.Path, c.Err = "/usr/bin/unshare", nil
				c.SysProcAttr.Credential = nil
			})
			if code, got := r.end(), strings.TrimSpace(r.stdout.String()); code != 0 || got != "ssh-ed25519\n1\nuser of-the-machine" {
				t.Errorf("exit code %d, got %q", code, got)
			}
		})
	}
}
