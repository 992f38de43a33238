package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/mirrord-go/mirrord/internal/testnet"
)

// owned is a target with files of many owners below /srv: a process of uid, with
// a root of its own.
func owned(t *testing.T, uid int) string {
	t.Helper()
	script := fmt.Sprintf(`mount --make-rprivate /; mount -t tmpfs -o mode=755 none /srv; cd /srv
		for id in 0 1000 10001 999 65534 70000; do echo x >of-$id; chown $id:$id of-$id; done
		mkdir -m 700 mine; chown %[1]d:%[1]d mine; mkdir -m 755 theirs; chown 999:999 theirs
		ssh-keygen -q -t ed25519 -N '' -f key; cp key open; cp key other
		chmod 600 key; chmod 644 open other; chown %[1]d:%[1]d key open; chown 999:999 other
		git init -q repo; cp -r repo foreign; chown -R %[1]d:%[1]d repo; chown -R 999:999 foreign
		cd /; exec setpriv --reuid %[1]d --regid %[1]d --clear-groups sh -c cat; :`, uid)
	return fmt.Sprintf("process/%d", testnet.Process(t, syscall.CLONE_NEWNS, []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/nonexistent"}, script))
}

// setAside is hostTest.before that sets ids aside for uid.
func setAside(uid int) string {
	return fmt.Sprintf("mount -t tmpfs none /mnt; echo %d:200000:65536 >/mnt/ids; mount --bind /mnt/ids /etc/subuid; mount --bind /mnt/ids /etc/subgid;", uid)
}

// look is what a program sees of the files of an owned target, and what real
// programs say to it.
const look = `cd /srv; for f in of-*; do stat -c '%n %u %g' $f; done
	for f in mine theirs; do test -O $f && echo "$f is my own"; done
	for k in key open other; do ssh-keygen -y -P '' -f $k >/dev/null 2>&1 && echo "ssh takes $k"; done
	for r in repo foreign; do git --no-optional-locks -C $r status >/dev/null 2>&1 && echo "git takes $r"; done
	ls -ln of-999 | cut -d ' ' -f 3,4`

// TestOwners: with ids set aside for the user programs see the target's owners,
// and come to the conclusions that they would come to there.
func TestOwners(t *testing.T) {
	const taken = "mine is my own\nssh takes key\nssh takes other\ngit takes repo\n"
	for _, c := range []struct {
		name   string
		uid    int // who runs mirrord
		target int
		before string
		want   string
	}{
		{"the target's process is of the same number", 1000, 1000, setAside(1000),
			"of-0 0 0\nof-1000 1000 1000\nof-10001 10001 10001\nof-65534 65534 65534\nof-70000 65534 65534\nof-999 999 999\n" + taken + "999 999\n"},
		{"it is of another", 0, 10001, setAside(0),
			"of-0 65534 65534\nof-1000 1000 1000\nof-10001 0 0\nof-65534 65534 65534\nof-70000 65534 65534\nof-999 999 999\n" + taken + "999 999\n"},
		{"no ids are set aside", 1000, 1000, "",
			"of-0 1000 1000\nof-1000 1000 1000\nof-10001 1000 1000\nof-65534 1000 1000\nof-70000 1000 1000\nof-999 1000 1000\n" +
				"mine is my own\ntheirs is my own\nssh takes key\ngit takes repo\ngit takes foreign\n1000 1000\n"},
		{"root without user namespaces", 0, 10001, "",
			"of-0 65534 65534\nof-1000 1000 1000\nof-10001 0 0\nof-65534 65534 65534\nof-70000 70000 70000\nof-999 999 999\n" + taken + "999 999\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			how := hostTest{uid: uint32(c.uid), before: c.before}
			if strings.Contains(c.name, "without") {
				how.denied = "user namespaces"
			}
			out, code := how.mirrord(t, place(t, c.uid), "exec", "-q", "-t", owned(t, c.target), "sh", "-c", look)
			if out != c.want || code != 0 {
				t.Errorf("exit code %d, got\n%s\nwant\n%s", code, out, c.want)
			}
		})
	}
}

// TestChown: the target's kernel decides, by what its process may.
func TestChown(t *testing.T) {
	const script = `cd /srv/mine; touch f; for to in %s; do chown $to f 2>/dev/null && stat -c "$to: %%u %%g" f || echo "$to: refused"; done; stat -c %%u:%%g /proc/1 >/dev/null`
	for _, c := range []struct {
		name   string
		uid    int
		target int
		before string
		to     string
		want   string
		ends   string // who owns the file in the target
	}{
		{"root's", 0, 0, setAside(0), "999:998 0:0 70000:0 65534:5", "999:998: 999 998\n0:0: 0 0\n70000:0: refused\n65534:5: 65534 5\n", "65534 5"},
		{"a user's", 1000, 1000, setAside(1000), "999 1000:1000 :1000 :5", "999: refused\n1000:1000: 1000 1000\n:1000: 1000 1000\n:5: refused\n", "1000 1000"},
		{"a user's, of another number", 0, 10001, setAside(0), "0:0 999 10001", "0:0: 0 0\n999: refused\n10001: 0 0\n", "10001 10001"},
		{"no ids are set aside", 1000, 1000, "", "999 1000:1000", "999: refused\n1000:1000: 1000 1000\n", "1000 1000"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			target := owned(t, c.target)
			dir := place(t, c.uid)
			config := filepath.Join(dir, "mirrord.json")
			if err := os.WriteFile(config, []byte(`{"feature": {"fs": "write"}}`), 0o644); err != nil {
				t.Fatal(err)
			}
			out, code := hostTest{uid: uint32(c.uid), before: c.before}.mirrord(t, dir, "exec", "-q", "-f", config, "-t", target, "sh", "-c", fmt.Sprintf(script, c.to))
			if out != c.want || code != 0 {
				t.Errorf("exit code %d, got\n%s\nwant\n%s", code, out, c.want)
			}
			fi, err := os.Stat(strings.Replace(target, "process", "/proc", 1) + "/root/srv/mine/f")
			if err != nil {
				t.Fatal(err)
			}
			if st := fi.Sys().(*syscall.Stat_t); fmt.Sprint(st.Uid, st.Gid) != c.ends {
				t.Errorf("in the target it is %d's, group %d, want %s", st.Uid, st.Gid, c.ends)
			}
		})
	}
}

// TestChangesByDescriptor: in mode read a file becomes local when it is changed,
// also by somebody who has it open and no path.
func TestChangesByDescriptor(t *testing.T) {
	const program = `
import os, stat
os.chdir("/srv"); os.makedirs("/srv", exist_ok=True)
f = os.open("of-1000", os.O_RDONLY)
os.fchmod(f, 0o640); os.utime(f, (5, 7))
s = os.fstat(f); print(oct(s.st_mode), int(s.st_mtime), os.read(f, 10))
s = os.stat("of-1000"); print(oct(s.st_mode), int(s.st_mtime), open("of-1000").read())
os.chmod("of-1000", 0o600); print(oct(os.stat("of-1000").st_mode), oct(os.fstat(f).st_mode))
`
	dir := place(t, 1000)
	// Without a directory of that name here the copy has no place.
	how := hostTest{uid: 1000, before: "mount -t tmpfs -o mode=777 none /srv;"}
	out, code := how.mirrord(t, dir, "exec", "-q", "-t", owned(t, 1000), "python3", "-c", program)
	const want = "0o100640 7 b'x\\n'\n0o100640 7 x\n\n0o100600 0o100640\n"
	if out != want || code != 0 {
		t.Errorf("exit code %d, got\n%s\nwant\n%s", code, out, want)
	}
}
