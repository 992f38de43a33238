package config

import (
	"cmp"
	"strings"

	"github.com/mirrord-go/mirrord/internal/rules"
)

func (b *builder) network() {
	c := &b.cfg
	c.IPv6Off = !b.yes("feature.network.ipv6", true)
	b.incoming()
	c.Outgoing = rules.OutgoingOptions{
		TCPLocal: !b.yes("feature.network.outgoing.tcp", true), UDPLocal: !b.yes("feature.network.outgoing.udp", true),
		IgnoreLocalhost: b.yes("feature.network.outgoing.ignore_localhost", false), Filter: b.filter("feature.network.outgoing.filter"),
		UnixStreams: b.patterns("feature.network.outgoing.unix_streams"),
	}
	c.DNS = rules.DNSOptions{Local: !b.yes("feature.network.dns.enabled", true), Filter: b.filter("feature.network.dns.filter")}
	dns := c.DNS.Filter.Side
	switch {
	case c.DNS.Local && dns != "":
		b.notes.warn("feature.network.dns.filter does nothing: names resolve on this machine (%s)", b.about("feature.network.dns.enabled"))
	case dns != "" && len(c.DNS.Filter.Entries) == 0:
		b.notes.warn("feature.network.dns.filter.%s is empty: all names resolve on the other side", dns)
	}
	if c.DNS.Local && c.Outgoing.Filter.Side == rules.SideRemote {
		b.notes.warn("names in feature.network.outgoing.filter.remote are resolved on this machine (%s)", b.about("feature.network.dns.enabled"))
	}
	if c.DNS.Local {
		return
	}
	var opposite []string
	c.DNS.Filter, opposite = copyNames(c.Outgoing.Filter, c.DNS.Filter)
	for _, name := range opposite {
		b.notes.warn("%s is in feature.network.outgoing.filter.%s and in feature.network.dns.filter.%s: it resolves on one side and is called from the other",
			name, c.Outgoing.Filter.Side, c.DNS.Filter.Side)
	}
}

// filter reads an address filter, which has one side at most.
func (b *builder) filter(name string) rules.AddressFilter {
	local, remote := join(name, rules.SideLocal), join(name, rules.SideRemote)
	if b.has(local) && b.has(remote) {
		b.refuse(remote, "a filter lists one side, what is not listed goes to the other; there is %s already", b.about(local))
	}
	for _, side := range []string{rules.SideLocal, rules.SideRemote} {
		key := join(name, side)
		if !b.has(key) {
			continue
		}
		f := rules.AddressFilter{Side: side, Entries: b.patterns(key)}
		if len(f.Entries) == 0 && strings.HasPrefix(name, "feature.network.outgoing.") {
			b.refuse(key, "found an empty list; leave the filter out, or name an address")
		}
		return f
	}
	return rules.AddressFilter{}
}

// copyNames gives the names of an outgoing filter to the same side of the
// filter of lookups, since a name that resolves on one side has no meaning on
// the other. A local filter is made if there is none; a remote one would turn
// all other names local, so names are only added to one that is there.
// opposite are the names that the other side of the filter of lookups has.
func copyNames(out, dns rules.AddressFilter) (_ rules.AddressFilter, opposite []string) {
	has := func(name string) bool {
		for _, e := range dns.Entries {
			if host, _ := hostName(e.Text); host == name {
				return true
			}
		}
		return false
	}
	dns.Entries = append([]rules.Pattern(nil), dns.Entries...)
	for _, e := range out.Entries {
		name, ok := hostName(e.Text)
		switch {
		case !ok:
		case dns.Side != "" && dns.Side != out.Side:
			if has(name) {
				opposite = append(opposite, name)
			}
		case dns.Side == "" && out.Side == rules.SideRemote || has(name):
		default:
			dns.Side = out.Side
			dns.Entries = append(dns.Entries, rules.Pattern{Text: name, Origin: e.Origin})
		}
	}
	return dns, opposite
}

const incomingKey = "feature.network.incoming."

