package image

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/mirrord-go/mirrord/internal/failure"
)

// again runs the calling test in a process of its own.
func again(t *testing.T, env ...string) ([]byte, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run", "^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), env...)
	return cmd.CombinedOutput()
}

// tool puts a program into PATH that writes its arguments to a file, and what it
// reads or what its archive holds to another.
func tool(t *testing.T, name, script string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\ndir="+dir+"\nprintf '%s\\n' \"$*\" >$dir/said\n"+script+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	return dir
}

func read(t *testing.T, dir, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}

func TestLoad(t *testing.T) {
	const fromInput = "cat >$dir/got"
	for _, c := range []struct{ tool, kind, context, want, script string }{
		{"kind", Auto, "kind-dev", "load image-archive FILE --name dev", `cat "$3" >$dir/got`},
		{"k3d", Auto, "k3d-dev", "image import FILE --cluster dev", `cat "$3" >$dir/got`},
		{"minikube", Auto, "minikube", "image load FILE --profile minikube", `cat "$3" >$dir/got`},
		{"docker", Auto, "docker-desktop", "load", fromInput},
		{"podman", "podman", "", "load", fromInput},
		{"k3s", "k3s", "default", "ctr images import -", fromInput},
		{"microk8s", Auto, "microk8s", "ctr image import -", fromInput},
		{"ctr", "containerd", "", "-n k8s.io images import -", fromInput},
		{"kind", "kind", "other", "load image-archive FILE --name other", `cat "$3" >$dir/got`},
	} {
		t.Run(c.tool+" for "+c.context, func(t *testing.T) {
			dir := tool(t, c.tool, c.script+"\necho imported >&2; printf 'one\\rtwo'")
			l, err := FindLoader(c.kind, c.context)
			if err != nil {
				t.Fatal(err)
			}
			if got, want := l.Command("FILE"), c.tool+" "+c.want; got != want {
				t.Errorf("it says that it runs %q, want %q", got, want)
			}
			var said []string
			if err := l.Load(t.Context(), []byte("archive"), func(line string) { said = append(said, line) }); err != nil {
				t.Fatal(err)
			}
			if got := read(t, dir, "got"); got != "archive" {
				t.Errorf("the tool got %q", got)
			}
			argv := strings.Fields(read(t, dir, "said"))
			for i, word := range argv {
				if filepath.Base(word) == "agent.tar" {
					argv[i] = "FILE"
					if _, err := os.Stat(word); err == nil {
						t.Errorf("%s is left", word)
					}
				}
			}
			if got := strings.Join(argv, " "); got != c.want {
				t.Errorf("the tool was called with %q, want %q", got, c.want)
			}
			if got := strings.Join(said, "|"); got != "imported|one|two" {
				t.Errorf("of what the tool said there came %q", got)
			}
		})
	}
}

func TestFindLoader(t *testing.T) {
	for _, c := range []struct{ kind, context, want string }{
		{Auto, "prod", `"prod"`},
		{Auto, "", `""`},
		{"nomad", "prod", `"nomad" is no kind`},
	} {
		_, err := FindLoader(c.kind, c.context)
		if code(err) != "image-load-unknown" || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "kind, k3d, minikube, docker, podman, k3s, microk8s, containerd") {
			t.Errorf("%s for %q: %v; want image-load-unknown with %s and the kinds", c.kind, c.context, err, c.want)
		}
	}
	for kind, want := range map[string]bool{Auto: true, "kind": true, "k3d": true, "minikube": true, "docker": false, "podman": false, "k3s": false, "containerd": false, "nomad": false} {
		if got := ByContext(kind); got != want {
			t.Errorf("ByContext(%s) = %v, want %v", kind, got, want)
		}
	}
	for kind, want := range map[string]bool{"kind": false, "docker": false, "k3s": true, "containerd": true} {
		if l, err := FindLoader(kind, "x"); err != nil || l.ThisMachine() != want {
			t.Errorf("%s: only this machine: %v, want %v", kind, err, want)
		}
	}
}

