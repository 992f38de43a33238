package cli

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestWriteWhole(t *testing.T) {
	dir := t.TempDir()
	say := func(text string, fault error) func(*os.File) error {
		return func(f *os.File) error {
			_, err := f.WriteString(text)
			return errors.Join(err, fault)
		}
	}
	file := filepath.Join(dir, "file")
	if err := writeWhole(file, 0o640, say("one", nil)); err != nil {
		t.Fatal(err)
	}
	if err := writeWhole(file, 0o640, say("half", errors.New("no more"))); err == nil {
		t.Error("a fault is not told")
	}
	if text, err := os.ReadFile(file); err != nil || string(text) != "one" {
		t.Errorf("the file has %q, %v", text, err)
	}
	if fi, err := os.Stat(file); err != nil || fi.Mode() != 0o640 {
		t.Errorf("its mode is %v, %v", fi.Mode(), err)
	}

	pipe := filepath.Join(dir, "pipe")
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	reader, err := os.OpenFile(pipe, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	if err := writeWhole(pipe, 0o600, say("through", nil)); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 16)
	if n, err := reader.Read(b); err != nil || string(b[:n]) != "through" {
		t.Errorf("through the pipe came %q, %v", b[:n], err)
	}
	if fi, err := os.Lstat(pipe); err != nil || fi.Mode()&os.ModeNamedPipe == 0 {
		t.Errorf("the pipe is %v now, %v", fi.Mode(), err)
	}
	if left, _ := os.ReadDir(dir); len(left) != 2 {
		t.Errorf("left: %v", left)
	}
}
