package relay

import "syscall"

// rawReads: Windows completes reads that were begun, and has none that do not
// wait.
const rawReads = false

func readSocket(uintptr, []byte) (int, error) { return 0, syscall.EWINDOWS }
