// Package packages makes packages of two versions, and installs, upgrades and
// removes them in a copy of this machine's files, which is thrown away.
package packages

import (
	"bytes"
	"debug/buildinfo"
	"debug/elf"
	"encoding/json"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Bounds of size, in bytes.
const (
	programSize = 60 << 20
	imageSize   = 15 << 20
)

// build makes the packages of a version, for this architecture, and gives their
// directory.
func build(t *testing.T, version string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "dist")
	run(t, "../../packaging/build", "-o", dir, version, runtime.GOARCH)
	return dir
}

func run(t *testing.T, argv ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), argv[0], argv[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v: %s", strings.Join(argv, " "), err, out)
	}
	return string(out)
}

func TestPackages(t *testing.T) {
	before := build(t, "0.1.0")
	again := build(t, "0.1.0")
	after := build(t, "0.1.1")
	t.Run("the same sources give the same bytes", func(t *testing.T) {
		run(t, "diff", "-r", before, again)
	})
	t.Run("checksums", func(t *testing.T) {
		run(t, "sh", "-c", "cd '"+before+"' && sha256sum --quiet -c SHA256SUMS")
	})
	t.Run("archive", func(t *testing.T) { archive(t, before) })
	deb := filepath.Join(before, "mirrord_0.1.0_"+runtime.GOARCH+".deb")
	t.Run("rpm and deb hold the same", func(t *testing.T) {
		list := func(command string) []string {
			all := strings.Fields(run(t, "sh", "-c", command))
			slices.Sort(all)
			return all
		}
		inDeb := list("dpkg -c '" + deb + "' | awk '$1 !~ /^d/ {print substr($6, 2)}'")
		inRPM := list("rpm -qpl '" + before + "'/*.rpm | sed s,site-functions,vendor-completions,")
		if !slices.Equal(inDeb, inRPM) || len(inDeb) < 30 {
			t.Errorf("deb %q, rpm %q", inDeb, inRPM)
		}
	})
	t.Run("dpkg", func(t *testing.T) {
		life(t, deb, filepath.Join(after, "mirrord_0.1.1_"+runtime.GOARCH+".deb"))
	})
}

// archive looks into the .tar.gz of a release.
func archive(t *testing.T, dist string) {
	name := "mirrord-0.1.0-linux-" + runtime.GOARCH
	dir := t.TempDir()
	run(t, "tar", "xzf", filepath.Join(dist, name+".tar.gz"), "-C", dir)
	dir = filepath.Join(dir, name)
	for _, f := range []string{"LICENSE", "README.md", "docs/quickstart.md", "man/mirrord-exec.1.gz", "completions/_mirrord", "apparmor", "mirrord.spdx.json"} {
		if _, err := os.Stat(filepath.Join(dir, f)); err != nil {
			t.Error(err)
		}
	}
	program := filepath.Join(dir, "mirrord")
	if got := run(t, program, "version"); !strings.HasPrefix(got, "mirrord 0.1.0 ") {
		t.Errorf("version %q", got)
	}
	f, err := elf.Open(program)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if slices.ContainsFunc(f.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP }) {
		t.Error("the program is not static")
	}
	image := filepath.Join(dir, "image.tar")
	run(t, program, "agent", "image", "--output", image)
	for path, most := range map[string]int64{program: programSize, image: imageSize} {
		if fi, err := os.Stat(path); err != nil || fi.Size() > most {
			t.Errorf("%s has more than %d bytes: %v %v", path, most, fi.Size(), err)
		}
	}

	var listed struct {
		SPDX     string `json:"spdxVersion"`
		Packages []struct {
			Name    string `json:"name"`
			Version string `json:"versionInfo"`
		} `json:"packages"`
	}
	b, err := os.ReadFile(filepath.Join(dir, "mirrord.spdx.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &listed); err != nil || listed.SPDX != "SPDX-2.3" {
		t.Fatalf("the list of modules: %v, version %q", err, listed.SPDX)
	}
	info, err := buildinfo.ReadFile(program)
	if err != nil || len(info.Deps) < 20 {
		t.Fatalf("what the linker noted: %v", err)
	}
	for _, m := range info.Deps {
		if !slices.ContainsFunc(listed.Packages, func(p struct {
			Name    string `json:"name"`
			Version string `json:"versionInfo"`
		}) bool {
			return p.Name == m.Path && p.Version == m.Version
		}) {
			t.Errorf("%s %s is not in the list of modules", m.Path, m.Version)
		}
	}
}

