// Package http2 divides one client's connection of HTTP/2 by its streams among
// servers.
//
// A Hop is the state of such a connection: it is a server to the client and a
// client to each server, one connection each. Whose a stream is says its
// owner, by the request's head, and where that does not decide by its body.
// Header blocks are encoded anew for each connection, since their compression is
// the connection's (RFC 9113 §4.3); fields, their order, names, values and which
// of them are never to be indexed stay as they are. Frames are cut anew,
// padding and priorities end here, everything else passes: bodies, trailers,
// interim replies, ends and resets of streams with their codes. What a request
// or a reply means is not judged, whoever gets it does that.
//
// A Hop knows no sockets and starts no goroutine but timers, for bodies that are
// waited for and windows that stay closed, which Wait waits for: its owner gives it
// what it reads (Peer.Receive), and writes what it is given (Peer.Next). All methods
// may be called concurrently, but for Receive of one Peer.
//
// A Mirror gives a second server some of the requests that a client makes of another,
// which nobody is to notice (mirror.go).
//
// What others can make it hold is bounded. A stream's window is 64 KiB, and is
// opened again as the other side takes data, so that who does not read stops who
// sends to him, and nobody else: a connection's window is opened again at once,
// as long as there is memory for what waits; without, no program may keep the
// others' requests from coming for long (relieve). Streams, header lists and control
// frames that are not read have their limits below (RFC 9113 §10.5).
package http2

import (
	"errors"
	"fmt"
	"time"
)

// What is held for others, in bytes or pieces.
const (
	// maxFrame is the longest payload of a frame, either way: the least that
	// everybody takes, and the most that everybody sends unasked (RFC 9113 §4.2).
	maxFrame = 16 << 10
	// window is the first window of each stream and connection (RFC 9113 §6.9.2),
	// which needs no agreement.
	window = 1<<16 - 1
	// Chunk is how much memory a connection takes at a time for what waits beyond
	// one window.
	Chunk = 64 << 10
	// maxStreams is how many streams a client may have at once: more than the
	// hundred that the RFC recommends to allow, so that few clients open more
	// connections because of us.
	maxStreams = 1024
	// maxExtra is how much memory a connection takes so for what waits.
	maxExtra = 1 << 20
	// streamCost is what a stream is counted as, besides its header lists and bodies.
	// spare of it is for lists that come when there is no other memory: what a
	// server has done already must not be lost for want of it.
	streamCost = 4 << 10
	spare      = 3 << 10
	// reserve is for such lists of a server's that are longer: so much of them may wait
	// to go on. Servers commonly limit a reply's header to 8 or 16 KiB.
	reserve = 32 << 10
	// maxBlock is the longest header block as sent, and maxList the longest list of
	// fields as RFC 9113 §6.5.2 counts them: some servers take 1 MiB, most clients
	// send less than 8 KiB.
	maxBlock = 128 << 10
	maxList  = 256 << 10
	// maxPieces is in how many frames a header block may come: a longest one and
	// some that are small. Who sends more sends empty ones.
	maxPieces = 64
	// maxTable is how much either side's compression may remember.
	maxTable = 4 << 10
	// maxControl is how much may wait to be read by a peer besides streams: answers
	// to PING and SETTINGS, resets, windows. A peer that asks more and reads nothing
	// is cut off.
	maxControl = 64 << 10
	// maxSettings is how many settings a frame may have: there are some ten.
	maxSettings = 64
	// maxInterim is how many header blocks of one stream may wait: a reply has one, its
	// trailers, and seldom more than one interim before.
	maxInterim = 16
	// maxTries is how many connections to a server are tried for a stream that none
	// has taken.
	maxTries = 3
	// batch is how much is written at a time, about.
	batch = 32 << 10
	maxID = 1<<31 - 1
	// stallTime is how long a client's window may stay closed for what a program does
	// not take, while others wait for requests: one that takes 16 KiB in it opens it
	// again.
	stallTime = time.Second
)

// What a connection costs its owner besides what Options.Memory counts: what the
// client and one server may send unasked, their frames, compression and batches; and
// the same for each further server.
const (
	Cost       = 2*ServerCost - reserve
	ServerCost = window + maxFrame + 2*maxTable + batch + reserve
)

// Code is why a stream or a connection ends (RFC 9113 §7).
type Code uint32

// Those that are used here.
const (
	NoError          Code = 0x0
	ProtocolError    Code = 0x1
	InternalError    Code = 0x2
	FlowControlError Code = 0x3
	StreamClosed     Code = 0x5
	FrameSizeError   Code = 0x6
	RefusedStream    Code = 0x7
	Cancel           Code = 0x8
	CompressionError Code = 0x9
	EnhanceYourCalm  Code = 0xb
)

// ErrNotHTTP2: a server does not begin as one of HTTP/2.
var ErrNotHTTP2 = errors.New("it does not speak HTTP/2")

// ConnError is what a peer has done that ends its connection.
type ConnError struct {
	Code Code
	Why  string
}

func (e *ConnError) Error() string { return fmt.Sprintf("HTTP/2: %s (code %d)", e.Why, e.Code) }

// wrong makes a ConnError.
func wrong(code Code, why string) error { return &ConnError{code, why} }

// streamError ends a stream.
type streamError struct{ code Code }

func (e streamError) Error() string { return fmt.Sprintf("HTTP/2: stream error %d", e.code) }
