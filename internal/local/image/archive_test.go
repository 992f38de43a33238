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

func TestWrite(t *testing.T) {
	agent := []byte("\x7fELF agent")
	var out bytes.Buffer
	if err := Write(&out, agent, testRef, "1.2.3", "arm64"); err != nil {
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
	if c.Architecture != "arm64" || c.OS != "linux" || len(c.Config.Entrypoint) != 1 || c.Config.Entrypoint[0] != Program {
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

func TestWriteIsReproducible(t *testing.T) {
	var a, b, other bytes.Buffer
	for w, agent := range map[*bytes.Buffer]string{&a: "one", &b: "one", &other: "two"} {
		if err := Write(w, []byte(agent), testRef, "1.2.3", "amd64"); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(a.Bytes(), b.Bytes()) {
		t.Error("equal agents make different archives")
	}
	if bytes.Equal(a.Bytes(), other.Bytes()) {
		t.Error("different agents make equal archives")
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
		if err := Write(&full{room}, []byte("agent"), testRef, "1", "amd64"); !errors.Is(err, errFull) {
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
