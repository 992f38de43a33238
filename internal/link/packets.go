package link

import (
	"errors"
	"fmt"
	"syscall"

	"github.com/mirrord-go/mirrord/internal/protocol"
)

// ReceiveDatagram is Receive on a stream of Datagrams. Messages of newer releases
// are left out; any other is EPROTO.
func (s *Stream) ReceiveDatagram() (*protocol.Datagram, error) {
	m, err := s.Receive()
	var newer *protocol.UnknownKindError
	for errors.As(err, &newer) {
		m, err = s.Receive()
	}
	if err != nil {
		return nil, err
	}
	d, ok := m.(*protocol.Datagram)
	if !ok {
		return nil, fmt.Errorf("message %d among those of a socket: %w", m.Kind(), syscall.EPROTO)
	}
	return d, nil
}

// Packets is a stream on which messages of a socket travel, a Datagram each; it
// is closed and reset as the stream.
type Packets struct{ *Stream }

// Receive gives the next message to use, whose it is until it returns. io.EOF:
// there are no more.
func (p Packets) Receive(use func(b []byte) error) error {
	d, err := p.ReceiveDatagram()
	if err != nil {
		return err
	}
	if len(d.Data) == 0 {
		return nil // it would be the end
	}
	return use(d.Data)
}

// Send sends one message.
func (p Packets) Send(b []byte) error { return p.Stream.Send(&protocol.Datagram{Data: b}) }
