package rules

import (
	"time"

	"github.com/mirrord-go/mirrord/internal/protocol"
)

// Pattern is a pattern of the user's and where it stands.
type Pattern struct {
	Text string `json:"text"`
	// Origin says for a person where it was written: "feature.fs.local in
	// .mirrord/mirrord.json:12". Empty for a built-in one.
	Origin string `json:"origin,omitempty"`
}

// where is where a pattern was written, or what is said without that.
func (p Pattern) where(otherwise string) string {
	if p.Origin != "" {
		return p.Origin
	}
	return otherwise
}

// EnvOptions say which variables the program gets. The zero value takes what
// the target has except for what is local by nature.
type EnvOptions struct {
	Include  []Pattern          `json:"include,omitempty"` // if not empty, only names that match one
	Exclude  []Pattern          `json:"exclude,omitempty"`
	File     string             `json:"file,omitempty"`     // absolute path of a file of variables (dotenv)
	Mapping  []EnvMapping       `json:"mapping,omitempty"`  // the first that matches counts
	Override map[string]Pattern `json:"override,omitempty"` // values to set whatever the target has
	Unset    []Pattern          `json:"unset,omitempty"`    // names, whatever their case
}

// EnvMapping gives a variable whose name matches another value.
type EnvMapping struct {
	Name  Pattern `json:"name"` // regular expression, unanchored
	Value string  `json:"value"`
}

// Modes of FilesOptions.
const (
	FilesRead               = "read" // the default: read in the target, write here
	FilesWrite              = "write"
	FilesLocal              = "local"
	FilesLocalWithOverrides = "localwithoverrides"
)

// FilesOptions say whose files the program sees. Patterns are regular
// expressions, unanchored, whatever the case.
type FilesOptions struct {
	Mode      string        `json:"mode,omitempty"` // empty: FilesRead
	ReadWrite []Pattern     `json:"read_write,omitempty"`
	ReadOnly  []Pattern     `json:"read_only,omitempty"`
	Local     []Pattern     `json:"local,omitempty"`
	NotFound  []Pattern     `json:"not_found,omitempty"`
	Mapping   []FileMapping `json:"mapping,omitempty"` // the first that matches counts
	// ShowAWS leaves the developer's ~/.aws visible (magic.aws is off).
	ShowAWS bool `json:"show_aws,omitempty"`
	// DNSLocal: the files that say how names resolve are the developer's, because
	// names are (network.dns is off).
	DNSLocal bool `json:"dns_local,omitempty"`
	// HostnameLocal: /etc/hostname is the developer's (hostname is off).
	HostnameLocal bool `json:"hostname_local,omitempty"`
}

// FileMapping gives paths that match another name.
type FileMapping struct {
	Path Pattern `json:"path"`
	To   string  `json:"to"` // with $1, ${name}
}

// Sides of a filter: what is listed goes there, the rest to the other side.
const (
	SideLocal  = "local"
	SideRemote = "remote"
)

// AddressFilter is a list of addresses and the side that it is for. The zero
// value filters nothing.
type AddressFilter struct {
	Side string `json:"side,omitempty"`
	// Entries are [protocol://]address[/prefix][:port] each, or suffix and glob
	// names (*.corp.example).
	Entries []Pattern `json:"entries,omitempty"`
}

// OutgoingOptions say where connections of the program go.
type OutgoingOptions struct {
	TCPLocal        bool          `json:"tcp_local,omitempty"` // outgoing.tcp is off
	UDPLocal        bool          `json:"udp_local,omitempty"` // outgoing.udp is off
	IgnoreLocalhost bool          `json:"ignore_localhost,omitempty"`
	Filter          AddressFilter `json:"filter"`
	// UnixStreams are regular expressions, unanchored, on the names of unix sockets
	// that are the target's: a path, or an abstract name without its NUL.
	UnixStreams []Pattern `json:"unix_streams,omitempty"`
	// DebuggerPorts of localhost are where a debugger waits on this machine:
	// MIRRORD_IGNORE_DEBUGGER_PORTS.
	DebuggerPorts []PortRange `json:"debugger_ports,omitempty"`
}

// DNSOptions say who answers lookups.
type DNSOptions struct {
	Local  bool          `json:"local,omitempty"` // network.dns is off
	Filter AddressFilter `json:"filter"`
}

// Modes of IncomingOptions.
const (
	IncomingMirror = "mirror" // the default
	IncomingSteal  = "steal"
	IncomingOff    = "off"
)

