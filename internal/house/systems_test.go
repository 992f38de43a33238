package house

import (
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// systems are those, beside Linux, that mirrord is built for. That a machine's
// architecture matters is unlikely here: packaging builds them all.
var systems = []string{"darwin/arm64", "windows/amd64"}

// TestOtherSystems: the command line compiles for other systems, so what exists on
// Linux only is met in files that are named for Linux. It is read, not built: a
// build of all modules for another system takes minutes the first time, this takes
// seconds every time. Of other modules only the declarations are looked at.
func TestOtherSystems(t *testing.T) {
	for _, system := range systems {
		t.Run(system, func(t *testing.T) {
			t.Parallel()
			goos, arch, _ := strings.Cut(system, "/")
			checked := imports{}
			fset := token.NewFileSet()
			for _, p := range listed(t, goos, arch) {
				checked[p.ImportPath] = check(t, fset, p, checked, arch)
			}
		})
	}
}

// listedPackage is what go list says of a package.
type listedPackage struct {
	Dir, ImportPath string
	GoFiles         []string
	ImportMap       map[string]string
}

// listed are the packages that the command line is made of for a system, each
// after those that it imports.
func listed(t *testing.T, goos, arch string) (all []listedPackage) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-deps", "-json=Dir,ImportPath,GoFiles,ImportMap", "../../cmd/mirrord")
	cmd.Env = append(os.Environ(), "GOOS="+goos, "GOARCH="+arch, "CGO_ENABLED=0")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p listedPackage
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

// imports are packages that were checked, by their paths.
type imports map[string]*types.Package

// through looks at them as a package does that has a map of imports.
type through struct {
	imports
	by map[string]string
}

func (i through) Import(path string) (*types.Package, error) {
	if p, ok := i.by[path]; ok {
		path = p
	}
	if path == "unsafe" {
		return types.Unsafe, nil
	}
	if p := i.imports[path]; p != nil {
		return p, nil
	}
	return nil, fmt.Errorf("%s is not there", path)
}

// check reads a package, and reports what does not compile in one of ours.
func check(t *testing.T, fset *token.FileSet, p listedPackage, known imports, arch string) *types.Package {
	t.Helper()
	if p.ImportPath == "unsafe" {
		return types.Unsafe
	}
	_, ours := name(p.ImportPath)
	if ours { // a new file makes a cached result stale
		if _, err := os.ReadDir(p.Dir); err != nil {
			t.Fatal(err)
		}
	}
	var files []*ast.File
	for _, file := range p.GoFiles {
		f, err := parser.ParseFile(fset, filepath.Join(p.Dir, file), nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, f)
	}
	c := types.Config{Importer: through{known, p.ImportMap}, IgnoreFuncBodies: !ours, FakeImportC: true, Sizes: types.SizesFor("gc", arch),
		Error: func(err error) {
			if ours {
				t.Error(err)
			}
		}}
	pkg, _ := c.Check(p.ImportPath, fset, files, nil) // its errors were reported
	return pkg
}
