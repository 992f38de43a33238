package container

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/mirrord-go/mirrord/internal/failure"
)

func words(line string) []string { return strings.Fields(line) }

// TestArgv: what the user wrote and what is run.
func TestArgv(t *testing.T) {
	in := Inside{EnvFile: "/vars", Passed: []string{"CERT"}, Mounts: []Mount{{Path: "/etc/app"}, {Path: "/data", Writable: true}}}
	const (
		net   = "--network=host "
		uts   = "--uts=host "
		never = "--pull=never "
		vars  = "--env-file=/vars --env=CERT "
		app   = "--mount=type=bind,src=/etc/app,dst=/etc/app,ro=true "
		data  = "--mount=type=bind,src=/data,dst=/data "
	)
	all := net + uts + never + vars + app + data
	for _, c := range []struct{ name, line, want string }{
		{"no options", "podman run img", "podman run " + all + "img"},
		{"the image's arguments are left alone", "podman run img -d --network x -- -p 1", "podman run " + all + "img -d --network x -- -p 1"},
		{"container run", "/usr/bin/podman container run img", "/usr/bin/podman container run " + all + "img"},
		{"options of the engine", "podman --root /r --log-level=debug --syslog run img", "podman --root=/r --log-level=debug --syslog run " + all + "img"},
		{"letters together", "podman run -itw /x --rm img", "podman run " + all + "--interactive --tty --workdir=/x --rm img"},
		{"a value behind its letter", "podman run -eA=1 -e B=2 img", "podman run " + all + "--env=A=1 --env=B=2 img"},
		{"end of the options", "podman run --rm -- img --rm", "podman run " + all + "--rm img --rm"},
		{"the user's variables come later, which wins", "podman run -e CERT=mine --env-file mine img", "podman run " + all + "--env=CERT=mine --env-file=mine img"},
		{"ports are published by the session", "podman run -p 8080:80 -P img", "podman run " + all + "img"},
		{"the session's network, said", "podman run --network host --net=host img", "podman run " + all + "img"},
		{"the user's hostname", "podman run -h me img", "podman run " + net + never + vars + app + data + "--hostname=me img"},
		{"the user's choice of a hostname's namespace", "podman run --uts private img", "podman run " + net + never + vars + app + data + "--uts=private img"},
		{"the image is there by then", "podman run --pull always img", "podman run " + all + "img"},
		{"a directory", "podman run --rootfs dir sh", "podman run " + net + uts + vars + app + data + "--rootfs dir sh"},
		{"the user's mount at a volume", "podman run -v ./x:/data img", "podman run " + net + uts + never + vars + app + "--volume=./x:/data img"},
		{"the user's mount above a volume", "podman run --mount type=tmpfs,destination=/etc img", "podman run " + net + uts + never + vars + data + "--mount=type=tmpfs,destination=/etc img"},
		{"the user's tmpfs", "podman run --tmpfs /data:rw img", "podman run " + net + uts + never + vars + app + "--tmpfs=/data:rw img"},
		{"a mount beside a volume", "podman run -v /d img", "podman run " + all + "--volume=/d img"},
		{"not detached", "podman run -d=false img", "podman run " + all + "img"},
	} {
		r, err := Parse(words(c.line))
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if got := strings.Join(r.Argv(in), " "); got != c.want {
			t.Errorf("%s:\n got %s\nwant %s", c.name, got, c.want)
		}
	}
}

// TestRefused: what cannot be in a session, by its code.
func TestRefused(t *testing.T) {
	for _, c := range []struct{ line, code string }{
		{"podman", "container-command"},
		{"podman ps", "container-command"},
		{"podman container ls", "container-command"},
		{"podman run", "container-command"},
		{"podman run --rm", "container-command"},
		{"podman run --name", "container-command"},
		{"podman run --of-another-world img", "container-command"},
		{"podman run -Z img", "container-command"},
		{"podman run -d img", "container-detached"},
		{"podman run -itd img", "container-detached"},
		{"podman run --detach=true img", "container-detached"},
		{"podman run --network bridge img", "container-network"},
		{"podman run --net=container:x img", "container-network"},
		{"podman run --ip 10.0.0.1 img", "container-network"},
		{"podman run --pod p img", "container-network"},
		{"podman --remote run img", "container-remote"},
		{"podman -c far run img", "container-remote"},
		{"podman --url ssh://far run img", "container-remote"},
		{"podman run -p eighty:80 img", "container-publish"},
		{"podman run -p 80-90:80 img", "container-publish"},
		{"podman run -p 80:80/smtp img", "container-publish"},
	} {
		_, err := Parse(words(c.line))
		f, ok := errors.AsType[*failure.Error](err)
		if !ok || f.Code != c.code || f.Exit != failure.ExitUsage || f.Why == "" || f.Do == "" {
			t.Errorf("%s: got %#v, want %s", c.line, err, c.code)
		}
	}
}

// TestAdd: options of the configuration come first, and are judged too.
func TestAdd(t *testing.T) {
	r, err := Parse(words("podman run --platform linux/arm64 img"))
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Add(words("--platform=linux/amd64 -p 8080:80 -e A")); err != nil {
		t.Fatal(err)
	}
	if got, want := strings.Join(r.Argv(Inside{}), " "), "podman run --network=host --uts=host --pull=never --platform=linux/amd64 --env=A --platform=linux/arm64 img"; got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
	for _, wrong := range []string{"--network bridge", "img", "-d", "--nothing"} {
		if err := r.Add(words(wrong)); err == nil {
			t.Errorf("%s: no error", wrong)
		}
	}
}

