package doctor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/mirrord-go/mirrord/internal/debugger"
	"github.com/mirrord-go/mirrord/internal/failure"
	"github.com/mirrord-go/mirrord/internal/local/host"
	"github.com/mirrord-go/mirrord/internal/local/sandbox"
	"github.com/mirrord-go/mirrord/internal/local/sandbox/handoff"
)

// healthy is a machine that lacks nothing that can be seen.
var healthy = host.Facts{Release: "6.8.0", UID: 1000, Files: 1 << 20, Devices: map[string]uint32{"/dev/net/tun": 0o666, "/dev/fuse": 0o666}}

// found is what a probe finds, all but what lacks names; what a session can do
// without is done without.
func found(f host.Facts, lacks map[handoff.Step]syscall.Errno, only ...handoff.Step) []sandbox.Ability {
	var all []sandbox.Ability
	steps := only
	if len(only) == 0 {
		for _, p := range host.Pieces {
			steps = append(steps, p.Step)
		}
	}
	for _, step := range steps {
		a := sandbox.Ability{Step: step}
		if errno := lacks[step]; errno != 0 {
			a.Err, a.Cure = host.Explain(&handoff.Error{Step: step, Errno: errno}, f)
			a.Instead = len(only) == 0 && slices.ContainsFunc(host.Pieces, func(p host.Piece) bool { return p.Step == step && p.Without != "" })
		}
		all = append(all, a)
	}
	return all
}

func TestMachine(t *testing.T) {
	const good = "good kernel\ngood user namespaces\ngood /dev/net/tun\ngood nftables\ngood /dev/fuse\ngood mounts\ngood change of root\ngood notice of listeners\ngood owners of files\ngood limits"
	const rest = "\nskipped /dev/net/tun\nskipped nftables\nskipped /dev/fuse\nskipped mounts\nskipped change of root\nskipped notice of listeners\nskipped owners of files\ngood limits"
	but := func(old, new string) string { return strings.Replace(good, old, new, 1) }
	lacks := func(step handoff.Step, errno syscall.Errno) map[handoff.Step]syscall.Errno {
		return map[handoff.Step]syscall.Errno{step: errno}
	}
	with := func(change func(*host.Facts)) host.Facts {
		f := healthy
		change(&f)
		return f
	}
	noVeth := found(healthy, lacks("tun", syscall.ENOENT))
	noVeth[1].Instead = false
	for _, c := range []struct {
		name  string
		facts host.Facts
		found []sandbox.Ability
		err   error
		want  string
		ok    bool
	}{
		{"all is there", healthy, found(healthy, nil), nil, good, true},
		{"no namespaces", healthy, found(healthy, lacks("userns", syscall.ENOSPC), "userns"), nil, "good kernel\nbad user namespaces no-user-namespaces" + rest, false},
		{"no maps", healthy, found(healthy, lacks("uid_map", syscall.EPERM), "uid_map"), nil, "good kernel\nbad user namespaces no-user-namespaces" + rest, false},
		{"no namespaces, root", healthy, found(healthy, lacks("userns", syscall.ENOSPC)), nil, but("good user", "skipped user"), true},
		{"one is missing", healthy, found(healthy, map[handoff.Step]syscall.Errno{"tun": syscall.ENOENT, "fuse": syscall.EACCES}), nil,
			strings.Replace(but("good /dev/net/tun", "skipped /dev/net/tun"), "good /dev/fuse", "bad /dev/fuse no-fuse", 1), false},
		{"one and what stands in for it", healthy, noVeth, nil, but("good /dev/net/tun", "bad /dev/net/tun no-tun"), false},
		{"what a session does without", healthy, found(healthy, lacks("seccomp", syscall.EBUSY)), nil, but("good notice", "skipped notice"), true},
		{"owners cannot be shown", healthy, found(healthy, lacks("owners", syscall.EPERM)), nil, but("good owners", "skipped owners"), true},
		{"nobody may look into processes", with(func(f *host.Facts) { f.Settings = map[string]string{"kernel.yama.ptrace_scope": "3"} }), found(healthy, nil), nil, but("good notice", "skipped notice"), true},
		{"cannot be tried", healthy, nil, errors.New("too many processes"), "good kernel\nbad user namespaces no-sandbox" + rest, false},
		{"old kernel", with(func(f *host.Facts) { f.Release = "4.19.0" }), found(healthy, lacks("bind", syscall.ENOSYS)), nil,
			strings.Replace(but("good kernel", "bad kernel old-kernel"), "good mounts", "bad mounts no-sandbox", 1), false},
		{"narrow limit", with(func(f *host.Facts) { f.Files = 1024 }), found(healthy, nil), nil, but("good limits", "skipped limits"), true},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got []Check
			d := &doctor{o: Options{Show: func(c Check) { got = append(got, c) }}, ok: true}
			d.machine(context.Background(), c.facts, func(context.Context) ([]sandbox.Ability, error) { return c.found, c.err })
			if lines(got) != c.want || d.ok != c.ok {
				t.Errorf("ok %v, want %v; got:\n%s\nwant:\n%s", d.ok, c.ok, lines(got), c.want)
			}
			for _, check := range got {
				if check.State != Good && check.Text == "" && check.Failure == nil {
					t.Errorf("%s: no reason is given", check.Name)
				}
				if len(check.Cure.Commands) > 0 && !strings.Contains(check.Do+doOf(check), check.Cure.Commands[0].String()) {
					t.Errorf("%s: %s is not told", check.Name, check.Cure.Commands[0])
				}
			}
		})
	}
}

