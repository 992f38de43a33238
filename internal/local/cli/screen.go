package cli

import "os"

const (
	// The terminal's other screen, without a cursor and without breaking long
	// lines (xterm's control sequences); and back.
	enterScreen = "\x1b[?1049h\x1b[?25l\x1b[?7l"
	leaveScreen = "\x1b[?7h\x1b[?25h\x1b[?1049l"
)

// onTerminal calls do with f's descriptor. Fd would make it one that blocks.
func onTerminal(f *os.File, do func(fd int)) {
	if c, err := f.SyscallConn(); err == nil {
		_ = c.Control(func(fd uintptr) { do(int(fd)) })
	}
}
