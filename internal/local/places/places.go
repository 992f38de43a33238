// Package places finds out which places of this machine a session needs: where its
// command works, the home, the program and its toolchain.
//
// The session builds its view of files with it, and explain says what that will
// be. It looks at this machine's file system and changes nothing; rules decide
// what comes of it.
package places

import (
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/mirrord-go/mirrord/internal/rules"
)

// nsswitch makes the C library ask hosts and the name server only: other
// services (mdns, resolved, myhostname) would answer for this machine
// (nsswitch.conf(5)).
const nsswitch = `# served by mirrord: names resolve as in the target
passwd:     files
group:      files
shadow:     files
hosts:      files dns
networks:   files
protocols:  files
services:   files
ethers:     files
rpc:        files
netgroup:   files
`

// Served are the files with a content of the session's own, which nobody can
// write, whatever rules say.
func Served(o rules.FilesOptions) map[string][]byte {
	if o.DNSLocal {
		return nil
	}
	return map[string][]byte{"/etc/nsswitch.conf": []byte(nsswitch)}
}

// Of gives the places of this machine that a command needs, whose arguments,
// environment ("NAME=value") and directory are given: where it works, its home,
// and the toolchain that the environment names. What the target has is not
// known here.
func Of(argv, env []string, dir string) rules.Places {
	get := func(name string) string { return Variable(env, name) }
	var at rules.Places
	add := func(list *[]string, p string) {
		for _, p := range []string{p, Real(p)} {
			if path.IsAbs(p) && path.Clean(p) != "/" {
				*list = append(*list, path.Clean(p))
			}
		}
	}
	own := func(p string) { add(&at.Own, p) }
	tool := func(p string) { add(&at.Tools, p) }
	if home := get("HOME"); path.IsAbs(home) && path.Clean(home) != "/" {
		at.Home = Real(home)
		if Real(home) != path.Clean(home) {
			own(home)
		}
	}
	own(dir)
	own(repository(dir))
	own("/tmp")
	own("/var/tmp")
	own(get("TMPDIR"))
	own(get("XDG_RUNTIME_DIR"))
	for _, name := range []string{"PYTHONPATH", "NODE_PATH"} { // often the program's own code
		for _, p := range filepath.SplitList(get(name)) {
			own(p)
		}
	}
	for _, name := range []string{"VIRTUAL_ENV", "GOROOT", "JAVA_HOME", "CONDA_PREFIX"} {
		tool(get(name))
	}
	for _, name := range []string{"PATH", "GOPATH", "LD_LIBRARY_PATH"} {
		for _, p := range filepath.SplitList(get(name)) {
			tool(installation(p))
		}
	}
	if len(argv) > 0 {
		program := Find(argv[0], get("PATH"), dir)
		if fi, err := os.Stat(program); err == nil && fi.Mode().IsRegular() {
			tool(installation(path.Dir(Real(program))))
		}
		at.Code = codeOf(argv[1:], dir, at)
	}
	for _, list := range []*[]string{&at.Own, &at.Tools} {
		slices.Sort(*list)
		*list = slices.Compact(*list)
	}
	return at
}

// Variable is the value of a variable in env ("NAME=value"), the last one.
func Variable(env []string, name string) string {
	value := ""
	for _, kv := range env {
		if n, v, ok := strings.Cut(kv, "="); ok && n == name {
			value = v
		}
	}
	return value
}

// codeOf gives the directories of the files with code that the arguments name.
func codeOf(args []string, dir string, at rules.Places) (code []string) {
	byDefault, err := rules.NewFiles(rules.FilesOptions{}, at)
	if err != nil {
		return nil // there is nothing in it that could be wrong
	}
	for _, arg := range args {
		if p := under(arg, dir); byDefault.Decide(p, rules.Read).Where == rules.Local && isFile(p) {
			code = append(code, path.Dir(p))
		}
	}
	return code
}

// installation is what a directory of programs belongs to: /opt/go/bin to
// /opt/go, if there is more than bin in it.
func installation(p string) string {
	prefix := path.Dir(path.Clean(p))
	if prefix == "/" || prefix == "." || path.Base(p) != "bin" {
		return p
	}
	for _, sign := range []string{"lib", "lib64", "pyvenv.cfg", "share", "pkg", "jre"} {
		if _, err := os.Lstat(path.Join(prefix, sign)); err == nil {
			return prefix
		}
	}
	return p
}

// repository is the top of the git repository that dir is in; empty if it is
// in none.
func repository(dir string) string {
	for d := path.Clean(dir); path.IsAbs(d) && d != "/"; d = path.Dir(d) {
		if _, err := os.Lstat(path.Join(d, ".git")); err == nil {
			return d
		}
	}
	return ""
}

// Find finds a program as execvp(3) does; empty if there is none.
func Find(name, list, dir string) string {
	if strings.Contains(name, "/") {
		return under(name, dir)
	}
	for _, d := range filepath.SplitList(list) {
		if p := under(path.Join(d, name), dir); isFile(p) {
			return p
		}
	}
	return ""
}

func under(p, dir string) string {
	if path.IsAbs(p) {
		return path.Clean(p)
	}
	return path.Join(dir, p)
}

func isFile(p string) bool {
	fi, err := os.Stat(p)
	return err == nil && fi.Mode().IsRegular()
}

// Real resolves symbolic links as far as that is possible.
func Real(p string) string {
	if r, err := filepath.EvalSymlinks(p); err == nil {
		return r
	}
	return path.Clean(p)
}

// Plan plans the mounts of a session with rules r on this machine.
func Plan(r *rules.Files) rules.Plan { return r.Plan(disk{}) }

// disk is this machine's file system.
type disk struct{}

func (disk) Lstat(p string) (fs.FileMode, bool) {
	fi, err := os.Lstat(p)
	if err != nil {
		return 0, false
	}
	return fi.Mode(), true
}

func (disk) List(dir string) []string {
	list, _ := os.ReadDir(dir)
	names := make([]string, len(list))
	for i, e := range list {
		names[i] = e.Name()
	}
	return names
}
