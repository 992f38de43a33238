package kube

import (
	"encoding/binary"
	"net"
	"sync"
)

// framed is how a made API server sends each SPDY frame of the library, which writes
// a frame in three and more pieces, as one message: as between a node and an API
// server they come together again.
//
// Write must be called with the bytes of whole frames in order, from one
// goroutine at a time, as the library does under its lock.
type framed struct {
	net.Conn
	frame []byte // what was written of the frame so far
	once  sync.Once
}

// Close closes the connection, once: the library and the pipe both do. Its
// error says nothing that matters any more, and the library would keep a
// goroutine for a second to tell it.
func (f *framed) Close() error {
	f.once.Do(func() { _ = f.Conn.Close() })
	return nil
}

func (f *framed) Write(b []byte) (int, error) {
	n := len(b)
	f.frame = append(f.frame, b...)
	for {
		size := frameHeader
		if len(f.frame) >= frameHeader {
			size += int(binary.BigEndian.Uint32(f.frame[4:8]) & (1<<24 - 1))
		}
		if len(f.frame) < size {
			return n, nil
		}
		if _, err := f.Conn.Write(f.frame[:size]); err != nil {
			return 0, err
		}
		f.frame = append(f.frame[:0], f.frame[size:]...)
	}
}
