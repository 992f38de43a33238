package demo

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	// newRoot is where the pod's root is built: any directory that all systems
	// have will do, the mount is the pod's own.
	newRoot = "/tmp"
	// rootSize bounds the pod's root and each volume (mount option of tmpfs).
	rootSize = "size=16m"

	configDir = "/etc/app"
	secretDir = "/var/run/secrets/kubernetes.io/serviceaccount"

	helloText  = "hello from the demo pod\n"
	configText = "color: blue\nreplicas: 3\n"
)

// A file is one of the pod's; target is set for a symbolic link.
type file struct{ path, text, target string }

// image is the pod's root but for its volumes.
func image() []file {
	files := []file{
		{path: "/etc/hostname", text: Hostname + "\n"},
		{path: "/etc/hosts", text: hostsText()},
		{path: "/etc/resolv.conf", text: "search " + zone + " svc.cluster.local cluster.local\nnameserver " +
			dnsHost.v4().String() + "\noptions ndots:5\n"},
		{path: "/etc/passwd", text: "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"},
		{path: "/etc/group", text: "root:x:0:\nnogroup:x:65534:\n"},
		{path: "/etc/os-release", text: "NAME=\"mirrord demo pod\"\nID=mirrord-demo\n"},
		{path: "/data/hello.txt", text: helloText},
		{path: "/data/latest.json", target: "orders/3.json"},
		{path: "/app/static/index.html", text: "<h1>shop</h1>\n"},
	}
	for n := range 4 {
		files = append(files, file{path: fmt.Sprintf("/data/orders/%d.json", n), text: fmt.Sprintf("{\"order\": %d}\n", n)})
	}
	return files
}

func hostsText() string {
	var b strings.Builder
	b.WriteString("# managed by the demo pod\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n")
	for _, a := range podHost.addrs() {
		fmt.Fprintf(&b, "%s\t%s\n", a, Hostname)
	}
	return b.String()
}

// A volume is a mount of its own below the root, read-only, laid out as the
// kubelet does: the names are links into a directory that is replaced as a
// whole.
type volume struct {
	dir   string
	files map[string]string
}

func volumes() []volume {
	return []volume{
		{configDir, map[string]string{"config.yaml": configText}},
		{secretDir, map[string]string{"token": "demo-token\n", "namespace": "demo", "ca.crt": "demo-ca\n"}},
	}
}

// enterRoot makes the pod's root and moves this process and the neighbour into
// it: pivot_root(2) changes the root of all processes of the mount namespace
// that have the old one.
func enterRoot() error {
	// Nothing mounted here may show outside, nor the other way round.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := mountTmpfs(newRoot); err != nil {
		return err
	}
	if err := fill(newRoot); err != nil {
		return err
	}
	if err := unix.Chdir(newRoot); err != nil {
		return fmt.Errorf("enter the new root: %w", err)
	}
	// The old root ends up on top of the new one and is taken away: pivot_root(2),
	// "pivot_root(".", ".")".
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("change the root: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("leave the old root: %w", err)
	}
	if err := unix.Chdir("/app"); err != nil {
		return fmt.Errorf("enter the working directory: %w", err)
	}
	return nil
}

func mountTmpfs(dir string) error {
	if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, rootSize+",mode=0755"); err != nil {
		return fmt.Errorf("mount tmpfs on %s: %w", dir, err)
	}
	return nil
}

// fill writes the pod's files below root.
func fill(root string) error {
	for _, dir := range []string{"dev", "proc", "sys", "root"} { // mount points, as in any image
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			return err
		}
	}
	tmp := filepath.Join(root, "tmp")
	if err := os.Mkdir(tmp, 0o755); err != nil {
		return err
	}
	if err := os.Chmod(tmp, 0o777|os.ModeSticky); err != nil {
		return err
	}
	for _, f := range image() {
		if err := f.write(root); err != nil {
			return err
		}
	}
	for _, v := range volumes() {
		if err := v.mount(root); err != nil {
			return err
		}
	}
	return nil
}

func (f file) write(root string) error {
	path := filepath.Join(root, f.path)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if f.target != "" {
		return os.Symlink(f.target, path)
	}
	return os.WriteFile(path, []byte(f.text), 0o644)
}

func (v volume) mount(root string) error {
	const version, link = "..2026_01_01_00_00_00.1", "..data"
	dir := filepath.Join(root, v.dir)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := mountTmpfs(dir); err != nil {
		return err
	}
	files := []file{{path: link, target: version}}
	for name, text := range v.files {
		files = append(files, file{path: version + "/" + name, text: text}, file{path: name, target: link + "/" + name})
	}
	for _, f := range files {
		if err := f.write(dir); err != nil {
			return err
		}
	}
	if err := unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV, ""); err != nil {
		return fmt.Errorf("make %s read-only: %w", v.dir, err)
	}
	return nil
}