// There is a line for each debugger that was found; one that cannot work says why.
func TestDebuggers(t *testing.T) {
	for _, c := range []struct {
		scope, uid string
		found      string
		want       string
	}{
		{"1", "user", "", ""},
		{"", "user", "node gdb strace", "good node\ngood gdb\ngood strace"},
		{"1", "user", "python3 dlv java", "good python3\ngood dlv\ngood java"},
		{"2", "user", "python3 dlv java", "good python3\nskipped dlv\ngood java"},
		{"2", "root", "gdbserver", "good gdbserver"},
		{"3", "root", "lldb lldb-server rdbg", "skipped lldb\nskipped lldb-server\ngood rdbg"},
	} {
		f := host.Facts{UID: map[string]int{"user": 1000, "root": 0}[c.uid], Settings: map[string]string{"kernel.yama.ptrace_scope": c.scope}}
		var got []Check
		d := &doctor{o: Options{Show: func(c Check) { got = append(got, c) }}, ok: true}
		d.debuggers(f, func(tool debugger.Tool) (string, bool) {
			return "/bin/" + tool.Program, slices.Contains(strings.Fields(c.found), tool.Program)
		})
		if lines(got) != c.want || !d.ok {
			t.Errorf("scope %q, %s: ok %v, got:\n%s\nwant:\n%s", c.scope, c.uid, d.ok, lines(got), c.want)
		}
		for _, check := range got {
			if !strings.HasPrefix(check.Text, "/bin/"+check.Name+"; ") || check.State == Good && !strings.Contains(check.Text, "mirrord exec -t TARGET -- "+check.Name) || check.State == Skipped && !strings.Contains(check.Do, "ptrace_scope") {
				t.Errorf("%s: %q, do %q", check.Name, check.Text, check.Do)
			}
		}
	}
}

func doOf(c Check) string {
	if c.Failure == nil {
		return ""
	}
	return c.Failure.Do
}

