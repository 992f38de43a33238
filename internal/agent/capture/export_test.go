package capture

// Unprivileged is a kernel that tells nothing of connection tracking.
func Unprivileged(t *Tap) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.led.tracks = false
}

// Blind is one that lists no sockets either.
func Blind(t *Tap) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.led.tracks, t.led.diagnoses = false, false
}
