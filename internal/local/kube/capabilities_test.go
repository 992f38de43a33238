package kube

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/mirrord-go/mirrord/internal/link"
	"github.com/mirrord-go/mirrord/internal/link/resume"
	"github.com/mirrord-go/mirrord/internal/link/seal"
	"github.com/mirrord-go/mirrord/internal/protocol"
)

// The table of capabilities against the agent itself and a target made of
// namespaces here.

// targetUser is nobody's.
const targetUser = 1234

// victim starts a process in namespaces of its own, as setpriv's options say,
// and gives its id and an address inside that listens.
func victim(t *testing.T, privileges ...string) (pid int, listens netip.AddrPort) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("this test makes namespaces: run it as root")
	}
	const serve = `import socket, sys
s = socket.socket(); s.bind(("127.0.0.1", 0)); s.listen(5); print(s.getsockname()[1], flush=True); sys.stdin.read()`
	script := append([]string{"-c", `ip link set lo up; exec setpriv "$@"`, "sh"}, append(privileges, "python3", "-c", serve)...)
	cmd := exec.Command("sh", script...)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "COLOR=blue"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS | syscall.CLONE_NEWUTS}
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stdin.Close(); _ = cmd.Wait() })
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return cmd.Process.Pid, netip.MustParseAddrPort("127.0.0.1:" + strings.TrimSpace(line))
}

// agentWith starts program for the target pid with these capabilities, as a
// container's runtime would, and connects. The error is the agent's or that of
// the greeting.
func agentWith(t *testing.T, program string, caps []corev1.Capability, pid int, features string) (*link.Conn, error) {
	t.Helper()
	key, err := seal.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	bounds := "-all"
	for _, c := range caps {
		bounds += ",+" + strings.ToLower(string(c))
	}
	cmd := exec.Command("setpriv", "--bounding-set", bounds, "--inh-caps", "-all", program,
		"-key", seal.PublicKey(key), "-session", "s", "-pid", fmt.Sprint(pid), "-features", features)
	var log strings.Builder
	cmd.Stderr = &log
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Signal(syscall.SIGTERM); _ = cmd.Wait() })
	line, err := bufio.NewReader(out).ReadBytes('\n')
	if err != nil {
		return nil, fmt.Errorf("the agent ended: %w: %s", err, log.String())
	}
	var a announcement
	if err := json.Unmarshal(line, &a); err != nil {
		t.Fatal(err)
	}
	theirs, err := seal.ParsePublicKey(a.Key)
	if err != nil {
		t.Fatal(err)
	}
	pipe, err := resume.Dial(t.Context(), func(ctx context.Context) (io.ReadWriteCloser, error) {
		c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", a.Port))
		if err != nil {
			return nil, err
		}
		return seal.Client(ctx, c, key, theirs)
	}, resume.Options{})
	if err != nil {
		t.Fatal(err)
	}
	l := link.New(pipe, link.Local, link.Options{})
	t.Cleanup(func() { l.Close("test") })
	s, err := l.Open(t.Context(), link.Interactive, &protocol.Hello{Min: protocol.MinVersion, Max: protocol.Version, Session: "s"})
	if err != nil {
		t.Fatal(err)
	}
	m, err := s.Receive()
	if err != nil {
		t.Fatal(err)
	}
	if a, ok := m.(*protocol.Answer); ok {
		return nil, fmt.Errorf("greeted with: %s", a.Text)
	}
	return l, nil
}

// asked is the error of a call's answer.
func asked(ctx context.Context, l *link.Conn, m protocol.Message) (protocol.Message, error) {
	got, err := l.Call(ctx, m)
	if a, ok := got.(*protocol.Answer); ok && err == nil {
		err = a.Err()
	}
	return got, err
}

