package incoming

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"time"

	"github.com/mirrord-go/mirrord/internal/agent/tlsport"
	"github.com/mirrord-go/mirrord/internal/relay"
)

// This file is about connections under TLS: what is known of one before anything is
// answered, and how TLS is taken off it for a session that asks for that.

// sharedKeys are those of so many rules.
type sharedKeys struct {
	*tlsport.Keys
	rules int
}

// takeKeys gives r its keys; false: there is no memory for them.
func (h *Hub) takeKeys(r *rule) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := h.keys[r.tls]
	if s == nil {
		if !h.o.Memory.Wishes.Take(tlsport.KeysCost) {
			return false
		}
		s = &sharedKeys{Keys: tlsport.NewKeys(r.files, h.o.ReadFile)}
		h.keys[r.tls] = s
	}
	s.rules++
	r.keys = s.Keys
	return true
}

// giveKeys ends takeKeys.
func (h *Hub) giveKeys(r *rule) {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := h.keys[r.tls]
	if s == nil {
		return
	}
	if s.rules--; s.rules == 0 {
		delete(h.keys, r.tls)
		h.o.Memory.Wishes.Give(tlsport.KeysCost)
	}
}

// greets reports whether it matters how the clients of a port begin.
func (h *Hub) greets(k key) bool {
	return slices.ContainsFunc(h.recipients(k), func(to recipient) bool { return to.rule.keys != nil || to.rule.asksServerName() })
}

// greet looks how the client of c begins, which may say nothing for silence.
func (h *Hub) greet(c *conn, silence time.Duration) {
	hello, said, err := tlsport.Greet(c.Conn, silence)
	c.greeted, c.hello = true, hello
	c.Conn = &again{c.Conn, said, err}
}

// serverName is whom the client of c asks for; nil: it is not known yet.
func (c *conn) serverName() *string {
	name := ""
	switch {
	case !c.greeted:
		return nil
	case c.hello != nil:
		name = c.hello.ServerName
	}
	return &name
}

// opener is the rule that wants c decrypted; nil: nobody's does. to and decided are what
// whose says of it.
func (h *Hub) opener(c *conn, to *recipient, decided bool) *rule {
	switch {
	case c.hello == nil:
	case decided && to != nil && to.rule.keys != nil && to.rule.always:
		return to.rule
	case !decided:
		for _, to := range h.recipients(c.key) {
			if to.rule.keys != nil {
				return to.rule
			}
		}
	}
	return nil
}

// among are the recipients of what comes on c: of a connection that is decrypted, those
// who have asked for that, with the same files.
func (h *Hub) among(c *conn) []recipient {
	all := h.recipients(c.key)
	if c.terms == nil {
		return all
	}
	return slices.DeleteFunc(all, func(to recipient) bool { return to.rule.tls != c.files })
}

// decrypt takes TLS off c, as r says; false: it stays, and c has been dealt with.
func (h *Hub) decrypt(ctx context.Context, c *conn, r *rule) bool {
	longer, done := outlast(ctx, always)
	defer done()
	asking, cancel := context.WithTimeout(longer, originalTime)
	defer cancel()
	terms, err := r.keys.Ask(asking, c.hello, func(ctx context.Context) (net.Conn, error) { return h.o.Original(ctx, c.peer, c.local) })
	if err != nil { // the client has heard nothing yet
		h.tellStays(c, r, err)
		h.pass(ctx, c, c)
		return false
	}
	client, err := terms.Accept(longer, c.Conn)
	if err != nil {
		relay.Reset(c, err)
		return false
	}
	c.Conn, c.terms, c.files = client, terms, r.tls
	if terms.Anonymous() {
		h.pass(ctx, c, c)
		return false
	}
	h.tellOthers(c)
	return true
}

// tellStays tells those who have asked for it why a connection is not decrypted.
func (h *Hub) tellStays(c *conn, r *rule, err error) {
	var stays *tlsport.StaysError
	if !errors.As(err, &stays) { // it is the server's own word, and the client gets it
		return
	}
	port := c.key.port
	code, help := "", ""
	switch stays.Reason {
	case tlsport.NoKeys:
		code, help = "tls-keys", "; correct feature.network.incoming.tls, or see that the target's process may read them"
	case tlsport.Mismatch:
		code, help = "tls-mismatch", "; name the certificate that it shows in feature.network.incoming.tls.certificate"
	case tlsport.AsksClient:
		code, help = "tls-client-certificates", "; name who signs them in feature.network.incoming.tls.client_ca, and what the server is to be shown instead in client_certificate"
	case tlsport.Unfit:
		code = "tls-unfit"
	}
	for _, to := range h.recipients(c.key) {
		if to.rule.tls == r.tls {
			h.tell(to.guest, port, code, fmt.Sprintf("port %d: connections under TLS stay encrypted, with the target: %v%s", port, err, help))
		}
	}
}

// tellOthers tells those who get nothing of a connection that is decrypted for others.
func (h *Hub) tellOthers(c *conn) {
	port := c.key.port
	for _, to := range h.recipients(c.key) {
		if to.rule.tls != c.files {
			h.tell(to.guest, port, "tls-other-files", fmt.Sprintf("port %d: its connections under TLS are decrypted for another session, which began first and names other files than yours in feature.network.incoming.tls: name the same files to get requests of them", port))
		}
	}
}
