package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// Tasks on files' content and on trees. What gives no other figures gives
// "seconds".

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

// randomReads FILE N IN_FLIGHT SEED: reads N blocks of 4 KiB, none twice, so many
// at a time, and has the kernel forget them. Another seed gives other blocks.
func randomReads(args []string) (values, error) {
	if err := arguments(args, 4); err != nil {
		return nil, err
	}
	n, err := number(args[1])
	if err != nil {
		return nil, err
	}
	inFlight, err := number(args[2])
	if err != nil {
		return nil, err
	}
	seed, err := strconv.ParseUint(args[3], 10, 64)
	if err != nil {
		return nil, err
	}
	f, err := os.Open(args[0])
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	all := rand.New(rand.NewPCG(seed, 0)).Perm(int(st.Size() / block))
	if len(all) < n {
		return nil, fmt.Errorf("%s has %d blocks, not %d", args[0], len(all), n)
	}
	errs := make([]error, inFlight)
	var next atomic.Int64
	v, err := timed(func() error {
		var wg sync.WaitGroup
		for i := range errs {
			wg.Go(func() {
				buf := make([]byte, block)
				for k := int(next.Add(1)) - 1; k < n && errs[i] == nil; k = int(next.Add(1)) - 1 {
					_, errs[i] = f.ReadAt(buf, int64(all[k])*block)
				}
			})
		}
		wg.Wait()
		return errors.Join(errs...)
	})
	return v, errors.Join(err, unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED))
}

// block is what randomReads reads at a time, in bytes.
const block = 4096

// writeFile FILE BYTES: writes a new file in order and closes it, which waits
// until all has arrived.
func writeFile(args []string) (values, error) {
	if err := arguments(args, 2); err != nil {
		return nil, err
	}
	n, err := number(args[1])
	if err != nil {
		return nil, err
	}
	buf := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	return timed(func() error {
		f, err := os.Create(args[0])
		if err != nil {
			return err
		}
		for left := n; left > 0 && err == nil; left -= len(buf) {
			_, err = f.Write(buf[:min(left, len(buf))])
		}
		return errors.Join(err, f.Close())
	})
}

// openTwice FILE: opens, reads and closes a small file, and once more. It gives
// "first" and "again".
func openTwice(args []string) (values, error) {
	if err := arguments(args, 1); err != nil {
		return nil, err
	}
	return twice(func() error {
		b, err := os.ReadFile(args[0])
		if err == nil && len(b) == 0 {
			err = fmt.Errorf("%s is empty", args[0])
		}
		return err
	})
}

// twice gives "first" and "again".
func twice(f func() error) (values, error) {
	first, err := timed(f)
	if err != nil {
		return nil, err
	}
	again, err := timed(f)
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
	v, err := twice(all)
	if err != nil {
		return nil, err
	}
	v["files"] = float64(files)
	return v, nil
}