func TestEachCapability(t *testing.T) {
	program := filepath.Join(t.TempDir(), "agent")
	build := exec.Command("go", "build", "-o", program, "../../../cmd/mirrord-agent")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the agent: %v: %s", err, out)
	}
	ordinary, listens := victim(t, "--reuid", fmt.Sprint(targetUser), "--regid", "99", "--groups", "50")
	root, _ := victim(t, "--bounding-set", "-all,+dac_override,+fowner,+chown", "--inh-caps", "-all")

	// Files that only the target's user, its group or one of its groups may
	// read, and a directory of another user's.
	dir, err := os.MkdirTemp("/tmp", "capabilities-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	file := func(name string, uid, gid int, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.WriteFile(path, []byte("content"), 0o600), os.Chown(path, uid, gid), os.Chmod(path, mode)); err != nil {
			t.Fatal(err)
		}
		return path
	}
	mine, group, groups := file("mine", targetUser, 1, 0o400), file("group", 1, 99, 0o040), file("groups", 1, 50, 0o040)
	foreign := filepath.Join(dir, "foreign")
	if err := errors.Join(os.Mkdir(foreign, 0o700), os.Chown(foreign, targetUser, 1)); err != nil {
		t.Fatal(err)
	}
	number := 0
	sockets := map[string]string{}
	for name, mode := range map[string]os.FileMode{"mine": 0o600, "groups": 0o060} {
		path, owner := filepath.Join(dir, name+".sock"), targetUser
		if name == "groups" {
			owner = 1
		}
		ln, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { ln.Close() })
		if err := errors.Join(os.Chmod(path, mode), os.Chown(path, owner, 50)); err != nil {
			t.Fatal(err)
		}
		sockets[name] = path
	}

	environment := func(ctx context.Context, l *link.Conn) error {
		m, err := asked(ctx, l, &protocol.EnvRequest{})
		if env, ok := m.(*protocol.Env); err == nil && (!ok || !slices.Contains(env.Vars, "COLOR=blue")) {
			err = fmt.Errorf("environment %v", m)
		}
		return err
	}
	subscribe := func(mode uint8) func(context.Context, *link.Conn) error {
		return func(ctx context.Context, l *link.Conn) error {
			s, err := l.Open(ctx, link.Interactive, &protocol.Subscribe{Port: listens.Port(), Mode: mode})
			if err != nil {
				return err
			}
			defer s.Close()
			m, err := s.Receive()
			if a, ok := m.(*protocol.Answer); ok && err == nil {
				err = a.Err()
			}
			return err
		}
	}
	connect := func(paths ...string) func(context.Context, *link.Conn) error {
		return func(ctx context.Context, l *link.Conn) (err error) {
			for _, path := range paths {
				s, oerr := l.Open(ctx, link.Bulk, &protocol.Dial{Network: protocol.NetworkUnix, Name: path})
				if oerr != nil {
					return oerr
				}
				m, rerr := s.Receive()
				s.Close()
				if a, ok := m.(*protocol.Answer); ok && rerr == nil {
					rerr = a.Err()
				}
				err = errors.Join(err, rerr)
			}
			return err
		}
	}
	for _, c := range []struct {
		feature  Feature
		pid      int
		with     []Feature // needed for it
		works    func(context.Context, *link.Conn) error
		degrades string // without one of these another way is taken, or it works all the same
	}{
		{feature: "", pid: ordinary, works: environment},
		{feature: FeatureNetwork, pid: ordinary, works: func(ctx context.Context, l *link.Conn) error {
			s, err := l.Open(ctx, link.Bulk, &protocol.Dial{Network: protocol.NetworkTCP, Addr: listens})
			if err != nil {
				return err
			}
			defer s.Close()
			m, err := s.Receive()
			if a, ok := m.(*protocol.Answer); ok && err == nil {
				err = a.Err()
			}
			return err
		}},
		{feature: FeatureFiles, pid: ordinary, works: func(ctx context.Context, l *link.Conn) error {
			for _, path := range []string{mine, group, groups} {
				m, err := asked(ctx, l, &protocol.Stat{Path: path, Prefetch: 100})
				if a, ok := m.(*protocol.Attr); err != nil || !ok || string(a.Data) != "content" {
					return fmt.Errorf("read %s: %v, %w", path, m, err)
				}
			}
			return nil
		}},
		{feature: FeatureWrite, pid: root, with: []Feature{FeatureFiles}, works: func(ctx context.Context, l *link.Conn) error {
			number++
			made := fmt.Sprintf("%s/made-%d", foreign, number)
			if _, err := asked(ctx, l, &protocol.Make{Path: made, Mode: syscall.S_IFREG | 0o600}); err != nil {
				return fmt.Errorf("make a file in another's directory: %w", err)
			}
			if _, err := asked(ctx, l, &protocol.SetAttr{Path: made, What: protocol.SetUID | protocol.SetGID, UID: targetUser, GID: 50}); err != nil {
				return fmt.Errorf("give a file away: %w", err)
			}
			_, err := asked(ctx, l, &protocol.SetAttr{Path: mine, What: protocol.SetMode, Mode: 0o400})
			return err
		}},
		{feature: FeatureUnix, pid: ordinary, works: connect(sockets["mine"], sockets["groups"]), degrades: "DAC_OVERRIDE"},
		{feature: FeatureUnix, pid: root, works: connect(sockets["mine"]), degrades: "SETUID SETGID"},
		{feature: FeatureMirror, pid: ordinary, works: subscribe(protocol.ModeMirror)},
		{feature: FeatureSteal, pid: ordinary, works: subscribe(protocol.ModeSteal), degrades: "BPF"}, // nftables
	} {
		features := append([]Feature{"", c.feature}, c.with...)
		var names []string
		var all []corev1.Capability
		for _, f := range features {
			names = append(names, string(f))
			for _, name := range capabilities[f] {
				if !slices.Contains(all, name) {
					all = append(all, name)
				}
			}
		}
		try := func(t *testing.T, caps []corev1.Capability) error {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			l, err := agentWith(t, program, caps, c.pid, strings.Join(names, ","))
			if err == nil {
				err = c.works(ctx, l)
			}
			return err
		}
		name := string(c.feature)
		if name == "" {
			name = "environment"
		}
		t.Run(name, func(t *testing.T) {
			if err := try(t, all); err != nil {
				t.Fatalf("%v do not suffice: %v", all, err)
			}
		})
		for i, missing := range all {
			if !slices.Contains(capabilities[c.feature], missing) {
				continue
			}
			t.Run(fmt.Sprintf("%s without %s", name, missing), func(t *testing.T) {
				err := try(t, slices.Delete(slices.Clone(all), i, i+1))
				if degrades := slices.Contains(strings.Fields(c.degrades), string(missing)); (err == nil) != degrades {
					t.Errorf("result %v, another way instead: %v", err, degrades)
				}
			})
		}
	}

	t.Run("write for a root without CHOWN", func(t *testing.T) {
		weak, _ := victim(t, "--bounding-set", "-all,+dac_override,+fowner", "--inh-caps", "-all")
		all := slices.Concat(capabilities[""], capabilities[FeatureFiles], capabilities[FeatureWrite])
		l, err := agentWith(t, program, all, weak, "files,write")
		if err == nil {
			_, err = asked(t.Context(), l, &protocol.SetAttr{Path: mine, What: protocol.SetUID, UID: 1})
		}
		if !errors.Is(err, syscall.EPERM) {
			t.Errorf("got %v, want %v", err, syscall.EPERM)
		}
	})
}
