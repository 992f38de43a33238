package cli

import (
	"os"
	"regexp"
	"strconv"

	"golang.org/x/sys/unix"
)

// progressVar names a descriptor for events, as lines of JSON: for programs that
// start mirrord and want them apart from what the command writes.
const progressVar = "MIRRORD_PROGRESS_FD"

// passedProgress takes the descriptor for events, if there is one: the command
// gets neither it nor the variable.
func passedProgress() *os.File {
	text := os.Getenv(progressVar)
	os.Unsetenv(progressVar)
	fd, err := strconv.Atoi(text)
	if err != nil || fd <= 2 {
		return nil
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, unix.FD_CLOEXEC); err != nil {
		return nil
	}
	return os.NewFile(uintptr(fd), "progress")
}

// descriptor is a file's name that means a descriptor of this process.
var descriptor = regexp.MustCompile(`^/(?:dev|proc/self)/fd/([0-9]+)$`)

// read reads a file. A descriptor is for mirrord then, and not for the command:
// it is closed, and what it held is remembered, since a pipe says it once.
func (a *app) read(name string) ([]byte, error) {
	m := descriptor.FindStringSubmatch(name)
	if m == nil {
		return os.ReadFile(name)
	}
	if text, ok := a.passed[name]; ok {
		return text, nil
	}
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	if a.passed == nil {
		a.passed = map[string][]byte{}
	}
	a.passed[name] = text
	if fd, err := strconv.Atoi(m[1]); err == nil && fd > 2 {
		unix.Close(fd) // nobody else here has it: what Go opens is no name of the user's
	}
	return text, nil
}
