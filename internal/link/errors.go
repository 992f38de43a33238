package link

import (
	"fmt"
	"syscall"
)

// ClosedError is why everything on a link fails after its end. It wraps
// ECONNRESET, which is what a program sees whose connection the link carried.
type ClosedError struct {
	// Reason was given to Close; from the other machine if Remote: escape it
	// before printing.
	Reason string
	Remote bool
	// Cause is the pipe's error, nil after an orderly end.
	Cause error
}

func (e *ClosedError) Error() string {
	text := "the link was closed"
	switch {
	case e.Cause != nil:
		return fmt.Sprintf("the link has ended: %v", e.Cause)
	case e.Remote:
		text += " by the other end"
	}
	if e.Reason != "" {
		text += ": " + e.Reason
	}
	return text
}

// Unwrap gives ECONNRESET and the cause.
func (e *ClosedError) Unwrap() []error {
	if e.Cause == nil {
		return []error{syscall.ECONNRESET}
	}
	return []error{syscall.ECONNRESET, e.Cause}
}

// ResetError is why reading and writing a stream fail after Reset at either
// end. It wraps the errno, which came from the other machine if Remote.
type ResetError struct {
	Errno  syscall.Errno
	Remote bool
}

func (e *ResetError) Error() string {
	if e.Remote {
		return fmt.Sprintf("stream reset by the other end: %v", e.Errno)
	}
	return fmt.Sprintf("stream reset: %v", e.Errno)
}

// Unwrap gives the errno.
func (e *ResetError) Unwrap() error { return e.Errno }
