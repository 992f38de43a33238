package packages

import (
	"archive/zip"
	"encoding/json"
	"encoding/xml"
	"io"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
)

// TestExtension packs the VS Code extension twice: the same bytes, what its manifests
// name, and nothing else.
func TestExtension(t *testing.T) {
	platform := map[string]string{"amd64": "linux-x64", "arm64": "linux-arm64"}[runtime.GOARCH]
	run(t, "make", "-s", "-C", "../..", "vsix")
	var packed []string
	for range 2 {
		dir := t.TempDir()
		run(t, "../../editors/vscode/build", "-o", dir, "-p", platform)
		all, err := filepath.Glob(filepath.Join(dir, "*.vsix"))
		if err != nil || len(all) != 1 {
			t.Fatalf("it makes %v (%v)", all, err)
		}
		packed = append(packed, all...)
	}
	run(t, "cmp", packed[0], packed[1])

	z, err := zip.OpenReader(packed[0])
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	files := map[string]*zip.File{}
	for _, f := range z.File {
		files[f.Name] = f
	}
	read := func(name string) []byte {
		t.Helper()
		f := files[name]
		if f == nil {
			t.Fatalf("it has no %s", name)
		}
		r, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		b, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}

	var of struct {
		Identity struct {
			ID       string `xml:"Id,attr"`
			Version  string `xml:"Version,attr"`
			Platform string `xml:"TargetPlatform,attr"`
		} `xml:"Metadata>Identity"`
		Assets []struct {
			Path string `xml:"Path,attr"`
		} `xml:"Assets>Asset"`
	}
	if err := xml.Unmarshal(read("extension.vsixmanifest"), &of); err != nil {
		t.Fatal(err)
	}
	var extension struct {
		Name, Version, Main string
		ActivationEvents    []string
		Dependencies        map[string]string
		Contributes         struct {
			Commands       []struct{ Command, Title, Category string }
			JSONValidation []struct{ URL string }
		}
	}
	if err := json.Unmarshal(read("extension/package.json"), &extension); err != nil {
		t.Fatal(err)
	}
	if of.Identity.ID != extension.Name || of.Identity.Version != extension.Version || of.Identity.Platform != platform {
		t.Errorf("the manifest says %+v", of.Identity)
	}
	for _, a := range of.Assets {
		read(a.Path)
	}
	main := string(read("extension/" + strings.TrimPrefix(extension.Main, "./")))
	for _, c := range extension.Contributes.Commands {
		name, ours := strings.CutPrefix(c.Command, "mirrord.")
		if !ours || c.Category != "mirrord" || c.Title == "" || !strings.Contains(main, "        "+name+":") {
			t.Errorf("command %+v: nothing runs it", c)
		}
	}
	for _, v := range extension.Contributes.JSONValidation {
		if !json.Valid(read("extension/" + strings.TrimPrefix(v.URL, "./"))) {
			t.Errorf("%s is no JSON", v.URL)
		}
	}
	if len(extension.Dependencies) > 0 || slices.Contains(extension.ActivationEvents, "*") {
		t.Errorf("it needs %v and begins with %v", extension.Dependencies, extension.ActivationEvents)
	}
	if mode := files["extension/bin/mirrord"].Mode().Perm(); mode != 0o755 {
		t.Errorf("the program within has mode %v", mode)
	}
	for name := range files {
		if strings.HasSuffix(name, ".ts") || strings.HasSuffix(name, ".map") || strings.Contains(name, "test") {
			t.Errorf("it has %s", name)
		}
	}
}