func (b *builder) incoming() {
	in := &b.cfg.Incoming
	in.Mode = b.text(incomingKey + "mode")
	in.Ports = b.ports(incomingKey + "ports")
	in.IgnorePorts = b.ports(incomingKey + "ignore_ports")
	in.IgnoreLocalhost = b.yes(incomingKey+"ignore_localhost", false)
	if b.has(incomingKey+"ports") && len(in.Ports) == 0 {
		b.refuse(incomingKey+"ports", `found an empty list, which means no port at all; write "incoming": false for that`)
	}
	if b.has(incomingKey+"ports") && len(in.IgnorePorts) > 0 {
		b.refuse(incomingKey+"ignore_ports", "ports can be listed or ignored, not both; the other is %s", b.about(incomingKey+"ports"))
	}
	b.cfg.OneReplica = b.text(incomingKey+"replicas") == "one"
	if flush := b.text(flushKey); flush != rules.ExistingIdle {
		in.Existing = flush
	}
	in.PortMapping = b.pairs(incomingKey + "port_mapping")
	in.ListenPorts = b.pairs(incomingKey + "listen_ports")
	if key := incomingKey + "lost_reply_timeout"; b.has(key) {
		in.LostReply = new(int(b.values[key].node.Int))
	}
	if key := incomingKey + "accept_timeout"; b.has(key) {
		in.Accept = new(int(b.values[key].node.Int))
	}
	if key := incomingKey + "lossless"; b.yes(key, false) {
		if mode := b.text(incomingKey + "mode"); mode != "" && mode != rules.IncomingMirror {
			b.refuse(key, "it is about copies, and feature.network.incoming is %s, not mirror (%s)", mode, b.about(incomingKey+"mode"))
		}
		in.Lossless = true
	}
	if held := b.text(incomingKey + "on_concurrent_steal"); held == rules.HeldContinue || held == rules.HeldOverride {
		in.Held = held
	}
	b.tls()
	b.tlsDelivery()
	filter := b.httpFilter()
	if in.TLS != nil {
		b.tlsInVain(filter != nil)
	}
	if filter == nil {
		for _, key := range []string{"ports", "other_ports"} {
			if name := incomingKey + "http_filter." + key; b.has(name) && len(b.list) == 0 {
				b.notes.warn("%s does nothing without a filter (%s)", name, b.about(name))
			}
		}
		return
	}
	in.HTTP = &rules.HTTPOptions{Filter: *filter, Ports: b.ports(incomingKey + "http_filter.ports")}
	if b.has(incomingKey+"http_filter.ports") && len(in.HTTP.Ports) == 0 {
		b.refuse(incomingKey+"http_filter.ports", "found an empty list; leave it out to filter every port")
	}
	in.HTTP.BodySize = b.waited("agent.max_body_buffer_size")
	in.HTTP.BodyTime = b.waited("agent.max_body_buffer_timeout")
	if other := b.text(incomingKey + "http_filter.other_ports"); other != rules.IncomingOff {
		in.HTTP.OtherPorts = other
	}
}

// waited is a bound of what is waited for of a body; 0: the default.
func (b *builder) waited(name string) int {
	if !b.has(name) {
		return 0
	}
	n := int(b.values[name].node.Int)
	if n == 0 {
		b.refuse(name, "found 0, with which no body would ever be looked at")
	}
	return n
}

func (b *builder) ports(name string) []uint16 {
	if !b.has(name) {
		return nil
	}
	list := []uint16{}
	for _, item := range items(b.values[name].node) {
		list = append(list, uint16(item.Int))
	}
	return list
}

// pairs reads a table of ports, in which each side has a port once.
func (b *builder) pairs(name string) []rules.PortPair {
	if !b.has(name) {
		return nil
	}
	v := b.values[name]
	var list []rules.PortPair
	for _, item := range v.node.Items {
		p := rules.PortPair{From: uint16(item.Items[0].Int), To: uint16(item.Items[1].Int)}
		for _, old := range list {
			if old.From == p.From || old.To == p.To {
				b.add(v.from, item.Place, name, "[%d, %d] stands against [%d, %d]: a port can be in one pair only", p.From, p.To, old.From, old.To)
			}
		}
		if p.From == p.To {
			b.notes.warn("%s: [%d, %d] does nothing (%s:%d)", name, p.From, p.To, v.from.name, item.Place.Line)
		}
		list = append(list, p)
	}
	return list
}

