package image

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"
)

const testRef = "ghcr.io/mirrord-go/agent:1.2.3"

// untar gives the files of a tar; a directory has a nil content.
func untar(t *testing.T, r io.Reader) map[string][]byte {
	t.Helper()
	files := map[string][]byte{}
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if err == io.EOF {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		if !h.ModTime.Equal(epoch()) || h.Uid != 0 || h.Gid != 0 || h.Uname != "" {
			t.Errorf("%s: time %v, owner %d:%d %q; want the epoch and root", h.Name, h.ModTime, h.Uid, h.Gid, h.Uname)
		}
		b, err := io.ReadAll(tr)
		if err != nil {
			t.Fatal(err)
		}
		if h.Typeflag == tar.TypeDir {
			b = nil
		}
		files[h.Name] = b
	}
}

func decode[T any](t *testing.T, b []byte) T {
	t.Helper()
	var v T
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&v); err != nil {
		t.Fatalf("%v in %s", err, b)
	}
	return v
}

func imageOf(t *testing.T, version string, programs ...Program) *Image {
	t.Helper()
	img, err := New(programs, version)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func TestWrite(t *testing.T) {
	agent := []byte("\x7fELF agent")
	var out bytes.Buffer
	img := imageOf(t, "1.2.3", Program{"arm64", agent}, Program{"amd64", []byte("other")})
	if err := img.Write(&out, testRef); err != nil {
		t.Fatal(err)
	}
	files := untar(t, &out)
	blob := func(d descriptor) []byte {
		t.Helper()
		b, ok := files[path(d)]
		if !ok {
			t.Fatalf("%s is not in the archive", path(d))
		}
		if sum := sha256.Sum256(b); d.Digest != "sha256:"+hex.EncodeToString(sum[:]) || d.Size != len(b) {
			t.Errorf("%s: digest or size is wrong", path(d))
		}
		return b
	}

	// As an OCI layout.
	if got := string(files["oci-layout"]); got != `{"imageLayoutVersion":"1.0.0"}` {
		t.Errorf("oci-layout = %s", got)
	}
	ix := decode[index](t, files["index.json"])
	if len(ix.Manifests) != 1 || ix.MediaType != mediaIndex || ix.SchemaVersion != 2 {
		t.Fatalf("index = %+v", ix)
	}
	m := ix.Manifests[0]
	if m.MediaType != mediaManifest || *m.Platform != (platform{"arm64", "linux"}) ||
		m.Annotations["io.containerd.image.name"] != testRef || m.Annotations["org.opencontainers.image.ref.name"] != "1.2.3" {
		t.Errorf("manifest's descriptor = %+v", m)
	}
	mf := decode[manifest](t, blob(m))
	if len(mf.Layers) != 1 || mf.Config.MediaType != mediaConfig || mf.Layers[0].MediaType != mediaLayer {
		t.Fatalf("manifest = %+v", mf)
	}
	c := decode[configuration](t, blob(mf.Config))
	if c.Architecture != "arm64" || c.OS != "linux" || len(c.Config.Entrypoint) != 1 || c.Config.Entrypoint[0] != programPath {
		t.Errorf("configuration = %+v", c)
	}
	z, err := gzip.NewReader(bytes.NewReader(blob(mf.Layers[0])))
	if err != nil {
		t.Fatal(err)
	}
	layer, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	if sum := sha256.Sum256(layer); len(c.RootFS.DiffIDs) != 1 || c.RootFS.DiffIDs[0] != "sha256:"+hex.EncodeToString(sum[:]) {
		t.Errorf("diff ids %v are not the digest of the unpacked layer", c.RootFS.DiffIDs)
	}
	h, err := tar.NewReader(bytes.NewReader(layer)).Next()
	if err != nil || h.Mode != 0o111 { // who may read it may look into its process while it begins
		t.Errorf("agent's file: %+v, %v; want mode 0111", h, err)
	}
	if in := untar(t, bytes.NewReader(layer)); len(in) != 1 || !bytes.Equal(in["mirrord-agent"], agent) {
		t.Errorf("layer holds %d files, agent %q", len(in), in["mirrord-agent"])
	}

	// As "docker save" makes it.
	saved := decode[[]struct {
		Config           string
		RepoTags, Layers []string
	}](t, files["manifest.json"])
	if len(saved) != 1 || saved[0].Config != path(mf.Config) || saved[0].Layers[0] != path(mf.Layers[0]) || saved[0].RepoTags[0] != testRef {
		t.Errorf("manifest.json = %+v", saved)
	}
	if want := 3 + 3 + 2; len(files) != want { // three blobs, three indexes, two directories
		t.Errorf("archive holds %d entries, want %d", len(files), want)
	}
}

func TestImagesAreReproducible(t *testing.T) {
	var archives [3]bytes.Buffer
	var digests [3]string
	for i, c := range []struct{ agent, ref string }{{"one", testRef}, {"one", testRef}, {"two", testRef}} {
		img := imageOf(t, "1.2.3", Program{"amd64", []byte(c.agent)})
		digests[i] = img.Digest()
		if err := img.Write(&archives[i], c.ref); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(archives[0].Bytes(), archives[1].Bytes()) || digests[0] != digests[1] {
		t.Error("equal agents make different images")
	}
	if bytes.Equal(archives[0].Bytes(), archives[2].Bytes()) || digests[0] == digests[2] {
		t.Error("different agents make equal images")
	}
	// The bytes of all machines and times are these. Whoever changes them on
	// purpose, or builds with a Go that compresses otherwise, writes the new digest.
	if want := "sha256:e8048c02857fa1eb73b26f4e160e2c52b939045779664e32491ad4929c75a029"; digests[0] != want {
		t.Errorf("digest = %s, want %s", digests[0], want)
	}
	if got := decode[index](t, untar(t, &archives[0])["index.json"]).Manifests[0].Digest; got != digests[0] {
		t.Errorf("the archive holds %s, the image is %s", got, digests[0])
	}
}

func TestPlatforms(t *testing.T) {
	one, two := Program{"amd64", []byte("one")}, Program{"arm64", []byte("two")}
	both := imageOf(t, "1", one, two)
	if got := strings.Join(both.Platforms(), " "); got != "linux/amd64 linux/arm64" {
		t.Errorf("platforms = %s", got)
	}
	ix := decode[index](t, both.head.content)
	for i, p := range []Program{one, two} {
		if got := ix.Manifests[i]; got.Digest != imageOf(t, "1", p).Digest() || got.Platform.Architecture != p.Arch {
			t.Errorf("of %s the index says %+v", p.Arch, got)
		}
	}
}

func TestCanonical(t *testing.T) {
	for _, c := range []struct{ ref, want string }{
		{"ghcr.io/mirrord-go/agent:1", "ghcr.io/mirrord-go/agent:1"},
		{"agent", "docker.io/library/agent:latest"},
		{"agent:1", "docker.io/library/agent:1"},
		{"team/agent:1", "docker.io/team/agent:1"},
		{"localhost/agent:1", "localhost/agent:1"},
		{"localhost:5000/agent", "localhost:5000/agent:latest"},
		{"r.example:5000/a/b_c-d:1.2-x", "r.example:5000/a/b_c-d:1.2-x"},
		{"", ""}, {"Agent:1", ""}, {"a b:1", ""}, {"a:1:2", ""}, {"a:", ""}, {"a@sha256:00", ""}, {"/a", ""}, {"x/", ""}, {"a:" + strings.Repeat("t", 129), ""},
	} {
		got, err := canonical(c.ref)
		if got != c.want || (err != nil) != (c.want == "") {
			t.Errorf("canonical(%q) = %q, %v; want %q", c.ref, got, err, c.want)
		}
		if c.want == "" && code(err) != "image-name" {
			t.Errorf("canonical(%q): code %q, want image-name", c.ref, code(err))
		}
	}
}

type full struct{ room int }

func (f *full) Write(b []byte) (int, error) {
	if f.room -= len(b); f.room < 0 {
		return 0, errFull
	}
	return len(b), nil
}

var errFull = errors.New("disk full")

func TestWriteTellsTheWritersError(t *testing.T) {
	for _, room := range []int{0, 700, 2000, 4000} {
		if err := imageOf(t, "1", Program{"amd64", []byte("agent")}).Write(&full{room}, testRef); !errors.Is(err, errFull) {
			t.Errorf("with %d bytes of room: %v, want %v", room, err, errFull)
		}
	}
}

func FuzzCanonical(f *testing.F) {
	for _, s := range []string{"a", "a/b:c", "h:1/p:t", "::", "A/b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, ref string) {
		got, err := canonical(ref)
		if err != nil {
			return
		}
		if again, err := canonical(got); err != nil || again != got {
			t.Errorf("canonical(%q) = %q, and of that %q, %v", ref, got, again, err)
		}
	})
}
