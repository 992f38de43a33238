package launch

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"path"
	"regexp"
	"strings"

	"github.com/mirrord-go/mirrord/internal/config/document"
	"github.com/mirrord-go/mirrord/internal/shell"
)

// variable is one of the editor's.
var variable = regexp.MustCompile(`\$\{([^}]*)\}`)

// hash tells one configuration's files from another's.
func (w *rewriting) hash(parts ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(append(parts, w.file, text(w.c, "name")), "\x00")))
	return hex.EncodeToString(sum[:6])
}

// shim makes a script that stands for a debugger, or for java, and runs it in a
// session: real if the configuration has one, else what is found by name.
// Called with one of probes first it runs the real one by itself: extensions
// ask for versions, and are not to wait for an agent.
func (w *rewriting) shim(name, real string, probes []string) (string, error) {
	if strings.HasPrefix(real, w.Storage+"/") {
		return real, nil // it is one already
	}
	if real == "" && w.Look != nil {
		real = w.Look(name)
	}
	if real == "" {
		real = name
	}
	key := map[string]string{"dlv": "dlvToolPath", "java": "javaExec"}[name]
	if key == "" {
		key = "miDebuggerPath"
	}
	real, err := w.resolve(key, real)
	if err != nil {
		return "", err
	}
	args := make([]string, len(w.Args))
	for i, a := range w.Args {
		if args[i], err = w.resolve("mirrord", a); err != nil {
			return "", err
		}
	}
	plain := *w
	plain.Args = args
	content := fmt.Sprintf("#!/bin/sh\n# Runs %s in a session of mirrord; made by mirrord debug-config.\ncase \"${1-}\" in\n%s) exec %s \"$@\" ;;\nesac\nexec %s %s \"$@\"\n",
		path.Base(real), strings.Join(probes, "|"), shell.Quote(real), shell.Line(plain.command()...), shell.Quote(real))
	sum := w.hash(content)
	file := path.Join(w.Storage, name+"-"+sum)
	if name == "java" { // Java's extension reads the version from the JDK around it
		file = path.Join(w.Storage, "jdk-"+sum, "bin", "java")
		w.r.Files = append(w.r.Files, File{Path: path.Join(w.Storage, "jdk-"+sum, "release"), CopyOf: path.Join(path.Dir(path.Dir(real)), "release")})
	}
	w.r.Files = append(w.r.Files, File{Path: file, Content: content})
	return file, nil
}

// resolve fills in the editor's variables, for a file that no editor reads.
func (w *rewriting) resolve(key, value string) (string, error) {
	unknown := ""
	filled := variable.ReplaceAllStringFunc(value, func(match string) string {
		name := match[2 : len(match)-1]
		if w.Resolve != nil {
			if v, ok := w.Resolve(name); ok {
				return v
			}
		}
		unknown = match
		return match
	})
	if unknown != "" {
		at := w.c.Place
		if v := w.c.Value(key); v != nil && v.Place != (document.Place{}) {
			at = v.Place
		}
		return "", invalid(w.file, at, fmt.Sprintf("%s is known to the editor only, and %s goes into a script: write the path itself", unknown, key))
	}
	return filled, nil
}
