// Package packages makes packages of two versions, and installs, upgrades and
// removes them in a copy of this machine's files, which is thrown away.
package packages

import (
	"archive/zip"
	"bytes"
	"compress/gzip"
	"debug/buildinfo"
	"debug/elf"
	"debug/macho"
	"debug/pe"
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

// build makes the packages of a version for systems ("linux darwin"), on this
// architecture, and gives their directory.
func build(t *testing.T, version, systems string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "dist")
	run(t, "../../packaging/build", "-o", dir, "-s", systems, version, runtime.GOARCH)
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
	const all = "linux darwin windows"
	before := build(t, "0.1.0", all)
	again := build(t, "0.1.0", all)
	after := build(t, "0.1.1", "linux")
	t.Run("the same sources give the same bytes", func(t *testing.T) {
		run(t, "diff", "-r", before, again)
	})
	t.Run("checksums", func(t *testing.T) {
		run(t, "sh", "-c", "cd '"+before+"' && sha256sum --quiet -c SHA256SUMS")
	})
	t.Run("archive", func(t *testing.T) { archive(t, before) })
	t.Run("macOS", func(t *testing.T) { darwin(t, before) })
	t.Run("Windows", func(t *testing.T) { windows(t, before) })
	deb := filepath.Join(before, "mirrord_0.1.0_"+runtime.GOARCH+".deb")
	t.Run("rpm and deb hold the same", func(t *testing.T) {
		list := func(command string) []string {
			all := strings.Fields(run(t, "sh", "-c", command))
			slices.Sort(all)
			return all
		}
		inDeb := list("dpkg -c '" + deb + "' | awk '$1 !~ /^d/ {print substr($6, 2)}'")
		inRPM := list("rpm -qp --qf '[%{FILEMODES:perms} %{FILENAMES}\\n]' '" + before + "'/*.rpm | awk '$1 !~ /^d/ {print $2}' | sed s,site-functions,vendor-completions,")
		if !slices.Equal(inDeb, inRPM) || len(inDeb) < 30 {
			t.Errorf("deb %q, rpm %q", inDeb, inRPM)
		}
		if errors := "/usr/share/doc/mirrord/docs/errors.md"; !slices.Contains(inDeb, errors) {
			t.Errorf("%s, which messages name, is not there", errors)
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
	hold(t, dir, []string{"LICENSE", "README.md", "docs/quickstart.md", "man/mirrord-exec.1.gz", "completions/_mirrord", "apparmor", "mirrord.spdx.json"}, nil)
	program := filepath.Join(dir, "mirrord")
	if got := run(t, program, "version"); !strings.HasPrefix(got, "mirrord 0.1.0 ") {
		t.Errorf("version %q", got)
	}
	static(t, program)
	image := filepath.Join(dir, "image.tar")
	run(t, program, "agent", "image", "--output", image)
	for path, most := range map[string]int64{program: programSize, image: imageSize} {
		if fi, err := os.Stat(path); err != nil || fi.Size() > most {
			t.Errorf("%s has more than %d bytes: %v %v", path, most, fi.Size(), err)
		}
	}
	modules(t, dir, program)
}

// static checks that a program for Linux needs no other file, and gives the machine
// that it is for.
func static(t *testing.T, program string) elf.Machine {
	t.Helper()
	f, err := elf.Open(program)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if slices.ContainsFunc(f.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP }) {
		t.Errorf("%s is not static", program)
	}
	return f.Machine
}

// TestBothArchitectures: a release for Linux, as it is made: a program for each,
// static, not too big, and with the agents of both inside.
func TestBothArchitectures(t *testing.T) {
	dist := filepath.Join(t.TempDir(), "dist")
	run(t, "../../packaging/build", "-o", dist, "-s", "linux", "0.1.0", "amd64", "arm64")
	for arch, want := range map[string]struct {
		machine elf.Machine
		rpm     string
	}{"amd64": {elf.EM_X86_64, "x86_64"}, "arm64": {elf.EM_AARCH64, "aarch64"}} {
		name, dir := "mirrord-0.1.0-linux-"+arch, t.TempDir()
		run(t, "tar", "xzf", filepath.Join(dist, name+".tar.gz"), "-C", dir)
		program := filepath.Join(dir, name, "mirrord")
		if got := static(t, program); got != want.machine {
			t.Errorf("%s is for %v", name, got)
		}
		b, err := os.ReadFile(program)
		if err != nil || len(b) > programSize {
			t.Errorf("%s: %v, %d bytes", program, err, len(b))
		}
		if got := agents(b); len(got) != 2 || !slices.Contains(got, elf.EM_X86_64) || !slices.Contains(got, elf.EM_AARCH64) {
			t.Errorf("%s has agents for %v", name, got)
		}
		if got := run(t, "dpkg-deb", "-f", filepath.Join(dist, "mirrord_0.1.0_"+arch+".deb"), "Architecture"); strings.TrimSpace(got) != arch {
			t.Errorf("the .deb is for %q", got)
		}
		if got := run(t, "rpm", "-qp", "--qf", "%{ARCH}", filepath.Join(dist, "mirrord-0.1.0-1."+want.rpm+".rpm")); got != want.rpm {
			t.Errorf("the .rpm is for %q", got)
		}
	}
}

// modules compares the list of modules in dir with what the program is made of,
// and gives what the linker noted in it.
func modules(t *testing.T, dir, program string) *buildinfo.BuildInfo {
	t.Helper()
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
	return info
}

// built checks what the linker noted in a program for another system, which
// cannot be run here.
func built(t *testing.T, dir, program, system string) {
	t.Helper()
	set := map[string]string{}
	for _, s := range modules(t, dir, program).Settings {
		set[s.Key] = s.Value
	}
	if set["GOOS"] != system || set["GOARCH"] != runtime.GOARCH || set["CGO_ENABLED"] != "0" {
		t.Errorf("built for %s/%s, CGO_ENABLED=%s", set["GOOS"], set["GOARCH"], set["CGO_ENABLED"])
	}
	b, err := os.ReadFile(program)
	if err != nil || len(b) > programSize {
		t.Fatalf("%s: %v, %d bytes", program, err, len(b))
	}
	if len(agents(b)) == 0 {
		t.Error("there is no agent for Linux in the program")
	}
}

// agents looks in a program for those for Linux, packed by gzip -n -9, and gives
// the machines that they are for.
func agents(program []byte) (all []elf.Machine) {
	for packed := []byte("\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\x03"); ; program = program[1:] {
		at := bytes.Index(program, packed)
		if at < 0 {
			return all
		}
		program = program[at:]
		z, err := gzip.NewReader(bytes.NewReader(program))
		if err != nil {
			continue
		}
		z.Multistream(false) // something else follows
		var agent bytes.Buffer
		if _, err := agent.ReadFrom(z); err != nil {
			continue
		}
		if f, err := elf.NewFile(bytes.NewReader(agent.Bytes())); err == nil {
			all = append(all, f.Machine)
		}
	}
}

// hold checks that files are in dir, and others not.
func hold(t *testing.T, dir string, files, not []string) {
	t.Helper()
	for _, f := range files {
		if _, err := os.Stat(filepath.Join(dir, f)); err != nil {
			t.Error(err)
		}
	}
	for _, f := range not {
		if _, err := os.Stat(filepath.Join(dir, f)); err == nil {
			t.Errorf("%s is of no use there", f)
		}
	}
}

// darwin looks into the archive for macOS.
func darwin(t *testing.T, dist string) {
	name := "mirrord-0.1.0-darwin-" + runtime.GOARCH
	dir := t.TempDir()
	run(t, "tar", "xzf", filepath.Join(dist, name+".tar.gz"), "-C", dir)
	dir = filepath.Join(dir, name)
	hold(t, dir, []string{"LICENSE", "README.md", "docs/hosts.md", "man/mirrord-ls.1.gz", "completions/_mirrord", "mirrord.spdx.json"}, []string{"apparmor"})
	program := filepath.Join(dir, "mirrord")
	f, err := macho.Open(program)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if f.Type != macho.TypeExec {
		t.Errorf("the program is a %v", f.Type)
	}
	if fi, err := os.Stat(program); err != nil || fi.Mode()&0o111 != 0o111 {
		t.Errorf("the program cannot be run by all: %v", err)
	}
	built(t, dir, program, "darwin")
}

// windows looks into the archive for Windows.
func windows(t *testing.T, dist string) {
	name := "mirrord-0.1.0-windows-" + runtime.GOARCH
	dir := t.TempDir()
	z, err := zip.OpenReader(filepath.Join(dist, name+".zip"))
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	if err := os.CopyFS(dir, z); err != nil {
		t.Fatal(err)
	}
	dir = filepath.Join(dir, name)
	hold(t, dir, []string{"LICENSE", "README.md", "docs/hosts.md", "completions/mirrord.ps1", "mirrord.spdx.json"}, []string{"apparmor", "man"})
	program := filepath.Join(dir, "mirrord.exe")
	f, err := pe.Open(program)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if f.Characteristics&pe.IMAGE_FILE_EXECUTABLE_IMAGE == 0 {
		t.Errorf("the program is no executable: %#x", f.Characteristics)
	}
	built(t, dir, program, "windows")
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
