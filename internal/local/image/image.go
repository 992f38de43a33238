// Package image holds the agent's program, which is embedded into the command
// line, and writes it as a container image.
//
// The command line calls it: for the name of the image that agents run from,
// for the image itself (so that neither a registry nor docker is needed), and
// for the program where the target is on this machine. It touches nothing but
// the writer it is given. A build without an agent inside (go build instead of
// make build) fails with the code no-agent-inside, and only where the agent is
// needed.
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
	"regexp"
	"strings"

	"github.com/mirrord-go/mirrord/internal/failure"
)

// Repository is where the images of the agent are named, by default.
const Repository = "ghcr.io/mirrord-go/agent"

// built holds agent.gz and agent.sha256, if this build has them.
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
func Agent() ([]byte, error) {
	packed, err := built.Open("agent.gz")
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

// missing explains a build that has no agent, or not a whole one.
func missing(cause error) error {
	return &failure.Error{Code: "no-agent-inside", What: "this build of mirrord holds no agent", Why: cause.Error(), Cause: cause,
		Do: "build it with: make build; or name an image that has one: mirrord exec --agent-image IMAGE ..."}
}
