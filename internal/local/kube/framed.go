package kube

import (
	"encoding/binary"
	"net"
	"sync"
)

// maxFrame bounds the data of one SPDY frame in bytes: as much as the buffers
// of the WebSocket tunnel hold on the way, and with its header and the message's,
// of as many bytes again, two full TLS records.
const maxFrame = 32<<10 - 2*frameHeader

// frameHeader is the length of the header of every SPDY/3.1 frame; its last
// three bytes are the length of what follows
// (https://www.chromium.org/spdy/spdy-protocol/spdy-protocol-draft3-1/).
const frameHeader = 8

// framed sends each SPDY frame with one Write. The library writes a frame in
// three and more pieces, and each of them would become a WebSocket message, a
// TLS record and a packet of its own, on all legs up to the node.
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
