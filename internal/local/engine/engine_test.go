package engine

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/mirrord-go/mirrord/internal/failure"
	"github.com/mirrord-go/mirrord/internal/local/container"
	"github.com/mirrord-go/mirrord/internal/local/ids"
)

const rootless = `{"host": {"idMappings": {"gidmap": [{"container_id": 0, "host_id": 1000, "size": 1}],
 "uidmap": [{"container_id": 0, "host_id": 1000, "size": 1}, {"container_id": 1, "host_id": 100000, "size": 65536}]},
 "security": {"rootless": true}, "serviceIsRemote": false},
 "store": {"configFile": "/home/ana/.config/containers/storage.conf", "graphRoot": "/srv/images", "imageStore": {"number": 1}, "runRoot": "/run/user/1000/containers", "volumePath": ""}}`

// engineIn makes a program that answers as an engine would.
func engineIn(t *testing.T, name, script string) *container.Run {
	t.Helper()
	p := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(p, []byte("#!/bin/sh\n"+script), 0o755); err != nil {
		t.Fatal(err)
	}
	r, err := container.Parse([]string{p, "run", "--platform", "linux/arm64", "--rm", "img"})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func code(err error) string {
	f, _ := errors.AsType[*failure.Error](err)
	if f == nil {
		return ""
	}
	return f.Code
}

func TestLook(t *testing.T) {
	r := engineIn(t, "podman", "[ $1 = info ] && cat <<'E'\n"+rootless+"\nE\n")
	if err := Look(context.Background(), r); err != nil {
		t.Fatal(err)
	}
	if want := []ids.Extent{{Inside: 0, Outside: 1000, Count: 1}, {Inside: 1, Outside: 100000, Count: 65536}}; !r.Rootless || !reflect.DeepEqual(r.Users, want) || len(r.Groups) != 1 {
		t.Errorf("got %+v", r)
	}
	if want := []string{"/home/ana/.config/containers", "/srv/images", "/run/user/1000/containers"}; !slices.Equal(r.Places, want) {
		t.Errorf("places: got %q, want %q", r.Places, want)
	}
	for _, c := range []struct{ name, script, code string }{
		{"podman", "echo no such thing >&2; exit 125", "container-engine"},
		{"podman", "echo nothing", "container-engine"},
		{"podman", `echo '{"host": {"serviceIsRemote": true}}'`, "container-remote"},
		{"crun", "echo crun version 1.20", "container-engine"},
		{"docker", "[ $1 = --version ] && echo podman version 5.4.2 || echo '{}'", ""},
	} {
		if err := Look(context.Background(), engineIn(t, c.name, c.script)); code(err) != c.code {
			t.Errorf("%s: %s: got %v, want %q", c.name, c.script, err, c.code)
		}
	}
	missing := &container.Run{Engine: []string{"/nowhere/podman"}}
	if err := Look(context.Background(), missing); code(err) != "container-engine" {
		t.Errorf("no engine: got %v", err)
	}
}

// TestRecognize: engines by what they say they are, not by their names; each of the
// others with what to type instead, which is another thing for each.
func TestRecognize(t *testing.T) {
	for _, c := range []struct{ name, script, says string }{
		{"podman", "exit 1", ""}, // not asked
		{"server", "exit 1", ""}, // nor is what may not be an engine
		{"docker", "echo podman version 5.4.2", ""},
		{"docker", "echo Docker version 29.0.0", "podman pull docker-daemon:NAME:TAG"},
		{"nerdctl", "echo nerdctl version 2.1.0", "nerdctl save NAME:TAG | podman load"},
		{"docker", "echo broken >&2; exit 1", "broken"},
	} {
		err := Recognize(context.Background(), engineIn(t, c.name, c.script).Engine[0])
		if c.says == "" && err == nil {
			continue
		}
		f, _ := errors.AsType[*failure.Error](err)
		if f == nil || f.Code != "container-engine" || !strings.Contains(f.Why+f.Do, c.says) {
			t.Errorf("%s: %s: got %v, want %q", c.name, c.script, err, c.says)
		}
	}
	if err := Recognize(context.Background(), "/nowhere/nerdctl"); code(err) != "container-engine" {
		t.Errorf("no engine: got %v", err)
	}
}

// TestFetch: an image that is there is not fetched, unless that is asked for.
func TestFetch(t *testing.T) {
	const there, not = `echo "$*" >>$0.log; [ "$1 $2" != "image exists" ] || exit 0; echo ID`, `echo "$*" >>$0.log; [ "$1 $2" != "image exists" ] || exit 1; echo ID`
	for _, c := range []struct {
		name, script string
		extra        []string
		calls, image string
	}{
		{"there", there, nil, "image exists img", "img"},
		{"not there", not, nil, "image exists img, pull --platform=linux/arm64 img, image exists img", "ID"},
		{"always", there, []string{"--pull=always"}, "pull --platform=linux/arm64 img, image exists img", "img"},
		{"never", not, []string{"--pull=never"}, "", "img"},
		{"a directory", not, []string{"--rootfs"}, "", "img"},
	} {
		r := engineIn(t, "podman", c.script)
		if err := r.Add(c.extra); err != nil {
			t.Fatal(err)
		}
		if err := Fetch(context.Background(), r, os.Stderr); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		log, _ := os.ReadFile(r.Engine[0] + ".log")
		if got := strings.ReplaceAll(strings.TrimSpace(string(log)), "\n", ", "); got != c.calls || r.Image != c.image {
			t.Errorf("%s: got %q, image %s, want %q, %s", c.name, got, r.Image, c.calls, c.image)
		}
	}
	if err := Fetch(context.Background(), engineIn(t, "podman", "exit 1"), os.Stderr); code(err) != "container-image" {
		t.Errorf("an image that cannot be had: got %v", err)
	}
}