const tlsKey = incomingKey + "tls."

// tls reads with which files of the target's its TLS is taken off.
func (b *builder) tls() {
	if !b.has(tlsKey + "certificate") {
		for _, key := range []string{"key", "client_ca", "client_certificate", "client_key"} {
			if b.has(tlsKey + key) {
				b.refuse(tlsKey+key, "it needs %scertificate, the file in the target that has its server's certificate", tlsKey)
			}
		}
		return
	}
	t := &rules.TLS{ClientCA: b.text(tlsKey + "client_ca"), ClientCertificate: b.text(tlsKey + "client_certificate"), ClientKey: b.text(tlsKey + "client_key")}
	for name, list := range map[string]*[]string{"certificate": &t.Certificates, "key": &t.Keys} {
		for _, p := range b.patterns(tlsKey + name) {
			*list = append(*list, p.Text)
		}
	}
	if err := t.Check(); err != nil {
		b.refuse(tlsKey+"certificate", "%v", err)
		return
	}
	b.cfg.Incoming.TLS = t
}

// tlsInVain tells where nothing is taken off.
func (b *builder) tlsInVain(filtered bool) {
	in := &b.cfg.Incoming
	switch {
	case in.Mode != rules.IncomingSteal:
		b.notes.warn("%scertificate does nothing: TLS is taken off what is stolen, and feature.network.incoming is %s", tlsKey, cmp.Or(in.Mode, rules.IncomingMirror))
	case !filtered && !in.TLSDelivery.Plain:
		b.notes.warn("%scertificate does nothing without a filter of requests, or tls_delivery.protocol tcp: stolen TLS reaches the program as its client sent it, still encrypted", tlsKey)
	}
}

// tlsDelivery reads how the program gets what was under TLS.
func (b *builder) tlsDelivery() {
	d := &b.cfg.Incoming.TLSDelivery
	given := false
	for _, section := range []string{incomingKey + "tls_delivery", incomingKey + "https_delivery"} {
		if given = given || b.hasSection(section); !b.hasSection(section) {
			continue
		}
		roots, cert := section+".trust_roots", section+".server_cert"
		if b.has(roots) && len(items(b.values[roots].node)) == 0 {
			b.refuse(roots, "found an empty list; leave it out to trust any certificate")
		}
		if b.has(roots) && b.has(cert) {
			b.refuse(cert, "a certificate or those that may sign it, not both; there is %s", b.about(roots))
		}
		*d = rules.TLSDelivery{Plain: b.text(section+".protocol") == "tcp", ServerCert: b.path(cert), ServerName: b.text(section + ".server_name")}
		for _, p := range b.patterns(roots) {
			d.TrustRoots = append(d.TrustRoots, b.onDisk(p.Text))
		}
	}
	for _, key := range []string{"protocol", "trust_roots", "server_name", "server_cert"} {
		old := incomingKey + "https_delivery." + key
		if b.has(old) && b.hasSection(incomingKey+"tls_delivery") {
			b.refuse(old, "https_delivery is the old name of tls_delivery, and both are there; leave it out")
			return
		}
	}
	if given && b.cfg.Incoming.TLS == nil && !b.has(tlsKey+"certificate") {
		b.notes.warn("%stls_delivery does nothing without %scertificate, a file in the target: stolen TLS reaches the program as its client sent it, still encrypted", incomingKey, tlsKey)
	}
}

// hasSection reports whether a key of the section was given.
func (b *builder) hasSection(name string) bool {
	for _, key := range b.children[name] {
		if b.has(join(name, key)) {
			return true
		}
	}
	return false
}
