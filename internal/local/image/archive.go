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
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/mirrord-go/mirrord/internal/failure"
)

// programPath is where the agent is in its image.
const programPath = "/mirrord-agent"

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

// A blob is content with what names it.
type blob struct {
	descriptor
	content []byte
}

// An Image is the agent's container image: nothing but its program, for one
// architecture or several. Equal programs and versions make equal images, byte
// for byte, whatever they are named and wherever they go. Its methods may be
// called concurrently.
type Image struct {
	variants []variant
	head     blob // the manifest of the one variant, or the index of several
}

// A variant is the image for one architecture.
type variant struct{ config, layer, manifest blob }

// New makes the image of the programs, of which there must be one at least.
func New(programs []Program, version string) (*Image, error) {
	var i Image
	for _, p := range programs {
		v, err := variantOf(p, version)
		if err != nil {
			return nil, fmt.Errorf("pack the agent for %s: %w", p.Arch, err)
		}
		i.variants = append(i.variants, v)
	}
	if i.head = i.variants[0].manifest; len(i.variants) > 1 {
		var manifests []descriptor
		for _, v := range i.variants {
			manifests = append(manifests, v.manifest.descriptor)
		}
		i.head = blobOf(mediaIndex, encode(index{2, mediaIndex, manifests}))
	}
	return &i, nil
}

// Digest names the image's bytes: "sha256:" and 64 digits.
func (i *Image) Digest() string { return i.head.Digest }

// Platforms are what the image is for: "linux/amd64".
func (i *Image) Platforms() []string {
	var all []string
	for _, v := range i.variants {
		all = append(all, v.manifest.Platform.OS+"/"+v.manifest.Platform.Architecture)
	}
	return all
}

func variantOf(p Program, version string) (variant, error) {
	layer, diffID, err := layerOf(p.Content)
	if err != nil {
		return variant{}, err
	}
	var c configuration
	c.Created, c.Architecture, c.OS = epoch().Format(time.RFC3339), p.Arch, "linux"
	c.Config.Entrypoint = []string{programPath}
	c.Config.WorkingDir = "/"
	c.Config.Labels = map[string]string{
		"org.opencontainers.image.title":    "mirrord-agent",
		"org.opencontainers.image.version":  version,
		"org.opencontainers.image.licenses": "MIT",
	}
	c.RootFS.Type, c.RootFS.DiffIDs = "layers", []string{diffID}
	c.History = []map[string]string{{"created": c.Created, "created_by": "mirrord agent image"}}
	v := variant{config: blobOf(mediaConfig, encode(c)), layer: blobOf(mediaLayer, layer)}
	v.manifest = blobOf(mediaManifest, encode(manifest{2, mediaManifest, v.config.descriptor, []descriptor{v.layer.descriptor}}))
	v.manifest.Platform = &platform{p.Arch, "linux"}
	return v, nil
}

// Write writes to w, as a tar, the image named ref: an OCI image layout and at
// the same time what "docker save" makes, so containerd, docker, podman, kind,
// k3s and minikube all load it. Of several architectures it takes the first:
// nodes differ in what they make of more.
//
// The code of a ref that no runtime would take is image-name; other errors are
// those of w.
func (i *Image) Write(w io.Writer, ref string) error {
	name, err := canonical(ref)
	if err != nil {
		return err
	}
	v := i.variants[0]
	a := archive{}
	for _, b := range []blob{v.config, v.layer, v.manifest} {
		a[path(b.descriptor)] = b.content
	}
	m := v.manifest.descriptor
	m.Annotations = map[string]string{
		"io.containerd.image.name":          name, // containerd, podman, docker with containerd's store
		"org.opencontainers.image.ref.name": name[strings.LastIndexByte(name, ':')+1:],
	}
	a["index.json"] = encode(index{2, mediaIndex, []descriptor{m}})
	a["oci-layout"] = []byte(`{"imageLayoutVersion":"1.0.0"}`)
	// What docker without containerd's store reads.
	a["manifest.json"] = encode([]map[string]any{{"Config": path(v.config.descriptor), "RepoTags": []string{name}, "Layers": []string{path(v.layer.descriptor)}}})
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
	if err := file(t, strings.TrimPrefix(programPath, "/"), programMode, agent); err != nil {
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

// An archive is the files of the outer tar, by their names.
type archive map[string][]byte

func blobOf(mediaType string, b []byte) blob {
	sum := sha256.Sum256(b)
	return blob{descriptor{MediaType: mediaType, Digest: "sha256:" + hex.EncodeToString(sum[:]), Size: len(b)}, b}
}

// path of a blob in the archive.
func path(d descriptor) string { return "blobs/" + strings.Replace(d.Digest, ":", "/", 1) }

func (a archive) write(w io.Writer) error {
	t := tar.NewWriter(w)
	for _, dir := range []string{"blobs/", "blobs/sha256/"} {
		if err := t.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir, Mode: 0o755, ModTime: epoch(), Format: tar.FormatUSTAR}); err != nil {
			return err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(a)) {
		if err := file(t, name, 0o644, a[name]); err != nil {
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
