//go:build !linux

package relay

// isClosed is false: nobody can tell.
func isClosed(Conn) bool { return false }
