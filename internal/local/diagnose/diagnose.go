// Package diagnose packs what a person who helps needs to see into one archive,
// without the secrets in it.
//
// The command line fills a Bundle and writes it. What is known to be secret is
// left out where it is known what it is (the configuration's Redacted); in
// addition every text of the archive is searched for the secrets that were
// named to Hide, in case an error or an event repeats one. The room reads two
// files about this machine and writes where it is told.
package diagnose

import (
	"archive/tar"
	"bytes"
	"cmp"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"time"
)

// Hidden stands where something was taken out.
const Hidden = "(hidden)"

// shortest is the length in bytes of a secret that is searched for: shorter
// ones are parts of ordinary words.
const shortest = 6

// File is one file of the archive.
type File struct {
	Name  string `json:"name"`
	About string `json:"about"`
	Bytes int    `json:"bytes"`

	data []byte
}

// Left is something that is not in the archive.
type Left struct {
	What string `json:"what"`
	Why  string `json:"why"`
}

// Bundle is an archive in the making. The zero value is empty.
type Bundle struct {
	files []File
	left  []Left
	hide  []string
}

// Add puts a text into the archive.
func (b *Bundle) Add(name, about string, data []byte) {
	b.files = append(b.files, File{Name: name, About: about, data: data})
}

// AddJSON puts v into the archive as JSON.
func (b *Bundle) AddJSON(name, about string, v any) {
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		b.Leave(name, err.Error())
		return
	}
	b.Add(name, about, out.Bytes())
}

// Leave says that something is not in the archive.
func (b *Bundle) Leave(what, why string) { b.left = append(b.left, Left{what, why}) }

// Hide names texts that must not be in the archive, wherever they stand.
func (b *Bundle) Hide(secrets ...string) { b.hide = append(b.hide, secrets...) }

// Hider gives a function that takes secrets out of texts, also where they are
// written as in JSON and where a line of them stands alone.
func Hider(secrets []string) func(string) string {
	var all []string
	add := func(s string) {
		if len(s) < shortest {
			return
		}
		all = append(all, s)
		quoted, err := json.Marshal(s)
		if err == nil {
			all = append(all, string(quoted[1:len(quoted)-1]))
		}
		var plain bytes.Buffer
		e := json.NewEncoder(&plain)
		e.SetEscapeHTML(false)
		if e.Encode(s) == nil {
			all = append(all, strings.Trim(plain.String(), "\"\n"))
		}
	}
	for _, s := range secrets {
		add(s)
		if strings.Contains(s, "\n") {
			for line := range strings.Lines(s) {
				add(strings.TrimSpace(line))
			}
		}
	}
	// The longest first: one may be a part of another.
	slices.SortFunc(all, func(a, b string) int { return cmp.Compare(len(b), len(a)) })
	pairs := make([]string, 0, 2*len(all))
	for _, s := range all {
		pairs = append(pairs, s, Hidden)
	}
	return strings.NewReplacer(pairs...).Replace
}

// List gives what the archive holds, with sizes as they will be, and what it
// does not hold.
func (b *Bundle) List() ([]File, []Left) {
	hide := Hider(b.hide)
	files, left := slices.Clone(b.files), slices.Clone(b.left)
	for i := range files {
		files[i].data = []byte(hide(string(files[i].data)))
		files[i].Bytes = len(files[i].data)
	}
	for i := range left {
		left[i].Why = hide(left[i].Why)
	}
	return files, left
}

// Write writes the archive, a gzipped tar, whose files are in a directory named
// dir and are of the time at.
func (b *Bundle) Write(w io.Writer, dir string, at time.Time) error {
	files, _ := b.List()
	z := gzip.NewWriter(w)
	t := tar.NewWriter(z)
	for _, f := range files {
		h := &tar.Header{Typeflag: tar.TypeReg, Name: path.Join(dir, f.Name), Mode: 0o600, Size: int64(len(f.data)), ModTime: at}
		if err := t.WriteHeader(h); err != nil {
			return fmt.Errorf("pack %s: %w", f.Name, err)
		}
		if _, err := t.Write(f.data); err != nil {
			return fmt.Errorf("pack %s: %w", f.Name, err)
		}
	}
	if err := t.Close(); err != nil {
		return fmt.Errorf("pack: %w", err)
	}
	if err := z.Close(); err != nil {
		return fmt.Errorf("pack: %w", err)
	}
	return nil
}
