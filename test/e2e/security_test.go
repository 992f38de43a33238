package e2e

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// What docs/security.md promises, tried.

// guarded is a pod whose environment and files hold a secret.
const guarded = `
apiVersion: v1
kind: Pod
metadata: {name: guarded}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: app
    image: debian:1
    command: [sh, -c, "export MARKED=env-MARKER; echo file-MARKER >/srv/secret; exec sleep infinity"]
`

// TestNoSecrets: neither what the target keeps secret, nor the developer's login,
// nor the session's key is anywhere where somebody else could read it.
func TestNoSecrets(t *testing.T) {
	marker := fmt.Sprintf("marker-%x", time.Now().UnixNano())
	namespace := one(t)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	if err := w.cluster.Apply(ctx, namespace, strings.ReplaceAll(guarded, "MARKER", marker)); err != nil {
		t.Fatal(err)
	}
	if err := w.cluster.WaitReady(ctx, namespace, "pod/guarded"); err != nil {
		t.Fatal(err)
	}
	kubeconfig := member(t, namespace, func(role string) string { return role })
	home := t.TempDir() // HOME, TMPDIR, XDG_* and the working directory are below it
	for p := home; p != os.TempDir() && p != "/"; p = filepath.Dir(p) {
		if err := os.Chmod(p, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	var env []string
	for _, name := range []string{"HOME", "TMPDIR", "XDG_RUNTIME_DIR", "XDG_CACHE_HOME", "XDG_STATE_HOME", "XDG_CONFIG_HOME", "PWD"} {
		dir := filepath.Join(home, strings.ToLower(name))
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		env = append(env, name+"="+dir)
	}
	log := filepath.Join(home, "tmpdir", "supervisor.log")
	if out, err := exec.Command("chown", "-R", fmt.Sprint(user), home).CombinedOutput(); err != nil {
		t.Fatal(string(out))
	}
	program := "test $MARKED = env-" + marker[:3] + "${PART} || exit 3; cat /srv/secret >/dev/null || exit 4; ulimit -c; echo ready; read -r line; true"
	r := startCommand(t, []string{"bash", "-c", `ulimit -c 4096; exec "$@"`, "bash", w.mirrord, "exec", "--verbose", "--kubeconfig", kubeconfig, "-n", namespace, "-t", "pod/guarded", "--steal", "bash", "-c", program}, func(c *exec.Cmd) {
		c.Env = append(append(environment(), env...), "MIRRORD_PROGRESS_MODE=json", "MIRRORD_SUPERVISOR_LOG="+log, "PART="+marker[3:])
		c.Dir = filepath.Join(home, "pwd")
	})
	r.waitFor("ready")

	seen := map[string]string{} // what others could read, by where
	kubectl := func(args ...string) string {
		out, err := w.cluster.Kubectl(ctx, append([]string{"-n", namespace}, args...)...)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	seen["the agent's Job and pod"] = kubectl("get", "jobs,pods", "-l", "app.kubernetes.io/name=mirrord-agent", "-o", "yaml")
	seen["events"] = kubectl("get", "events", "-o", "yaml")
	job := strings.TrimSpace(kubectl("get", "jobs", "-l", "app.kubernetes.io/name=mirrord-agent", "-o", "jsonpath={.items[0].metadata.name}"))
	seen["the agent's log"] = kubectl("logs", "job/"+job)
	var supervisor, agent int
	procs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range procs {
		cmdline, err := os.ReadFile(filepath.Join(dir, "cmdline"))
		if err != nil {
			continue
		}
		name := string(cmdline)
		if exe, _ := os.Readlink(filepath.Join(dir, "exe")); exe == w.mirrord {
			if supervises(name, r.cmd.Process.Pid) {
				supervisor, _ = strconv.Atoi(filepath.Base(dir))
			}
		} else if exe == "/mirrord-agent" && strings.Contains(name, strings.TrimPrefix(job, "mirrord-agent-")) {
			agent, _ = strconv.Atoi(filepath.Base(dir))
		} else if !strings.Contains(name, program) {
			continue
		}
		seen["arguments of "+dir] = name
	}
	if supervisor == 0 {
		t.Fatal("the supervisor was not found")
	}
	seed := keyOf(t, supervisor, seen["the agent's Job and pod"])
	packed(t, namespace, seen)
	for name, pid := range map[string]int{"supervisor": supervisor, "agent": agent} {
		limits, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", pid))
		if err != nil || !regexp.MustCompile(`Max core file size +1 `).Match(limits) { // 0 would not stop a handler behind a pipe
			t.Errorf("a core dump of the %s could be written: %v\n%s", name, err, limits)
		}
	}
	if !strings.Contains(r.stdout.String(), "4096\n") {
		t.Errorf("the command's own limit of core dumps has changed: %s", r.stdout)
	}
	r.end()
	if code := r.cmd.ProcessState.ExitCode(); code != 0 {
		t.Fatalf("exit code %d: the secret did not arrive", code)
	}
	seen["stderr"], seen["stdout"] = r.stderr.String(), r.stdout.String()
	if b, err := os.ReadFile(log); err != nil {
		t.Error(err)
	} else {
		seen["the supervisor's log"] = string(b)
	}
	err := filepath.WalkDir(home, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(p)
		seen[p] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	recent(t, seen)
	token := tokenOf(t, kubeconfig)
	for where, text := range seen {
		for what, secret := range map[string]string{"the target's secret": marker, "the login": token, "the administrator's login": loginKey(t), "the session's key": string(seed),
			"the session's key in base64": base64.RawStdEncoding.EncodeToString(seed)[:40], "the session's key in hexadecimal": hex.EncodeToString(seed)} {
			if strings.HasPrefix(where, "arguments of ") && what == "the target's secret" && strings.Contains(text, "PART") {
				continue // the test's own words, which do not hold it whole
			}
			if strings.Contains(text, secret) {
				t.Errorf("%s is in %s", what, where)
			}
		}
	}
	t.Logf("looked into %d places", len(seen))
}

// packed adds what mirrord diagnose packs for a cluster's administrator while a
// session runs: among it the journal of a session and the log of the agent.
func packed(t *testing.T, namespace string, seen map[string]string) {
	t.Helper()
	r := startCommand(t, []string{w.mirrord, "diagnose", "-n", namespace, "-o", "packed.tar.gz"}, nil)
	if code := r.end(); code != 0 {
		t.Fatalf("diagnose: exit code %d: %s", code, r.stderr)
	}
	archive := filepath.Join(w.dir, "work", "packed.tar.gz")
	t.Cleanup(func() { os.Remove(archive) })
	f, err := os.Open(archive)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	unzipped, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for files := tar.NewReader(unzipped); ; {
		h, err := files.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(files)
		if err != nil {
			t.Fatal(err)
		}
		_, name, _ := strings.Cut(h.Name, "/")
		if len(text) == 0 {
			t.Errorf("%s is empty", name)
		}
		seen["diagnose: "+name] = string(text)
		all = append(all, name)
	}
	for _, want := range []string{`^agent/mirrord-agent-[^/]*\.log$`, `^sessions/`, `^versions\.json$`, `^doctor\.json$`, `^config\.json$`} {
		if !slices.ContainsFunc(all, regexp.MustCompile(want).MatchString) {
			t.Errorf("diagnose packs %q, without %s", all, want)
		}
	}
}

// loginKey is the private key of the kubeconfig that the tests use otherwise.
func loginKey(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile(w.cluster.Kubeconfig())
	if err != nil {
		t.Fatal(err)
	}
	key := regexp.MustCompile(`client-key-data: (\S{100,})`).FindSubmatch(b)
	if key == nil {
		t.Fatal("no key in the kubeconfig")
	}
	return string(key[1])
}

// parent is the parent of the process whose directory of /proc is given.
func parent(dir string) int {
	b, _ := os.ReadFile(filepath.Join(dir, "stat"))
	f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	if len(f) < 2 {
		return 0
	}
	pid, _ := strconv.Atoi(f[1])
	return pid
}

// keyOf finds the session's private key where it is: in the supervisor's memory,
// before the public key that stands in the Job.
func keyOf(t *testing.T, pid int, job string) (seed []byte) {
	t.Helper()
	m := regexp.MustCompile(`- -key\s+- (\S+)`).FindStringSubmatch(job)
	if m == nil {
		t.Fatalf("no key in the agent's arguments:\n%s", job)
	}
	public, err := base64.StdEncoding.DecodeString(strings.Trim(m[1], `"'`))
	if err != nil {
		t.Fatal(err)
	}
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		t.Fatal(err)
	}
	mem, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	if err != nil {
		t.Fatal(err)
	}
	defer mem.Close()
	for line := range strings.Lines(string(maps)) {
		var from, to int64
		var mode string
		if _, err := fmt.Sscanf(line, "%x-%x %s", &from, &to, &mode); err != nil || !strings.HasPrefix(mode, "rw") {
			continue
		}
		b := make([]byte, to-from)
		n, _ := mem.ReadAt(b, from)
		for b = b[:n]; ; {
			i := bytes.Index(b, public)
			if i < 0 {
				break
			}
			if i >= ed25519.SeedSize {
				s := bytes.Clone(b[i-ed25519.SeedSize : i])
				if bytes.Equal(ed25519.NewKeyFromSeed(s).Public().(ed25519.PublicKey), public) {
					return s
				}
			}
			b = b[i+1:]
		}
	}
	t.Fatal("the session's key was not found in the supervisor's memory: this test would find it nowhere")
	return nil
}

// recent adds the files that the session's user has made in shared places.
func recent(t *testing.T, seen map[string]string) {
	t.Helper()
	_ = filepath.WalkDir(os.TempDir(), func(p string, d fs.DirEntry, err error) error {
		if err != nil || p == w.dir {
			return fs.SkipDir
		}
		fi, err := d.Info()
		if err != nil || !fi.Mode().IsRegular() || fi.Sys().(*syscall.Stat_t).Uid != user || fi.Size() > 1<<20 {
			return nil
		}
		if b, err := os.ReadFile(p); err == nil && !strings.HasSuffix(p, "kubeconfig") { // those are the test's
			seen[p] = string(b)
		}
		return nil
	})
}

func tokenOf(t *testing.T, kubeconfig string) string {
	t.Helper()
	b, err := os.ReadFile(kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	var c struct {
		Users []struct{ User struct{ Token string } }
	}
	if err := json.Unmarshal(b, &c); err != nil || len(c.Users) == 0 || len(c.Users[0].User.Token) < 100 {
		t.Fatalf("no token in the kubeconfig: %v", err)
	}
	return c.Users[0].User.Token
}

// TestStrangersInTheCluster: another pod and the target itself get nothing of
// the agent: it listens on the loopback of its own pod.
func TestStrangersInTheCluster(t *testing.T) {
	r := start(t, "-t", "pod/app", "--steal", "bash", "-c", "python3 ../bin/server.py 8121 & until curl -s localhost:8121 >/dev/null; do :; done; echo ready; read -r line; kill $!")
	r.waitFor("ready")
	agent := kubectl(t, "get", "pods", "-l", "app.kubernetes.io/name=mirrord-agent", "-o", "jsonpath={.items[0].metadata.name} {.items[0].status.podIP}")
	name, ip, _ := strings.Cut(agent, " ")
	var said struct{ Port int }
	first, _, _ := strings.Cut(kubectl(t, "logs", name), "\n")
	if err := json.Unmarshal([]byte(first), &said); err != nil || said.Port == 0 {
		t.Fatalf("announcement %q: %v", first, err)
	}
	for _, from := range []string{"tools", "app"} {
		out := kubectl(t, "exec", from, "--", "python3", "-c", fmt.Sprintf(`
import socket
for port in range(1, 65536):
    s = socket.socket(); s.settimeout(3)
    if s.connect_ex(("%s", port)) == 0: print(port)
    s.close()
print("tried")`, ip))
		if out != "tried" {
			t.Errorf("from pod %s ports of the agent's pod are reached: %s", from, out)
		}
	}
	// Nothing of the agent's in the target's network answers anybody but those
	// whose port was stolen: its listeners reset, its claim tells a name.
	out := kubectl(t, "exec", "app", "--", "python3", "-c", `
import socket
own = {port for port in range(8001, 8041)}
for line in open("/proc/net/tcp"):
    f = line.split()
    if f[3] != "0A": continue
    ip, port = f[1].split(":"); port = int(port, 16)
    if port in own: continue
    s = socket.socket(); s.settimeout(3)
    try:
        s.connect(("127.0.0.1", port)); s.sendall(b"GET / HTTP/1.0\r\n\r\n"); got = s.recv(1000)
    except OSError: got = b""
    if got and port not in (7000, 7002): # the pod's own echoes
         print("port", port, "answers", got)
for line in open("/proc/net/unix"):
    if "@mirrord" in line:
        s = socket.socket(socket.AF_UNIX); s.settimeout(3)
        s.connect("\0" + line.split("@", 1)[1].strip()); print("claim", s.recv(1000).decode())
`)
	for line := range strings.Lines(out) {
		if !claimLine.MatchString(line) {
			t.Errorf("in the target's network: %s", line)
		}
	}
	r.end()
}

// claimLine is what a claim tells whoever asks: who it is, and since when.
var claimLine = regexp.MustCompile(`^claim \S+@\S+ since \d\d:\d\d UTC\n?$`)

// stranger is a program of another user who tries what there is to be tried.
const stranger = `
import ctypes, os, socket, sys
pids = [int(p) for p in sys.argv[1].split(",")]
for pid in pids:
    for name in ["root/etc/hosts", "cwd/.", "environ", "mem", "maps", "fd", "fdinfo", "ns/net", "ns/mnt", "ns/user", "exe", "auxv", "io", "stack", "syscall"]:
        p = "/proc/%d/%s" % (pid, name)
        try:
            if name in ("exe", "ns/net", "ns/mnt", "ns/user"): os.readlink(p)
            elif name in ("fd", "fdinfo", "cwd/."): os.listdir(p)
            else: open(p, "rb").read(1)
            print("got", p)
        except OSError: pass
    libc = ctypes.CDLL(None, use_errno=True)
    fd = libc.syscall(434, pid, 0) # pidfd_open
    for n in range(64):
        if fd >= 0 and libc.syscall(438, fd, n, 0) >= 0: print("got descriptor", n, "of", pid) # pidfd_getfd
    if libc.ptrace(16, pid, 0, 0) == 0: print("attached to", pid) # PTRACE_ATTACH
    try:
        os.kill(pid, 0); print("may signal", pid)
    except OSError: pass
print("tried")
`

// TestStrangersOnThisMachine: another user of this machine gets neither into the
// session's processes nor at its files and sockets, and what the session
// publishes is on loopback only.
func TestStrangersOnThisMachine(t *testing.T) {
	r := start(t, "-t", "pod/app", "--steal", "bash", "-c", "python3 ../bin/server.py 8120 & until curl -s localhost:8120 >/dev/null; do :; done; echo ready; read -r line; kill $!")
	r.waitFor("ready")
	var pids []string
	for _, p := range tree(r.cmd.Process.Pid) {
		pids = append(pids, strconv.Itoa(p))
	}
	if len(pids) < 3 {
		t.Fatalf("processes of the session: %v", pids)
	}
	cmd := exec.Command("/usr/bin/python3", "-c", stranger, strings.Join(pids, ","))
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: user + 1, Gid: user + 1}}
	out, err := cmd.CombinedOutput()
	if got := strings.TrimSpace(string(out)); err != nil || got != "tried" {
		t.Errorf("another user: %v\n%s", err, got)
	}
	// Sockets: none with a name but that of mirrord status, and ports on loopback only.
	if opened(t, pids) == 0 {
		t.Error("nothing was published")
	}
	r.end()
}

// opened counts the ports that processes have open, and tells of what others
// could use. This process's first thread may be in another network.
func opened(t *testing.T, pids []string) (published int) {
	t.Helper()
	inodes := map[string]bool{}
	for _, pid := range pids {
		fds, _ := filepath.Glob("/proc/" + pid + "/fd/*")
		for _, fd := range fds {
			if to, err := os.Readlink(fd); err == nil && strings.HasPrefix(to, "socket:[") {
				inodes[strings.Trim(to, "socket:[]")] = true
			}
		}
	}
	for _, file := range []string{"tcp", "tcp6", "udp", "udp6", "unix"} {
		b, err := os.ReadFile("/proc/thread-self/net/" + file)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(b)) {
			f := strings.Fields(line)
			switch {
			case file == "unix" && len(f) == 8 && inodes[f[6]] && !strings.HasPrefix(f[7], "/"):
				t.Errorf("a socket with a name: %s", line)
			case file == "unix" && len(f) == 8 && inodes[f[6]] && f[3] == "00010000" && !shows(f[7]):
				t.Errorf("a listening socket with a name: %s", line)
			case file != "unix" && len(f) > 9 && inodes[f[9]] && (f[3] == "0A" || strings.HasPrefix(file, "udp")):
				published++
				if !strings.HasPrefix(f[1], "0100007F:") && !strings.HasPrefix(f[1], "00000000000000000000000001000000:") {
					t.Errorf("open beyond loopback: %s %s", file, line)
				}
			}
		}
	}
	return published
}

// shows reports whether a socket that was bound as path is the one at which its
// session can be looked at, and nobody but its user comes to it.
func shows(path string) bool {
	dir := filepath.Join(w.dir, "home", ".local", "state", "mirrord", "running")
	d, err := os.Stat(dir)
	s, serr := os.Lstat(filepath.Join(dir, strings.TrimPrefix(filepath.Base(path), ".")))
	return err == nil && serr == nil && d.Mode().Perm() == 0o700 && s.Mode() == os.ModeSocket|0o600
}

// tree is a front, its supervisor, and what both have started, whether it shares
// this machine's network or not.
func tree(root int) (list []int) {
	known := map[int]bool{root: true}
	for more := true; more; {
		more = false
		procs, _ := filepath.Glob("/proc/[0-9]*")
		for _, dir := range procs {
			pid, _ := strconv.Atoi(filepath.Base(dir))
			args, _ := os.ReadFile(filepath.Join(dir, "cmdline"))
			if !known[pid] && (known[parent(dir)] || supervises(string(args), root)) {
				known[pid], more = true, true
			}
		}
	}
	for pid := range known {
		list = append(list, pid)
	}
	return list
}
