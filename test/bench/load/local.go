package main

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// Tasks on processor, programs and local files. Each gives "seconds".

func timed(f func() error) (values, error) {
	begin := time.Now()
	if err := f(); err != nil {
		return nil, err
	}
	return values{"seconds": time.Since(begin).Seconds()}, nil
}

// cpu hashes: no system call.
func cpu([]string) (values, error) {
	data := make([]byte, 1<<20)
	return timed(func() error {
		for range 200 {
			sum := sha256.Sum256(data)
			copy(data, sum[:])
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
	var st unix.Stat_t
	return eachFile(args, func(name string) error { return unix.Stat(name, &st) })
}

// openFiles N DIR: opens and closes DIR/0 ... DIR/1999, N times over.
func openFiles(args []string) (values, error) {
	return eachFile(args, func(name string) error {
		fd, err := unix.Open(name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		return unix.Close(fd)
	})
}

// eachFile N DIR: calls f for DIR/0 ... DIR/1999, N times over.
func eachFile(args []string, f func(name string) error) (values, error) {
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
		for range n {
			for _, name := range names {
				if err := f(name); err != nil {
					return fmt.Errorf("%s: %w", name, err)
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