func TestPublished(t *testing.T) {
	for _, c := range []struct {
		text string
		want [][2]uint16
	}{
		{"80", nil},
		{"8080:80", [][2]uint16{{80, 8080}}},
		{"8080:80/udp", [][2]uint16{{80, 8080}}},
		{"127.0.0.1:8080:80", [][2]uint16{{80, 8080}}},
		{"[::1]:8080:80", [][2]uint16{{80, 8080}}},
		{"127.0.0.1::80", nil},
		{"8000-8002:80-82", [][2]uint16{{80, 8000}, {81, 8001}, {82, 8002}}},
	} {
		if got, err := published(c.text); err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%s: got %v, %v, want %v", c.text, got, err, c.want)
		}
	}
	for _, text := range []string{"", ":", "0:80", "80:", "80:70000", "1:2:3:4", "82-80:82-80", "1-2:1-3", "a-b:1-2"} {
		if got, err := published(text); err == nil {
			t.Errorf("%q: got %v, want an error", text, got)
		}
	}
}

func TestSourcesAndTargets(t *testing.T) {
	r, err := Parse(words("podman run -v /srv/a:/a:ro -v ./b:/b -v name:/c -v /d --mount type=bind,src=/srv/e,dst=/e --mount type=volume,src=v,target=/f " +
		"--tmpfs /g:size=1m --mount type=bind,source=../h,destination=/h/ --rootfs root:O sh"))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := r.Sources("/ws"), []string{"/srv/a", "/ws/b", "/srv/e", "/h", "/ws/root"}; !slices.Equal(got, want) {
		t.Errorf("sources: got %v, want %v", got, want)
	}
	if got, want := r.Targets(), []string{"/a", "/b", "/c", "/d", "/e", "/f", "/g", "/h"}; !slices.Equal(got, want) {
		t.Errorf("targets: got %v, want %v", got, want)
	}
}

// TestVariables: what a file of variables cannot hold goes by the engine's own
// environment, unless that would change the engine.
func TestVariables(t *testing.T) {
	long := "LONG=" + strings.Repeat("x", lineMax)
	file, passed, lost := Variables([]string{"A=1", "B=", "SPACED= a  b ", "URL=postgres://u:p@h/db?x=1#y", `JSON={"a":1}`, "CERT=one\ntwo", "HTTPS_PROXY=a\nb", "HTTP_PROXY=http://p:1", long, "odd", "=x", "a b=1", "#c=1"})
	if got, want := string(file), "A=1\nB=\nSPACED= a  b \nURL=postgres://u:p@h/db?x=1#y\nHTTP_PROXY=http://p:1\n"; got != want {
		t.Errorf("file: got %q, want %q", got, want)
	}
	if want := []string{`JSON={"a":1}`, "CERT=one\ntwo", long}; !slices.Equal(passed, want) {
		t.Errorf("passed: got %q, want %q", passed, want)
	}
	if want := []string{"HTTPS_PROXY"}; !slices.Equal(lost, want) {
		t.Errorf("lost: got %q, want %q", lost, want)
	}
}

// TestOutside: an engine that starts a container, as the command of a session
// whose containers they are not.
func TestOutside(t *testing.T) {
	for line, want := range map[string]bool{"docker run -it alpine": true, "/usr/bin/podman --log-level debug run alpine": true, "nerdctl compose up": true,
		"docker ps": false, "docker": false, "python run": false, "podman images": false} {
		if got := Outside(words(line)); (got != "") != want {
			t.Errorf("%s: got %q", line, got)
		}
	}
}

func TestMountable(t *testing.T) {
	for p, want := range map[string]bool{"/etc/app": true, "/run/secrets/x": true, "/data": true, "/": false, "data": false, "/proc/x": false, "/dev/shm": false,
		"/etc/hosts": false, "/etc/resolv.conf": false, "/etc/hosts.d": true, "/a,b": false, `/a"b`: false, "/a:b": false} {
		if got := Mountable(p); got != want {
			t.Errorf("%s: got %v, want %v", p, got, want)
		}
	}
}

// FuzzParse: whatever is written, nothing breaks, the image and what follows it
// stay, and what is made is understood again and is not changed any more.
func FuzzParse(f *testing.F) {
	f.Add("podman --root /r run -it --rm -v /a:/b -p 80:80 img sh -c x")
	f.Add("podman run --network=host -eA=1 -- img")
	f.Fuzz(func(t *testing.T, line string) {
		argv := words(line)
		if len(argv) == 0 {
			return
		}
		r, err := Parse(argv)
		if err != nil {
			return
		}
		made := r.Argv(Inside{Mounts: []Mount{{Path: "/etc/app"}}})
		if tail := append([]string{r.Image}, r.Args...); !slices.Equal(made[len(made)-len(tail):], tail) {
			t.Errorf("%q: %q does not end with %q", line, made, tail)
		}
		again, err := Parse(made)
		if err != nil {
			t.Fatalf("%q: %q is not understood: %v", line, made, err)
		}
		if again.Image != r.Image || !slices.Equal(again.Args, r.Args) {
			t.Errorf("%q: image %q, arguments %q, then %q, %q", line, r.Image, r.Args, again.Image, again.Args)
		}
	})
}
