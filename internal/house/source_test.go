package house

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const (
	// maxLines is where a file is surely two stories; think about it at 500.
	maxLines = 800
)

// longer lists files allowed past maxLines, each with its reason.
var longer = map[string]string{}

// banned are names that say nothing about what lives in a room.
var banned = []string{"util", "utils", "common", "helper", "helpers", "misc", "base", "types", "shared", "manager", "lib", "pkg"}

type source struct {
	Path  string // from the module's root, with slashes
	Lines int
	File  *ast.File
}

// sources parses every non-test, non-generated file of the module.
func sources(t *testing.T) []source {
	t.Helper()
	root := "../.."
	var all []source
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if n := d.Name(); d.IsDir() && p != root && (n == "testdata" || n == "node_modules" || n[0] == '.' || n[0] == '_' || ownModule(p)) {
			return filepath.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(p, ".go") || strings.HasSuffix(p, "_test.go") {
			return nil
		}
		text, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		f, err := parser.ParseFile(token.NewFileSet(), p, text, parser.ParseComments)
		if err != nil {
			return err
		}
		if ast.IsGenerated(f) {
			return nil
		}
		rel, err := filepath.Rel(root, p)
		if err != nil {
			return err
		}
		all = append(all, source{filepath.ToSlash(rel), bytes.Count(text, []byte("\n")), f})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestFileSizes(t *testing.T) {
	var sizes []int
	for _, s := range sources(t) {
		sizes = append(sizes, s.Lines)
		if s.Lines > maxLines && longer[s.Path] == "" {
			t.Errorf("%s has %d lines, more than %d: split it, or give the reason in longer", s.Path, s.Lines, maxLines)
		}
	}
	slices.Sort(sizes)
	n := len(sizes)
	t.Logf("%d files, median %d lines, 90th percentile %d, longest %d", n, sizes[n/2], sizes[n*9/10], sizes[n-1])
}

func TestNames(t *testing.T) {
	for _, s := range sources(t) {
		if name := s.File.Name.Name; slices.Contains(banned, name) {
			t.Errorf("%s: package name %q says nothing about what lives there", s.Path, name)
		}
	}
}

// TestNoGlobals allows package variables that cannot change the program's
// course behind a reader's back: errors, compiled patterns, tables that are
// filled where they are declared, interface assertions, embedded files, and the
// version that the linker sets in a main package.
func TestNoGlobals(t *testing.T) {
	for _, s := range sources(t) {
		for _, d := range s.File.Decls {
			g, ok := d.(*ast.GenDecl)
			if !ok || g.Tok != token.VAR {
				continue
			}
			if g.Doc != nil && strings.HasPrefix(g.Doc.List[len(g.Doc.List)-1].Text, "//go:embed ") {
				continue // the compiler fills it
			}
			for _, spec := range g.Specs {
				v := spec.(*ast.ValueSpec)
				for i, n := range v.Names {
					if n.Name == "_" || strings.HasPrefix(n.Name, "err") || strings.HasPrefix(n.Name, "Err") {
						continue
					}
					if n.Name == "version" && s.File.Name.Name == "main" {
						continue
					}
					if i < len(v.Values) && constant(v.Values[i]) {
						continue
					}
					t.Errorf("%s: package variable %s: pass it to whoever needs it", s.Path, n.Name)
				}
			}
		}
	}
}

// constant reports whether e is a table or a compiled pattern.
func constant(e ast.Expr) bool {
	switch e := e.(type) {
	case *ast.CompositeLit:
		return true
	case *ast.UnaryExpr:
		return constant(e.X)
	case *ast.CallExpr:
		sel, ok := e.Fun.(*ast.SelectorExpr)
		return ok && strings.HasPrefix(sel.Sel.Name, "Must")
	}
	return false
}

func TestExportedAreDocumented(t *testing.T) {
	for _, s := range sources(t) {
		for _, d := range s.File.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				if d.Name.IsExported() && d.Doc == nil && d.Recv == nil {
					t.Errorf("%s: func %s has no comment", s.Path, d.Name.Name)
				}
			case *ast.GenDecl:
				for _, spec := range d.Specs {
					ts, ok := spec.(*ast.TypeSpec)
					if ok && ts.Name.IsExported() && ts.Doc == nil && d.Doc == nil {
						t.Errorf("%s: type %s has no comment", s.Path, ts.Name.Name)
					}
				}
			}
		}
	}
}
