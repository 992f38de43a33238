package cli

import (
	"errors"
	"os"
	"path/filepath"
)

// writeWhole writes a file that is there whole or not at all: a name that exists
// is replaced when all is written. What is no file (a device, a pipe) is written
// to, never replaced.
func writeWhole(name string, mode os.FileMode, write func(*os.File) error) error {
	if fi, err := os.Stat(name); err == nil && !fi.Mode().IsRegular() {
		f, err := os.OpenFile(name, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		return errors.Join(write(f), f.Close())
	}
	f, err := os.CreateTemp(filepath.Dir(name), ".mirrord-*") // mode 0600
	if err != nil {
		return err
	}
	err = write(f)
	if err == nil {
		err = f.Chmod(mode)
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
	return err
}
