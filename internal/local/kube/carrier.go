package kube

import (
	"fmt"
	"io"
	"net"
	"time"

	"github.com/gorilla/websocket"
)

// carrier is what takes SPDY's bytes to the API server. send sends a frame, in
// two parts, as one: each would be a WebSocket message, a TLS record and a packet
// of its own, on all legs up to the node. It is for one caller at a time, as Read is.
type carrier interface {
	io.Reader
	send(head, body []byte) error
	Close() error // in an orderly way
	cut()         // now; ends Read, send and Close
}

// bare is a connection that carries SPDY by itself.
type bare struct {
	net.Conn
	frame []byte
}

func (c *bare) send(head, body []byte) error {
	c.frame = append(append(c.frame[:0], head...), body...)
	_, err := c.Conn.Write(c.frame)
	return err
}

func (c *bare) cut() { bottom(c.Conn).Close() }

// tunnel is SPDY inside the messages of a WebSocket, however they are cut.
type tunnel struct {
	ws      *websocket.Conn
	below   *socket
	message io.Reader // what is left of the current one; nil: there is none
}

func (t *tunnel) Read(b []byte) (int, error) {
	for {
		if t.message == nil {
			kind, m, err := t.ws.NextReader()
			switch {
			case websocket.IsCloseError(err, websocket.CloseNormalClosure):
				return 0, io.EOF
			case err != nil:
				return 0, err
			case kind != websocket.BinaryMessage:
				return 0, fmt.Errorf("the API server sent a WebSocket message of type %d", kind)
			}
			t.message = m
		}
		n, err := t.message.Read(b)
		if err == io.EOF {
			t.message, err = nil, nil
			if n == 0 {
				continue
			}
		}
		return n, err
	}
}

func (t *tunnel) send(head, body []byte) error {
	w, err := t.ws.NextWriter(websocket.BinaryMessage)
	if err != nil {
		return err
	}
	if _, err := w.Write(head); err != nil {
		return err
	}
	if _, err := w.Write(body); err != nil {
		return err
	}
	return w.Close()
}

func (t *tunnel) Close() error {
	_ = t.ws.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(websocket.CloseNormalClosure, ""), time.Now().Add(closeTime))
	return t.ws.Close()
}

func (t *tunnel) cut() { bottom(t.below).Close() }
