// Package datagram says how large the payload of a UDP datagram can be, and lends
// buffers for one: flows are short, many of them one question and its answer.
package datagram

import "sync"

// Max is the largest payload in bytes: its length field counts the header of 8
// (RFC 768). IPv4 allows 20 less.
const Max = 1<<16 - 1 - 8

// Buffer holds any datagram.
type Buffer = [Max]byte

var buffers = sync.Pool{New: func() any { return new(Buffer) }}

// Take gives a buffer, with whatever it held last, until Give.
func Take() *Buffer { return buffers.Get().(*Buffer) }

// Give takes b back; nobody may use it any more.
func Give(b *Buffer) { buffers.Put(b) }
