// Command zip writes the files of a directory into an archive: for Windows, and for
// editors. The same files give the same bytes: they come in the order of their names,
// with one time, and are executable for all or for nobody.
//
//	zip -time 1700000000 -out mirrord.zip DIR
package main

import (
	"archive/zip"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

func main() {
	seconds := flag.Int64("time", 0, "time of the files, in seconds since 1970")
	out := flag.String("out", "", "archive to write")
	bare := flag.Bool("bare", false, "without the directory's own name")
	flag.Parse()
	if err := pack(*out, flag.Arg(0), *bare, time.Unix(*seconds, 0).UTC()); err != nil {
		fmt.Fprintln(os.Stderr, "zip:", err)
		os.Exit(1)
	}
}

// pack writes dir, under its own name or bare, into the archive out.
func pack(out, dir string, bare bool, at time.Time) (err error) {
	file, err := os.Create(out)
	if err != nil {
		return err
	}
	defer func() {
		if failed := file.Close(); err == nil {
			err = failed
		}
	}()
	z := zip.NewWriter(file)
	base := filepath.Dir(dir)
	if bare {
		base = dir
	}
	err = filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(base, name)
		if err != nil {
			return err
		}
		data, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		h := &zip.FileHeader{Name: filepath.ToSlash(rel), Method: zip.Deflate, Modified: at}
		h.SetMode(0o644 | info.Mode()&0o100 | info.Mode()&0o100>>3 | info.Mode()&0o100>>6)
		w, err := z.CreateHeader(h)
		if err != nil {
			return err
		}
		_, err = w.Write(data)
		return err
	})
	if err != nil {
		return err
	}
	return z.Close()
}
