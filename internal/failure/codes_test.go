package failure

import (
	"cmp"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// TestEveryCodeIsExplained: each code that the sources make a failure with is
// a section of docs/errors.md, and each section is a code.
func TestEveryCodeIsExplained(t *testing.T) {
	made := codes(t, "../..")
	text, err := os.ReadFile("../../docs/errors.md")
	if err != nil {
		t.Fatal(err)
	}
	explained := map[string]bool{}
	for _, m := range regexp.MustCompile("(?m)^### `([^`]+)`$").FindAllStringSubmatch(string(text), -1) {
		if explained[m[1]] {
			t.Errorf("docs/errors.md explains %s twice", m[1])
		}
		explained[m[1]] = true
	}
	for _, code := range slices.Sorted(maps.Keys(made)) {
		if !explained[code] {
			t.Errorf("docs/errors.md has no section for %s (%s)", code, made[code])
		}
		if !regexp.MustCompile(`^[a-z0-9]+(-[a-z0-9]+)*$`).MatchString(code) {
			t.Errorf("%s: code %q is not of lower-case words with dashes", made[code], code)
		}
	}
	for _, code := range slices.Sorted(maps.Keys(explained)) {
		if made[code] == "" {
			t.Errorf("docs/errors.md explains %s, which nothing makes", code)
		}
	}
}

// unprovoked are codes that no test provokes, and why.
var unprovoked = map[string]string{
	"no-supervisor": "the limit of processes that makes it keeps mirrord's own threads from starting",
}

// TestEveryCodeIsProvoked: each section of docs/errors.md is a code that a test or
// a script names, but for those of the list.
func TestEveryCodeIsProvoked(t *testing.T) {
	text, err := os.ReadFile("../../docs/errors.md")
	if err != nil {
		t.Fatal(err)
	}
	word, named := regexp.MustCompile(`[a-z0-9]+(-[a-z0-9]+)*`), map[string]bool{}
	for _, root := range []string{"../../internal", "../../cmd", "../../test"} {
		err := filepath.WalkDir(root, func(file string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() && d.Name() == "node_modules" {
				return cmp.Or(err, filepath.SkipDir)
			}
			if d.IsDir() || !strings.HasSuffix(file, "_test.go") && !strings.HasSuffix(file, ".txt") && !strings.HasSuffix(file, ".txtar") || strings.HasSuffix(file, "codes_test.go") {
				return nil
			}
			b, err := os.ReadFile(file)
			for _, w := range word.FindAll(b, -1) {
				named[string(w)] = true
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, m := range regexp.MustCompile("(?m)^### `([^`]+)`$").FindAllStringSubmatch(string(text), -1) {
		if why, ok := unprovoked[m[1]]; named[m[1]] == ok {
			t.Errorf("%s: that a test names it is %t, unprovoked says %q", m[1], named[m[1]], why)
		}
	}
}

// codes gives the codes of all failures below root with one place where each
// is made.
func codes(t *testing.T, root string) map[string]string {
	t.Helper()
	found := map[string]string{}
	err := filepath.WalkDir(root, func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if n := d.Name(); d.IsDir() && file != root && (n == "testdata" || n == "node_modules" || n[0] == '.' || n[0] == '_') {
			return filepath.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(file, ".go") || strings.HasSuffix(file, "_test.go") {
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		if err != nil {
			return err
		}
		take := func(e ast.Expr) {
			switch e := e.(type) {
			case *ast.BasicLit:
				if code, err := strconv.Unquote(e.Value); err == nil {
					found[code] = file
				}
			case *ast.Ident: // the constant of this package
				if e.Name == "CodeUnexpected" {
					found[CodeUnexpected] = file
				}
			}
		}
		ast.Inspect(f, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.CompositeLit: // failure.Error{Code: "…"}
				if named(n.Type, "Error") {
					for _, e := range n.Elts {
						if kv, ok := e.(*ast.KeyValueExpr); ok {
							if k, ok := kv.Key.(*ast.Ident); ok && k.Name == "Code" {
								take(kv.Value)
							}
						}
					}
				}
			case *ast.CallExpr: // failure.New("…"), failure.Wrap(err, "…")
				switch {
				case (named(n.Fun, "New") || named(n.Fun, "Usage")) && len(n.Args) >= 4:
					take(n.Args[0])
				case named(n.Fun, "Wrap") && len(n.Args) == 4:
					take(n.Args[1])
				case f.Name.Name == "failure":
					if id, ok := n.Fun.(*ast.Ident); ok && id.Name == "Wrap" && len(n.Args) == 4 {
						take(n.Args[1])
					}
				}
			case *ast.AssignStmt: // f.Code = "…"
				for i, l := range n.Lhs {
					if s, ok := l.(*ast.SelectorExpr); ok && s.Sel.Name == "Code" && i < len(n.Rhs) {
						take(n.Rhs[i])
					}
				}
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// named reports whether e is failure.name.
func named(e ast.Expr, name string) bool {
	s, ok := e.(*ast.SelectorExpr)
	if !ok || s.Sel.Name != name {
		return false
	}
	x, ok := s.X.(*ast.Ident)
	return ok && x.Name == "failure"
}