// life installs, upgrades and removes in this machine's files under a layer that
// takes all changes.
func life(t *testing.T, old, new string) {
	layer, root := t.TempDir(), t.TempDir()
	mount := func(source, target, kind string, flags uintptr, data string) {
		t.Helper()
		if err := unix.Mount(source, target, kind, flags, data); err != nil {
			t.Fatalf("mount %s: %v", target, err)
		}
		t.Cleanup(func() {
			if err := unix.Unmount(target, unix.MNT_DETACH); err != nil {
				t.Error(err)
			}
		})
	}
	mount("tmpfs", layer, "tmpfs", 0, "")
	upper := filepath.Join(layer, "upper")
	for _, dir := range []string{upper, filepath.Join(layer, "work"), filepath.Join(layer, "debs")} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	mount("overlay", root, "overlay", 0, "lowerdir=/,upperdir="+upper+",workdir="+filepath.Join(layer, "work"))
	mount("proc", filepath.Join(root, "proc"), "proc", 0, "")
	mount("/dev", filepath.Join(root, "dev"), "", unix.MS_BIND, "")
	debs := filepath.Join(root, "mnt")
	mount(filepath.Join(layer, "debs"), debs, "", unix.MS_BIND, "")
	run(t, "cp", old, filepath.Join(debs, "old.deb"))
	run(t, "cp", new, filepath.Join(debs, "new.deb"))
	inside := func(argv ...string) string {
		t.Helper()
		return run(t, append([]string{"chroot", root}, argv...)...)
	}
	profile := filepath.Join(root, "etc/apparmor.d/mirrord")

	inside("dpkg", "-i", "/mnt/old.deb")
	if got := inside("mirrord", "version"); !strings.HasPrefix(got, "mirrord 0.1.0 ") {
		t.Errorf("installed: %q", got)
	}
	if got := inside("gzip", "-dc", "/usr/share/man/man1/mirrord-exec.1.gz"); !strings.Contains(got, "mirrord exec") || !strings.Contains(got, ".TH") {
		t.Errorf("the manual: %.200q", got)
	}
	inside("bash", "-c", "source /usr/share/bash-completion/completions/mirrord && complete -p mirrord")
	b, err := os.ReadFile(profile)
	if err != nil || !bytes.Contains(b, []byte("profile mirrord /usr/bin/mirrord flags=(unconfined) {\n  userns,\n}")) {
		t.Errorf("the profile: %v: %s", err, b)
	}
	if err := os.WriteFile(profile, append(b, "# mine\n"...), 0o644); err != nil {
		t.Fatal(err)
	}

	inside("dpkg", "-i", "--force-confdef", "--force-confold", "/mnt/new.deb")
	if got := inside("mirrord", "version"); !strings.HasPrefix(got, "mirrord 0.1.1 ") {
		t.Errorf("upgraded: %q", got)
	}
	if b, err := os.ReadFile(profile); err != nil || !bytes.HasSuffix(b, []byte("# mine\n")) {
		t.Errorf("a profile that was changed: %v: %s", err, b)
	}

	inside("dpkg", "-r", "mirrord")
	if _, err := os.Stat(filepath.Join(root, "usr/bin/mirrord")); err == nil {
		t.Error("mirrord is still there")
	}
	inside("dpkg", "-P", "mirrord")
	err = filepath.WalkDir(upper, func(p string, d fs.DirEntry, err error) error {
		if rel, _ := filepath.Rel(upper, p); d != nil && d.IsDir() && slices.Contains([]string{"var", "root"}, rel) { // dpkg's own notes
			return fs.SkipDir
		}
		if d != nil && d.Type().IsRegular() {
			t.Errorf("left: %s", p)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}
