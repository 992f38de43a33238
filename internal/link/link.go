// Package link carries many streams over one byte pipe between the supervisor
// and the agent, the same code at both ends.
package link

import (
	"context"
	"io"
	"net"
	"syscall"
	"time"

	"github.com/mirrord-go/mirrord/internal/protocol"
)

// Lane says what a stream waits behind.
type Lane uint8

const (
	// Interactive is for control, files, DNS and everything small: its frames
	// go before those of Bulk.
	Interactive Lane = iota
	// Bulk is for the data of connections.
	Bulk
)

// Role decides which stream ids an end uses; the two ends of a link must have
// different roles.
type Role uint8

const (
	// Local is the supervisor's end.
	Local Role = iota
	// Agent is the agent's end.
	Agent
)

// Options of a link. The zero value is good.
type Options struct {
	// Budget is how many bytes this end buffers at most for streams that are
	// not read fast enough. 0 means DefaultBudget.
	Budget int
}

// Conn is one link. Its methods may be called concurrently.
type Conn struct{}

// Stream is one conversation on a link.
type Stream struct{}

// New starts a link on pipe and owns it.
func New(pipe io.ReadWriteCloser, role Role, opts Options) *Conn { panic("stub") }

// Open starts a stream whose first message is m. It does not wait for the
// other end.
func (c *Conn) Open(ctx context.Context, lane Lane, m protocol.Message) (*Stream, error) {
	panic("stub")
}

// Accept waits for a stream that the other end opens and gives its first message.
func (c *Conn) Accept(ctx context.Context) (*Stream, protocol.Message, error) { panic("stub") }

// Call opens an Interactive stream with m as its only message and returns the reply.
func (c *Conn) Call(ctx context.Context, m protocol.Message) (protocol.Message, error) {
	panic("stub")
}

// Close ends the link orderly, telling the other end the reason.
func (c *Conn) Close(reason string) error { panic("stub") }

// Done is closed when the link has ended.
func (c *Conn) Done() <-chan struct{} { panic("stub") }

// Err is why the link ended; nil while it lives.
func (c *Conn) Err() error { panic("stub") }

func (s *Stream) Read(p []byte) (int, error)         { panic("stub") }
func (s *Stream) Write(p []byte) (int, error)        { panic("stub") }
func (s *Stream) Close() error                       { panic("stub") }
func (s *Stream) CloseWrite() error                  { panic("stub") }
func (s *Stream) Reset(errno syscall.Errno) error    { panic("stub") }
func (s *Stream) Send(m protocol.Message) error      { panic("stub") }
func (s *Stream) Receive() (protocol.Message, error) { panic("stub") }
func (s *Stream) Lane() Lane                         { panic("stub") }
func (s *Stream) LocalAddr() net.Addr                { panic("stub") }
func (s *Stream) RemoteAddr() net.Addr               { panic("stub") }
func (s *Stream) SetDeadline(t time.Time) error      { panic("stub") }
func (s *Stream) SetReadDeadline(t time.Time) error  { panic("stub") }
func (s *Stream) SetWriteDeadline(t time.Time) error { panic("stub") }
