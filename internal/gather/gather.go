// Package gather makes one Write of many: what a layer such as TLS writes in
// pieces, while its user gives it one thing to send, goes to the layer below at
// once.
//
// Package link/seal and the port-forward of local/kube use it below crypto/tls,
// which writes record by record: each would be a system call, and a packet or a
// message of its own on all that lies between the two machines.
package gather

import (
	"io"
	"sync"
)

// Writer writes to an io.Writer, or holds what it is given. Its methods may be
// called concurrently; Hold and Flush are for one caller at a time.
type Writer struct {
	to  io.Writer
	max int

	mu      sync.Mutex // guards what follows, and is held while to is written to
	holding bool
	held    []byte
}

// New makes a Writer that holds at most so many bytes: with more it writes what
// it has.
func New(to io.Writer, max int) *Writer { return &Writer{to: to, max: max} }

// Write sends b, or keeps a copy until Flush. Between Hold and Flush that is also
// what others write, so that everything stays in its order.
func (w *Writer) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.holding {
		return w.to.Write(b)
	}
	if len(w.held)+len(b) > w.max {
		if err := w.send(); err != nil {
			return 0, err
		}
	}
	w.held = append(w.held, b...)
	return len(b), nil
}

// Hold has Write keep what it is given until Flush.
func (w *Writer) Hold() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.holding = true
}

// Flush sends what is held.
func (w *Writer) Flush() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.holding = false
	return w.send()
}

// send writes what is held; nothing is not written. mu is held.
func (w *Writer) send() error {
	if len(w.held) == 0 {
		return nil
	}
	_, err := w.to.Write(w.held)
	w.held = w.held[:0]
	return err
}