// IncomingOptions say what becomes of ports that the program listens on.
type IncomingOptions struct {
	Mode            string     `json:"mode,omitempty"`         // empty: IncomingMirror
	Ports           []uint16   `json:"ports,omitzero"`         // of the target; if not nil only these
	IgnorePorts     []uint16   `json:"ignore_ports,omitempty"` // of the program
	PortMapping     []PortPair `json:"port_mapping,omitempty"` // From the program's To the target's
	ListenPorts     []PortPair `json:"listen_ports,omitempty"` // From the program's To the published one
	IgnoreLocalhost bool       `json:"ignore_localhost,omitempty"`
	Existing        string     `json:"existing,omitempty"` // connections made before a port is stolen; empty: ExistingIdle
	// DebuggerPorts, of the program, are local: MIRRORD_IGNORE_DEBUGGER_PORTS.
	DebuggerPorts []PortRange `json:"debugger_ports,omitempty"`
	// HTTP is which requests are meant; nil: whole connections.
	HTTP *HTTPOptions `json:"http,omitempty"`
	// LostReply is how many seconds a stolen request waits for a lost link before
	// the agent answers it; 0: as long as the link may come back; nil: the default.
	LostReply *int `json:"lost_reply,omitempty"`
	// Accept is how many seconds a stolen connection waits for the program to accept
	// it before the target gets it; 0: for ever; nil: the default, see AcceptTime.
	Accept *int `json:"accept,omitempty"`
	// Lossless copies by the stealing path: nothing of a mirrored port is lost while
	// there is room for it.
	Lossless bool `json:"lossless,omitempty"`
	// TLS is how connections under TLS are decrypted for HTTP; nil: they are not.
	TLS         *TLS        `json:"tls,omitempty"`
	TLSDelivery TLSDelivery `json:"tls_delivery,omitzero"`
	// Held is HeldContinue, HeldOverride, or empty: listen(2) fails where another
	// session has the port.
	Held string `json:"held,omitempty"`
}

// acceptTime is the default of Accept: a person at a breakpoint takes longer, a
// program that is busy seldom does.
const acceptTime = 10 * time.Second

// AcceptTime is how long a stolen connection waits to be accepted; 0: for ever.
func (o IncomingOptions) AcceptTime() time.Duration {
	if o.Accept == nil {
		return acceptTime
	}
	return time.Duration(*o.Accept) * time.Second
}

// HeldContinue makes a port that another session has local only, HeldOverride
// takes it from that session.
const HeldContinue, HeldOverride = "continue", "override"

// ExistingIdle ends connections that were there between two requests, ExistingAll
// cuts them, ExistingOff leaves them with the target.
const ExistingIdle, ExistingAll, ExistingOff = "idle", "all", "off"

// EndsIdle reports whether connections that were there are ended when they are
// idle.
func (o IncomingOptions) EndsIdle() bool {
	return o.Wants(IncomingSteal) && (o.Existing == "" || o.Existing == ExistingIdle)
}

// Subscribed is what Subscribe.Existing says of it.
func (o IncomingOptions) Subscribed() uint8 {
	switch o.Existing {
	case ExistingOff:
		return protocol.ExistingStay
	case ExistingAll:
		return protocol.ExistingAll
	}
	return protocol.ExistingIdle
}

// Wants reports whether some port may be asked for in a mode: IncomingMirror or
// IncomingSteal. Copies that are Lossless want both, for datagrams are copied as
// ever.
func (o IncomingOptions) Wants(mode string) bool {
	own := o.Mode
	if own == "" {
		own = IncomingMirror
	}
	asked := func(mode string) bool {
		return own == mode || own != IncomingOff && o.HTTP != nil && o.HTTP.OtherPorts == mode
	}
	return asked(mode) || o.Lossless && mode == IncomingSteal && asked(IncomingMirror)
}

// PortPair is one line of a table of ports.
type PortPair struct {
	From uint16 `json:"from"`
	To   uint16 `json:"to"`
}

// PortRange is the ports from First to Last, both included.
type PortRange struct {
	First uint16 `json:"first"`
	Last  uint16 `json:"last"`
}

// has reports whether a port is in the range.
func (r PortRange) has(port uint16) bool { return r.First <= port && port <= r.Last }

// HTTPOptions restrict ports to requests that a filter matches.
type HTTPOptions struct {
	Filter Filter `json:"filter"`
	// Ports of the target that are filtered; nil: every port.
	Ports []uint16 `json:"ports,omitzero"`
	// OtherPorts says what becomes of ports that Ports does not hold: "" leaves
	// them alone, IncomingSteal or IncomingMirror takes them whole.
	OtherPorts string `json:"other_ports,omitempty"`
	// BodySize and BodyTime are how many bytes of a body, and how many milliseconds
	// for it, are waited for where the filter looks at it; 0: the default.
	BodySize int `json:"body_size,omitempty"`
	BodyTime int `json:"body_time,omitempty"`
}
