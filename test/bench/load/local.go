package main

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// Tasks on processor, programs and files. Each gives "seconds".

func timed(f func() error) (values, error) {
	begin := time.Now()
	if err := f(); err != nil {
		return nil, err
	}
	return values{"seconds": time.Since(begin).Seconds()}, nil
}

// cpu hashes: no system call.
func cpu([]string) (values, error) {
	block := make([]byte, 1<<20)
	return timed(func() error {
		for range 200 {
			sum := sha256.Sum256(block)
			copy(block, sum[:])
		}
		return nil
	})
}

// runProgram N PROGRAM [ARG...]: starts it N times, one after the other.
func runProgram(args []string) (values, error) {
	if len(args) < 2 {
		return nil, errors.New("a number and a program are needed")
	}
	n, err := number(args[0])
	if err != nil {
		return nil, err
	}
	return timed(func() error {
		for range n {
			if out, err := exec.Command(args[1], args[2:]...).CombinedOutput(); err != nil {
				return fmt.Errorf("%s: %w: %s", args[1], err, out)
			}
		}
		return nil
	})
}

// statFiles N DIR: the attributes of DIR/0 ... DIR/1999, N times over.
func statFiles(args []string) (values, error) {
	if err := arguments(args, 2); err != nil {
		return nil, err
	}
	n, err := number(args[0])
	if err != nil {
		return nil, err
	}
	names := make([]string, 2000)
	for i := range names {
		names[i] = filepath.Join(args[1], strconv.Itoa(i))
	}
	return timed(func() error {
		var st unix.Stat_t
		for range n {
			for _, name := range names {
				if err := unix.Stat(name, &st); err != nil {
					return fmt.Errorf("stat %s: %w", name, err)
				}
			}
		}
		return nil
	})
}

// makeFiles N DIR: makes, renames, lists and removes N small files in DIR.
func makeFiles(args []string) (values, error) {
	if err := arguments(args, 2); err != nil {
		return nil, err
	}
	n, err := number(args[0])
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(args[1], "made-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	return timed(func() error {
		for i := range n {
			name := filepath.Join(dir, strconv.Itoa(i))
			if err := os.WriteFile(name, []byte("some text\n"), 0o644); err != nil {
				return err
			}
			if err := os.Rename(name, name+".new"); err != nil {
				return err
			}
		}
		list, err := os.ReadDir(dir)
		if err != nil {
			return err
		}
		for _, e := range list {
			if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
		return nil
	})
}

// readFile N FILE [forget]: opens and reads the file in order, N times over.
// With "forget" the kernel is told after each time to drop what it has cached
// of it (posix_fadvise(2)).
func readFile(args []string) (values, error) {
	if len(args) != 2 && (len(args) != 3 || args[2] != "forget") {
		return nil, errors.New("a number and a file are needed")
	}
	n, err := number(args[0])
	if err != nil {
		return nil, err
	}
	buf := make([]byte, 1<<20)
	return timed(func() error {
		for range n {
			if err := readOnce(args[1], buf, len(args) == 3); err != nil {
				return err
			}
		}
		return nil
	})
}

func readOnce(path string, buf []byte, forget bool) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	for err == nil {
		_, err = f.Read(buf)
	}
	if !errors.Is(err, io.EOF) {
		return err
	}
	if forget {
		return unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
	}
	return nil
}

// openOnce FILE REST: opens, reads and closes a small file after a rest: a
// duration in which nothing is asked, so that what is remembered for a time is
// forgotten. It gives "first" and "again".
func openOnce(args []string) (values, error) {
	if err := arguments(args, 2); err != nil {
		return nil, err
	}
	rest, err := time.ParseDuration(args[1])
	if err != nil {
		return nil, err
	}
	time.Sleep(rest) // the rest itself is what is wanted
	read := func() error {
		b, err := os.ReadFile(args[0])
		if err == nil && len(b) == 0 {
			err = fmt.Errorf("%s is empty", args[0])
		}
		return err
	}
	first, err := timed(read)
	if err != nil {
		return nil, err
	}
	again, err := timed(read)
	if err != nil {
		return nil, err
	}
	return values{"first": first["seconds"], "again": again["seconds"]}, nil
}

// walk DIR: lists everything below DIR and reads every file, twice. It gives
// "first", "again" and "files".
func walk(args []string) (values, error) {
	if err := arguments(args, 1); err != nil {
		return nil, err
	}
	var files int
	all := func() error {
		files = 0
		return filepath.WalkDir(args[0], func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			if _, err := d.Info(); err != nil {
				return err
			}
			files++
			_, err = os.ReadFile(path)
			return err
		})
	}
	first, err := timed(all)
	if err != nil {
		return nil, err
	}
	again, err := timed(all)
	if err != nil {
		return nil, err
	}
	return values{"first": first["seconds"], "again": again["seconds"], "files": float64(files)}, nil
}
