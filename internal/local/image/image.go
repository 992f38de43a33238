// Package image holds the agent's program, which is embedded into the command
// line, and writes it as a container image.
//
// The command line calls it: for the name of the image that agents run from,
// for the image itself (so that neither a registry nor docker is needed), and
// for the program where the target is on this machine. Making an image touches
// nothing but the writer that is given; Push talks to a registry, with the
// credentials that docker login left, and a Loader runs the tool of a local
// cluster. A build without an agent inside (go build instead of make build)
// fails with the code no-agent-inside, and only where the agent is needed.
//
// An image name that stays while the agent changes would make nodes run an old
// agent, which they have by that name. So only released versions have a plain
// name; every other build carries a part of its agent's hash in it.
package image

import (
	"bytes"
	"compress/gzip"
	"embed"
	"fmt"
	"io"
	"io/fs"
	"regexp"
	"runtime"
	"strings"

	"github.com/mirrord-go/mirrord/internal/failure"
)

// Repository is where the images of the agent are named, by default.
const Repository = "ghcr.io/mirrord-go/agent"

// built holds agent.gz and agent.sha256, if this build has them: the agent for
// this build's own architecture. agent.ARCH.gz are those for others, if it was
// built with any.
//
//go:embed agent.*
var built embed.FS

// maxAgent bounds the program in bytes; the real one stays far below.
const maxAgent = 64 << 20

// Reference is the exact name of this build's agent image: the repository with
// the version as tag for a release, with the version and twelve digits of the
// agent's SHA-256 for any other build. It does not unpack the agent.
func Reference(version string) (string, error) {
	hash, err := built.ReadFile("agent.sha256")
	if err != nil {
		return "", missing(err)
	}
	return reference(version, strings.TrimSpace(string(hash)))
}

var (
	release = regexp.MustCompile(`^v?\d+\.\d+\.\d+$`)
	hex64   = regexp.MustCompile(`^[0-9a-f]{64}$`)
	// notInTag are the characters that a tag cannot have
	// (OCI distribution specification, "Pulling manifests").
	notInTag = regexp.MustCompile(`[^A-Za-z0-9_.-]+`)
)

func reference(version, hash string) (string, error) {
	if !hex64.MatchString(hash) {
		return "", missing(fmt.Errorf("agent.sha256 holds %.80q", hash))
	}
	tag := notInTag.ReplaceAllString(version, "-")
	tag = strings.TrimLeft(tag, ".-") // where a tag may not begin with it
	if !release.MatchString(version) {
		const most = 128 - len("-123456789012")
		tag = tag[:min(len(tag), most)] + "-" + hash[:12]
		tag = strings.TrimLeft(tag, "-")
	}
	return Repository + ":" + tag, nil
}

// Agent unpacks the agent's program: a static executable for Linux on the
// architecture of this build. It takes some 60 ms, so call it only where the
// program is needed. The caller owns the result.
func Agent() ([]byte, error) { return open("agent.gz") }

func open(name string) ([]byte, error) {
	packed, err := built.Open(name)
	if err != nil {
		return nil, missing(err)
	}
	defer packed.Close()
	return unpack(packed)
}

func unpack(packed io.Reader) ([]byte, error) {
	r, err := gzip.NewReader(packed)
	if err != nil {
		return nil, missing(err)
	}
	var program bytes.Buffer
	program.Grow(16 << 20) // what the agent may have at most: one allocation
	n, err := io.Copy(&program, io.LimitReader(r, maxAgent+1))
	if err != nil {
		return nil, missing(err)
	}
	if n > maxAgent {
		return nil, missing(fmt.Errorf("it is longer than %d bytes", maxAgent))
	}
	return program.Bytes(), nil
}

// A Program is the agent for one architecture.
type Program struct {
	Arch    string // as Go names it: "amd64"
	Content []byte // a static executable for Linux
}

// Architectures are those that this build has an agent for, its own first.
func Architectures() []string { return architectures(built) }

func architectures(blobs fs.FS) []string {
	all := []string{runtime.GOARCH}
	others, _ := fs.Glob(blobs, "agent.*.gz") // its one error is a bad pattern
	for _, name := range others {
		all = append(all, strings.TrimSuffix(strings.TrimPrefix(name, "agent."), ".gz"))
	}
	return all
}

// Programs unpacks the agents of these architectures, which must be of
// Architectures.
func Programs(architectures []string) ([]Program, error) {
	var all []Program
	for _, arch := range architectures {
		name := "agent.gz"
		if arch != runtime.GOARCH {
			name = "agent." + arch + ".gz"
		}
		content, err := open(name)
		if err != nil {
			return nil, err
		}
		all = append(all, Program{arch, content})
	}
	return all, nil
}

// missing explains a build that has no agent, or not a whole one.
func missing(cause error) error {
	return &failure.Error{Code: "no-agent-inside", What: "this build of mirrord holds no agent", Why: cause.Error(), Cause: cause,
		Do: "build it with: make build; or name an image that has one: mirrord exec --agent-image IMAGE ..."}
}