func TestLoadThatFails(t *testing.T) {
	for _, c := range []struct{ name, tool, kind, script, code, why, do string }{
		{"its own complaint", "kind", "kind", "echo 'ERROR: no nodes found for cluster \"dev\"' >&2; exit 1", "image-not-loaded",
			"no nodes found", "mirrord agent image --output agent.tar && kind load image-archive agent.tar --name dev"},
		{"no right to the socket", "ctr", "containerd", "echo 'ctr: failed to dial \"/run/containerd/containerd.sock\": connect: permission denied' >&2; exit 1", "image-load-denied",
			"permission denied", "mirrord agent image --output - | sudo ctr -n k8s.io images import -"},
		{"no right, docker behind it", "kind", "kind", "echo 'permission denied while trying to connect to the Docker daemon socket'; exit 1", "image-load-denied",
			"Docker daemon", "mirrord agent image --output agent.tar && sudo kind load image-archive agent.tar --name dev"},
		{"no right, a snap", "microk8s", "microk8s", "echo 'Insufficient permissions to access MicroK8s.'; exit 1", "image-load-denied",
			"MicroK8s", "mirrord agent image --output - | sudo microk8s ctr image import -"},
		{"much is said", "kind", "kind", "for i in 1 2 3 4 5 6 7 8 9 10 11 12; do echo line $i; done; exit 1", "image-not-loaded", "exit status 1\nline 3\n", "agent.tar"},
	} {
		t.Run(c.name, func(t *testing.T) {
			tool(t, c.tool, c.script)
			failed(t, c.kind, c.code, c.why, c.do)
		})
	}
	t.Run("no tool", func(t *testing.T) {
		t.Setenv("PATH", t.TempDir())
		failed(t, "k3s", "image-load-tool-missing", "not found in $PATH", "mirrord agent image --output - | k3s ctr images import -")
	})
	t.Run("a tool that may not be run", func(t *testing.T) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "k3s"), []byte("#!/nowhere/sh\n"), 0o755); err != nil {
			t.Fatal(err)
		}
		t.Setenv("PATH", dir)
		failed(t, "k3s", "image-load-tool-missing", "no such file", "k3s ctr")
	})
}

func failed(t *testing.T, kind, wantCode, why, do string) {
	t.Helper()
	l, err := FindLoader(kind, "dev")
	if err != nil {
		t.Fatal(err)
	}
	err = l.Load(t.Context(), []byte("archive"), func(string) {})
	f, ok := errors.AsType[*failure.Error](err)
	if !ok || f.Code != wantCode || !strings.Contains(f.Why, why) || !strings.Contains(f.Do, do) {
		t.Errorf("got %+v\nwant %s, why %q, do %q", f, wantCode, why, do)
	}
}

// A tool that does not end is ended, and what it started does not hold us.
func TestLoadIsEnded(t *testing.T) {
	tool(t, "k3s", "echo begun; exec sleep 1000")
	l, err := FindLoader("k3s", "")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	if err := l.Load(ctx, []byte("archive"), func(string) { cancel() }); err == nil {
		t.Error("it ended well")
	}
}

func TestLines(t *testing.T) {
	var said []string
	l := &lines{said: func(s string) { said = append(said, s) }}
	for _, b := range []string{"a", "b\n\n  \r", "c\r\n", strings.Repeat("x", 3*longestLine)} {
		if n, err := l.Write([]byte(b)); n != len(b) || err != nil {
			t.Fatal(n, err)
		}
	}
	l.end()
	if len(said) != 3 || said[0] != "ab" || said[1] != "c" || len(said[2]) != longestLine {
		t.Errorf("got %.100q", said)
	}
}

// However a tool's words come in pieces, the lines are the same, and none is
// empty, long, or more than one.
func FuzzLines(f *testing.F) {
	f.Add([]byte("a\nb"), 1)
	f.Add([]byte("\r\n \r"), 2)
	f.Add([]byte(strings.Repeat("x", longestLine+2)), longestLine)
	f.Fuzz(func(t *testing.T, b []byte, cut int) {
		cut = max(0, min(cut, len(b)))
		var said [2][]string
		for i, pieces := range [][][]byte{{b}, {b[:cut], b[cut:]}} {
			l := &lines{said: func(s string) { said[i] = append(said[i], s) }}
			for _, p := range pieces {
				if n, err := l.Write(p); n != len(p) || err != nil {
					t.Fatal(n, err)
				}
			}
			l.end()
			if len(l.last) > lastLines {
				t.Errorf("it keeps %d lines", len(l.last))
			}
		}
		if !slices.Equal(said[0], said[1]) {
			t.Errorf("got %q in pieces, %q at once", said[1], said[0])
		}
		for _, s := range said[0] {
			if s == "" || len(s) > longestLine || strings.ContainsAny(s, "\r\n") {
				t.Errorf("a line is %.100q", s)
			}
		}
	})
}
