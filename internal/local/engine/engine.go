// Package engine asks container engines of this machine: how they map ids, where
// they keep things, whether they have an image.
//
// It runs the engine's own program, as the user, outside of any session, and
// waits for it; what that says on stderr is part of the error. It changes
// nothing but what an engine changes by being asked, and fetches images.
package engine

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"slices"
	"strings"

	"github.com/mirrord-go/mirrord/internal/failure"
	"github.com/mirrord-go/mirrord/internal/local/container"
	"github.com/mirrord-go/mirrord/internal/local/ids"
)

// info is what podman info tells, as far as it is needed.
type info struct {
	Host struct {
		IDMappings struct {
			UIDMap, GIDMap []mapping
		}
		Security        struct{ Rootless bool }
		ServiceIsRemote bool
	}
	Store struct {
		ConfigFile, GraphRoot, RunRoot, VolumePath string
	}
}

type mapping struct {
	Container uint32 `json:"container_id"`
	Host      uint32 `json:"host_id"`
	Size      uint32 `json:"size"`
}

// Recognize refuses engines that are known not to be for sessions, before their
// command line is read, which may have options that podman has not.
func Recognize(ctx context.Context, program string) error {
	if _, known := others[path.Base(program)]; !known {
		return nil
	}
	return identify(ctx, program)
}

// identify refuses what does not say that it is podman; docker may be.
func identify(ctx context.Context, program string) error {
	name := path.Base(program)
	said, err := run(ctx, program, "--version")
	switch {
	case err != nil:
		return missing(name, err)
	case !strings.Contains(said, "podman"):
		return other(name)
	}
	return nil
}

// Look finds out what r's engine is, and fills in what a session must know of it.
// An engine that cannot be part of a session is refused.
func Look(ctx context.Context, r *container.Run) error {
	name := path.Base(r.Engine[0])
	if name != "podman" {
		if err := identify(ctx, r.Engine[0]); err != nil {
			return err
		}
	}
	said, err := run(ctx, append(slices.Clone(r.Engine), "info", "--format", "json")...)
	if err != nil {
		return missing(name, err)
	}
	return fill(r, said)
}

func missing(name string, err error) error {
	do := name + " info"
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, os.ErrNotExist) {
		do = "mirrord container ... -- podman run IMAGE" + toInstall()
	}
	return failure.Wrap(err, "container-engine", name+" cannot be used", do)
}

// toInstall is what to do first where there is no podman.
func toInstall() string {
	if _, err := exec.LookPath("podman"); err == nil {
		return ""
	}
	return "; podman must be installed for that: apt-get install podman, dnf install podman"
}

// others are engines whose containers are not their descendants: who starts
// them, and how podman gets an image of theirs.
var others = map[string]struct{ by, image string }{
	"docker":  {"docker's daemon", "; it takes an image of docker's by: podman pull docker-daemon:NAME:TAG"},
	"nerdctl": {"containerd", "; it takes an image of nerdctl's by: nerdctl save NAME:TAG | podman load"},
}

// other refuses what is not podman.
func other(name string) error {
	const podman = "mirrord container ... -- podman run IMAGE"
	o, known := others[name]
	if !known {
		return failure.Usage("container-engine", name+" is no engine whose containers can be in a session", podman+toInstall(),
			"only podman starts them as children of its own, which is how they come into the session")
	}
	return failure.Usage("container-engine", name+" cannot run a container in a session", "use podman, whose options are the same: "+podman+toInstall()+o.image,
		"%s starts its containers, outside of this session: they would have neither its network nor its files", o.by)
}

// fill reads what podman info has said.
func fill(r *container.Run, said string) error {
	var i info
	if err := json.Unmarshal([]byte(said), &i); err != nil {
		return failure.Wrap(err, "container-engine", "what "+r.Engine[0]+" info says cannot be understood", "look yourself: "+r.Engine[0]+" info --format json")
	}
	if i.Host.ServiceIsRemote {
		return failure.Usage("container-remote", "podman runs containers elsewhere", "unset CONTAINER_HOST and CONTAINER_CONNECTION, or choose another default: podman system connection ls",
			"a session's network and files are on this machine, and so must be the container")
	}
	r.Rootless = i.Host.Security.Rootless
	r.Users, r.Groups = extents(i.Host.IDMappings.UIDMap), extents(i.Host.IDMappings.GIDMap)
	for _, p := range []string{path.Dir(i.Store.ConfigFile), i.Store.GraphRoot, i.Store.RunRoot, i.Store.VolumePath} {
		if path.IsAbs(p) && path.Clean(p) != "/" {
			r.Places = append(r.Places, path.Clean(p))
		}
	}
	return nil
}

func extents(all []mapping) (out []ids.Extent) {
	for _, m := range all {
		out = append(out, ids.Extent{Inside: m.Container, Outside: m.Host, Count: m.Size})
	}
	return out
}

// aboutImage are the options of run that pull has too.
var aboutImage = []string{"arch", "authfile", "cert-dir", "creds", "decryption-key", "os", "platform", "quiet", "retry", "retry-delay", "tls-verify", "variant"}

// Fetch sees to it that the image is there, by the network of this machine. What
// the engine says meanwhile goes to w.
func Fetch(ctx context.Context, r *container.Run, w io.Writer) error {
	if o, ok := r.Option("rootfs"); ok && o != "false" {
		return nil
	}
	there := func() bool {
		_, err := run(ctx, append(slices.Clone(r.Engine), "image", "exists", r.Image)...)
		return err == nil
	}
	switch policy, _ := r.Option("pull"); policy {
	case "never", "false":
		return nil
	case "always", "true", "newer", "ifnewer":
	default:
		if there() {
			return nil
		}
	}
	argv := append(slices.Clone(r.Engine), "pull")
	for _, o := range r.Options {
		if slices.Contains(aboutImage, o.Name) {
			argv = append(argv, o.String())
		}
	}
	var id bytes.Buffer
	cmd := exec.CommandContext(ctx, argv[0], append(argv[1:], r.Image)...)
	cmd.Stdout, cmd.Stderr = &id, w
	if err := cmd.Run(); err != nil {
		return failure.Wrap(err, "container-image", fmt.Sprintf("the image %s cannot be fetched", r.Image), "podman pull "+r.Image)
	}
	if lines := strings.Fields(id.String()); len(lines) > 0 && !there() { // a name by which it is only fetched
		r.Image = lines[len(lines)-1]
	}
	return nil
}

// run gives what a program says on stdout.
func run(ctx context.Context, argv ...string) (string, error) {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	var out, failed bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &failed
	if err := cmd.Run(); err != nil {
		if text := strings.TrimSpace(failed.String()); text != "" {
			return "", fmt.Errorf("%s: %w", text, err)
		}
		return "", err
	}
	return out.String(), nil
}
