//go:build !linux

package roster

import (
	"errors"
	"net"
)

// Sorts of sockets.
const (
	Kept    = "kept"
	Running = "running"
)

// errNowhere: who is at the other end of a socket is asked in the way of Linux, and
// without knowing it there is no meeting.
var errNowhere = errors.New("on this system sessions cannot be met")

// Dirs are none.
func Dirs(func(string) string, string) []string { return nil }

// Host is the door of a session: there is none.
type Host struct{}

// Open fails.
func Open([]string, string) (*Host, error) { return nil, errNowhere }

// ID is empty.
func (*Host) ID() string { return "" }

// Accept fails.
func (*Host) Accept() (*net.UnixConn, error) { return nil, errNowhere }

// Close does nothing.
func (*Host) Close() error { return nil }

// Sweep finds nothing.
func Sweep([]string, string) {}
