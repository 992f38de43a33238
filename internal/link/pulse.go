package link

// Ping asks the other end for a sign of life, which any does without its users.
// It does not wait.
func (c *Conn) Ping() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		c.pingDue = true
		c.work.Signal()
	}
}

// Heard counts the frames that have come. Where it does not grow though Ping was
// called, the other end does not run, or nothing of it comes through.
func (c *Conn) Heard() uint64 { return c.heard.Load() }
