package image

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/mirrord-go/mirrord/internal/failure"
)

// Program is the path of the agent in its image.
const Program = "/mirrord-agent"

// Media types of the OCI image specification.
const (
	mediaIndex    = "application/vnd.oci.image.index.v1+json"
	mediaManifest = "application/vnd.oci.image.manifest.v1+json"
	mediaConfig   = "application/vnd.oci.image.config.v1+json"
	mediaLayer    = "application/vnd.oci.image.layer.v1.tar+gzip"
)

// epoch is the time of everything in an image, so that equal agents make equal
// images, byte for byte.
func epoch() time.Time { return time.Unix(0, 0).UTC() }

type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int               `json:"size"`
	Platform    *platform         `json:"platform,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

type platform struct {
	Architecture string `json:"architecture"`
	OS           string `json:"os"`
}

// configuration of an image, as far as ours says anything.
type configuration struct {
	Created      string `json:"created"`
	Architecture string `json:"architecture"`
	OS           string `json:"os"`
	Config       struct {
		Entrypoint []string          `json:"Entrypoint"`
		WorkingDir string            `json:"WorkingDir"`
		Labels     map[string]string `json:"Labels"`
	} `json:"config"`
	RootFS struct {
		Type    string   `json:"type"`
		DiffIDs []string `json:"diff_ids"`
	} `json:"rootfs"`
	History []map[string]string `json:"history"`
}

type manifest struct {
	SchemaVersion int          `json:"schemaVersion"`
	MediaType     string       `json:"mediaType"`
	Config        descriptor   `json:"config"`
	Layers        []descriptor `json:"layers"`
}

type index struct {
	SchemaVersion int          `json:"schemaVersion"`
	MediaType     string       `json:"mediaType"`
	Manifests     []descriptor `json:"manifests"`
}

// Write writes to w, as a tar, an image for linux/arch with nothing in it but
// the program agent. The image is named ref. The archive is an OCI image
// layout and at the same time what "docker save" makes, so containerd, docker,
// podman, kind, k3s and minikube all load it. Equal arguments give equal
// bytes.
//
// The code of a ref that no runtime would take is image-name; other errors are
// those of w.
func Write(w io.Writer, agent []byte, ref, version, arch string) error {
	name, err := canonical(ref)
	if err != nil {
		return err
	}
	layer, diffID, err := layerOf(agent)
	if err != nil {
		return fmt.Errorf("pack the agent: %w", err)
	}
	var c configuration
	c.Created, c.Architecture, c.OS = epoch().Format(time.RFC3339), arch, "linux"
	c.Config.Entrypoint = []string{Program}
	c.Config.WorkingDir = "/"
	c.Config.Labels = map[string]string{
		"org.opencontainers.image.title":    "mirrord-agent",
		"org.opencontainers.image.version":  version,
		"org.opencontainers.image.licenses": "MIT",
	}
	c.RootFS.Type, c.RootFS.DiffIDs = "layers", []string{diffID}
	c.History = []map[string]string{{"created": c.Created, "created_by": "mirrord agent image"}}

	var a archive
	config := a.blob(mediaConfig, encode(c))
	content := a.blob(mediaLayer, layer)
	m := a.blob(mediaManifest, encode(manifest{2, mediaManifest, config, []descriptor{content}}))
	m.Platform = &platform{arch, "linux"}
	m.Annotations = map[string]string{
		"io.containerd.image.name":          name, // containerd, podman, docker with containerd's store
		"org.opencontainers.image.ref.name": name[strings.LastIndexByte(name, ':')+1:],
	}
	a.add("index.json", encode(index{2, mediaIndex, []descriptor{m}}))
	a.add("oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`))
	// What docker without containerd's store reads.
	a.add("manifest.json", encode([]map[string]any{{"Config": path(config), "RepoTags": []string{name}, "Layers": []string{path(content)}}}))
	return a.write(w)
}

// programMode lets everybody start the agent and nobody read it. The kernel then
// lets nobody look into its process from the first instruction on (would_dump in
// fs/exec.c), before it can ask for that itself: in the target's pod a program of
// the same user could be quicker. Root may read what it likes.
const programMode = 0o111

// layerOf is the image's one layer, compressed, and the digest of what it is
// compressed from.
func layerOf(agent []byte) (layer []byte, diffID string, err error) {
	var packed bytes.Buffer
	sum := sha256.New()
	z := gzip.NewWriter(&packed)
	t := tar.NewWriter(io.MultiWriter(z, sum))
	if err := file(t, strings.TrimPrefix(Program, "/"), programMode, agent); err != nil {
		return nil, "", err
	}
	if err := t.Close(); err != nil {
		return nil, "", err
	}
	if err := z.Close(); err != nil {
		return nil, "", err
	}
	return packed.Bytes(), "sha256:" + hex.EncodeToString(sum.Sum(nil)), nil
}

// archive collects the files of the outer tar.
type archive struct {
	names   []string
	content map[string][]byte
}

func (a *archive) add(name string, b []byte) {
	if a.content == nil {
		a.content = map[string][]byte{}
	}
	a.names = append(a.names, name)
	a.content[name] = b
}

// blob adds content under its digest.
func (a *archive) blob(mediaType string, b []byte) descriptor {
	sum := sha256.Sum256(b)
	d := descriptor{MediaType: mediaType, Digest: "sha256:" + hex.EncodeToString(sum[:]), Size: len(b)}
	a.add(path(d), b)
	return d
}

// path of a blob in the archive.
func path(d descriptor) string { return "blobs/" + strings.Replace(d.Digest, ":", "/", 1) }

func (a *archive) write(w io.Writer) error {
	t := tar.NewWriter(w)
	for _, dir := range []string{"blobs/", "blobs/sha256/"} {
		if err := t.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir, Mode: 0o755, ModTime: epoch(), Format: tar.FormatUSTAR}); err != nil {
			return err
		}
	}
	for _, name := range slices.Sorted(slices.Values(a.names)) {
		if err := file(t, name, 0o644, a.content[name]); err != nil {
			return err
		}
	}
	return t.Close()
}

// file adds one file, owned by root, of the fixed time.
func file(t *tar.Writer, name string, mode int64, b []byte) error {
	h := &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode, Size: int64(len(b)), ModTime: epoch(), Format: tar.FormatUSTAR}
	if err := t.WriteHeader(h); err != nil {
		return err
	}
	_, err := t.Write(b)
	return err
}

func encode(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // structs of strings and numbers always marshal
	}
	return b
}

// imageName is a complete name, HOST:PORT/PATH:TAG, where the port is optional
// (OCI distribution specification).
var imageName = regexp.MustCompile(`^[A-Za-z0-9.-]+(:\d+)?/[a-z0-9]+([._/-]+[a-z0-9]+)*(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})$`)

// canonical completes a name as docker and the kubelet do: that is what
// containerd stores images by.
func canonical(ref string) (string, error) {
	full := ref
	if !strings.Contains(ref[strings.LastIndexByte(ref, '/')+1:], ":") {
		full += ":latest"
	}
	switch host, _, ok := strings.Cut(ref, "/"); {
	case !ok:
		full = "docker.io/library/" + full
	case !strings.ContainsAny(host, ".:") && host != "localhost":
		full = "docker.io/" + full
	}
	if !imageName.MatchString(full) {
		return "", failure.Usage("image-name", fmt.Sprintf("%q cannot name an image", ref),
			"for example: mirrord agent image --name registry.example/team/mirrord-agent:1 --output agent.tar", "it is not of the form HOST/PATH:TAG")
	}
	return full, nil
}
