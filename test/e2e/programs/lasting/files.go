package main

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"math/rand/v2"
	"os"
	"sync"
	"time"
)

const (
	writePause = 100 * time.Millisecond
	syncEvery  = 5 // writes
)

// written is a file that is written piece by piece.
type written struct {
	path string

	mu     sync.Mutex // guards what follows; held while something is written
	f      *os.File
	words  *rand.ChaCha8
	n      int
	size   int64
	digest hash.Hash
	err    error
}

func newWritten(path string, flags int) (*written, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY|flags, 0o644)
	if err != nil {
		return nil, err
	}
	return &written{path: path, f: f, words: rand.NewChaCha8(sha256.Sum256([]byte(path))), digest: sha256.New()}, nil
}

func (w *written) speak() {
	for range time.Tick(writePause) {
		w.mu.Lock()
		w.write()
		if w.n%syncEvery == 0 {
			w.sync()
		}
		w.mu.Unlock()
	}
}

// write and sync are for who holds mu.
func (w *written) write() {
	if w.err != nil {
		return
	}
	w.n++
	b := make([]byte, 1+w.n*997%8191)
	w.words.Read(b)
	n, err := w.f.Write(b)
	w.digest.Write(b[:n])
	w.size += int64(n)
	w.err = err
}

func (w *written) sync() {
	if w.err == nil {
		w.err = w.f.Sync()
	}
}

// settle tells what must be in the file, at its beginning.
func (w *written) settle() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.write()
	w.sync()
	return w.tell("begins")
}

// end tells what must be the whole of the file.
func (w *written) end() string {
	w.mu.Lock() // for good
	w.sync()
	if w.err == nil {
		w.err = w.f.Close()
	}
	return w.tell("is")
}

func (w *written) tell(what string) string {
	if w.err != nil {
		return fmt.Sprintf("written %s: %v", w.path, w.err)
	}
	return fmt.Sprintf("written %s %s %d %x", w.path, what, w.size, w.digest.Sum(nil))
}

// readSlowly reads the whole of a file, slowly until hurry is closed.
func readSlowly(path, sum string, hurry <-chan struct{}) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	digest, buf := sha256.New(), make([]byte, 16<<10)
	for {
		n, err := f.Read(buf)
		digest.Write(buf[:n])
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		select {
		case <-hurry:
		case <-time.After(50 * time.Millisecond):
		}
	}
	if got := hex.EncodeToString(digest.Sum(nil)); got != sum {
		return fmt.Errorf("its sum is %s, not %s", got, sum)
	}
	return nil
}