// Root runs what mends, everybody else gets it to run; where nothing is missing
// nothing happens.
func TestMend(t *testing.T) {
	root := healthy
	root.UID = 0
	closed := root
	closed.Devices = map[string]uint32{"/dev/net/tun": 0o666, "/dev/fuse": 0o600}
	inside := closed
	inside.Container = "docker container"
	noNFT := map[handoff.Step]syscall.Errno{handoff.StepNFT: syscall.EPROTONOSUPPORT}
	const modprobe = "modprobe -a nf_tables nft_chain_nat nf_nat"
	const modules = `printf '%s\n' nf_tables nft_chain_nat nf_nat | tee -a /etc/modules-load.d/mirrord.conf`
	const chmod = "chmod 0666 /dev/fuse"
	const rule = `printf '%s\n' 'KERNEL=="fuse", MODE="0666"' | tee -a /etc/udev/rules.d/60-mirrord.rules`
	for _, c := range []struct {
		name  string
		facts host.Facts
		lacks map[handoff.Step]syscall.Errno
		fails string   // this command
		want  []string // run
		code  string
		says  string
	}{
		{"all is there", healthy, nil, "", nil, "", ""},
		{"all is there, root", root, nil, "", nil, "", ""},
		{"as a user", healthy, noNFT, "", nil, "needs-root", "sudo " + modprobe},
		{"as root", root, noNFT, "", []string{modprobe, modules}, "", ""},
		{"what only others miss", closed, nil, "", []string{chmod, rule}, "", ""},
		{"both", closed, noNFT, "", []string{modprobe, modules, chmod, rule}, "", ""},
		{"a command fails, the others run", closed, noNFT, modprobe, []string{modprobe, modules, chmod, rule}, "not-mended", modprobe},
		{"in a container", inside, noNFT, "", nil, "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			var ran []string
			var out bytes.Buffer
			err := mend(t.Context(), &out, c.facts, func(context.Context) ([]sandbox.Ability, error) { return found(c.facts, c.lacks), nil },
				func(_ context.Context, _ io.Writer, x host.Command) error {
					ran = append(ran, x.String())
					if x.String() == c.fails {
						return errors.New("exit status 1")
					}
					return nil
				})
			code, text := "", ""
			if err != nil {
				f := failure.From(err)
				code, text = f.Code, fmt.Sprint(f.Why, f.Do)
			}
			if code != c.code || !strings.Contains(text, c.says) || strings.Join(ran, "\n") != strings.Join(c.want, "\n") {
				t.Errorf("got %q %q, ran:\n%s\nwant %q, %q, and:\n%s", code, text, strings.Join(ran, "\n"), c.code, c.says, strings.Join(c.want, "\n"))
			}
			for _, x := range c.want {
				if !strings.Contains(out.String(), "+ "+x+"\n") {
					t.Errorf("%s is not written before it runs:\n%s", x, &out)
				}
			}
		})
	}
}

// What is printed for a shell does what --fix does.
func TestExecute(t *testing.T) {
	dir := t.TempDir()
	for _, c := range []host.Command{
		{Argv: []string{"tee", "-a", dir + "/a file"}, Input: "it's\n  \"one\"\n"},
		{Argv: []string{"sh", "-c", "test -e '" + dir + "/x' || echo x '%s' >>'" + dir + "/a file'"}},
	} {
		if err := execute(t.Context(), io.Discard, c); err != nil {
			t.Fatal(err)
		}
		if err := execute(t.Context(), io.Discard, host.Command{Argv: []string{"sh", "-c", c.String()}}); err != nil {
			t.Fatal(err)
		}
	}
	var got bytes.Buffer
	if err := execute(t.Context(), &got, host.Command{Argv: []string{"sh", "-c", "cat '" + dir + "/a file' >&2"}}); err != nil {
		t.Fatal(err)
	}
	if want := strings.Repeat("it's\n  \"one\"\n", 2) + strings.Repeat("x %s\n", 2); got.String() != want {
		t.Errorf("got %q, want %q", got.String(), want)
	}
	if err := execute(t.Context(), io.Discard, host.Command{Argv: []string{"false"}}); err == nil {
		t.Error("a command that fails is no success")
	}
}
