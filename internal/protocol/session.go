package protocol

import (
	"fmt"
	"net/netip"
	"syscall"
)

// Numbers of the kinds. Files have 32 to 63.
const (
	KindHello Kind = 1 + iota
	KindWelcome
	KindAnswer
	KindEnvRequest
	KindEnv
	KindNotice
	KindDial
	KindDatagram
	KindSubscribe
	KindIncoming
	KindBye
	KindLookup
	KindLost
	KindJoin
	KindCountsRequest
	KindCounts
	KindProfile
)

// Cause says why something could not be done where an errno does not say it.
// Causes are only ever appended.
type Cause uint16

const (
	// CauseNone: the errno says all.
	CauseNone Cause = iota
	// CauseVersion: no common protocol version.
	CauseVersion
	// CauseTarget: the target's process cannot be found or entered.
	CauseTarget
	// CauseUnsupported: the agent knows no such request.
	CauseUnsupported
	// CauseDenied: the agent lacks a capability for the request, or the target
	// forbids it. Text names it.
	CauseDenied
	// CauseHeld: another session holds the port. Text names it.
	CauseHeld
	// CauseTaken, of the Answer that is the last word on the stream of a Subscribe:
	// another session has taken the port over. Text names it.
	CauseTaken
)

// Hello is the first message of a link, from local to agent, on a stream that
// stays open as the session's control stream. The reply is Welcome or Answer.
type Hello struct {
	Min, Max uint32 // protocol versions that the sender speaks
	Software string // "mirrord 0.1.0 linux/amd64", for people
	Session  string // random id of the session
	User     string // "user@host" of the developer, for others on the same target
}

// Welcome answers Hello and describes the target.
type Welcome struct {
	Version    uint32 // of the session
	Software   string
	Hostname   string
	Addrs      []netip.Prefix // the target's own addresses, loopback and link-local left out
	Mounts     []string       // mount points of the target's volumes, absolute paths
	UID, GID   uint32         // of the target's process
	Dir        string         // its working directory
	Targetless bool           // the agent's own container stands for the target
	Features   []string       // what this agent can do here: see the Feature constants
	// SYNRetries and SYNLinear are tcp_syn_retries and tcp_syn_linear_timeouts of
	// the target's network: how long its kernel waits for a peer that says nothing.
	// Retries 0, which no kernel has: the agent does not say.
	SYNRetries, SYNLinear uint8
}

// Features of an agent. What is absent from Welcome is refused with
// CauseDenied; the reason comes as a Notice.
const (
	FeatureFiles  = "files"
	FeatureMirror = "mirror"
	FeatureSteal  = "steal"
	// FeatureHTTPFilter: Subscribe.Filter and Subscribe.Probes count.
	FeatureHTTPFilter = "http-filter"
	// FeatureHostFilter: a filter may have hosts.
	FeatureHostFilter = "host-filter"
	// FeatureClientFilter: a filter may have clients.
	FeatureClientFilter = "client-filter"
	// FeatureSNIFilter: a filter may have names of TLS servers.
	FeatureSNIFilter = "sni-filter"
	// FeatureTLS: Subscribe.TLS counts.
	FeatureTLS = "tls"
	// FeatureBodyFilter: a filter may have bodies and programs of jq, and
	// Subscribe.BodySize and BodyTime count.
	FeatureBodyFilter = "body-filter"
	// FeatureUnix: Dial with NetworkUnix and NetworkUnixPacket.
	FeatureUnix = "unix-sockets"
	// FeatureLookups: Lookup is answered. Without it lookups are Datagrams of a Dial.
	FeatureLookups = "lookups"
	// FeatureCounts: CountsRequest is answered.
	FeatureCounts = "counts"
	// FeatureUDP: Subscribe has ModeUDP.
	FeatureUDP = "udp-ports"
	// FeatureTee: ModeTee.
	FeatureTee = "tee"
)

// Answer is the reply to a request that has no richer one, and to any request
// that fails. Errno 0 with CauseNone means yes.
type Answer struct {
	Errno syscall.Errno // Linux number, what the target's kernel said
	Cause Cause
	Text  string         // for a person; empty where the errno says all
	Addr  netip.AddrPort // Dial: the local address of the connection made in the target
}

// Err is nil for yes, otherwise an error that wraps Errno (EIO if there is
// none) and holds the answer.
func (a *Answer) Err() error {
	if a.Errno == 0 && a.Cause == CauseNone {
		return nil
	}
	return &AnswerError{Answer: *a}
}

// AnswerError is the error form of an Answer that is not yes.
type AnswerError struct{ Answer Answer }

func (e *AnswerError) Error() string {
	if e.Answer.Text != "" {
		return e.Answer.Text
	}
	if e.Answer.Errno != 0 {
		return e.Answer.Errno.Error()
	}
	return fmt.Sprintf("refused, cause %d", e.Answer.Cause)
}

// Unwrap gives the errno that a program should see.
func (e *AnswerError) Unwrap() error {
	if e.Answer.Errno == 0 {
		return syscall.EIO
	}
	return e.Answer.Errno
}

// EnvRequest asks for the environment of the target's process. The reply is
// Env or Answer.
type EnvRequest struct{}

// Env holds "NAME=value" strings as the kernel has them, in its order.
type Env struct{ Vars []string }

// Notice tells local something worth showing to the developer. It comes from
// the agent on the control stream.
type Notice struct {
	Code string // stable, lower-case words with dashes
	Text string
}

// Lost tells what of the target's traffic could not be mirrored since the
// beginning of the session. It comes from the agent on the control stream when
// that has grown.
type Lost struct {
	Packets uint64 // that the kernel had no room for
	Copies  uint64 // of connections, that were not made or are not whole
}

// Join is the first message between the agents of two sessions on one target:
// the one asks the other, which holds Port, for its requests. The reply is an
// Answer. The stream stays open for Notices; from then on the one that asks is to
// the other what local is to an agent, as far as Subscribe and Incoming go.
type Join struct {
	Port   uint16
	Holder string // who the session belongs to, for people
	Began  uint64 // when the session began, in nanoseconds since 1970 by the node's clock
}

// CountsRequest asks what has become of what reached the target's subscribed
// ports. The reply is Counts or Answer.
type CountsRequest struct{}

// Counts are since the beginning of the session. A request of HTTP/1 under a
// filter counts by itself, everything else by connections. It also comes from the
// agent on the control stream, when it has grown.
type Counts struct {
	Passed   uint64 // to the target, because they are not the session's
	Returned uint64 // to the target, because no program had them
	Refused  uint64 // by local, and could not be returned
	Packets  uint64 // as in Lost
	Copies   uint64 // as in Lost
	Ended    uint64 // connections from before, by Subscribe.Existing
}

// Profile asks what Go's profiler sees of the agent: which kind, by the names that
// go tool pprof asks for, and for how long one of the processors' time looks. The
// reply is an Answer, and then, if that is yes, the profile as bytes to the stream's
// end.
type Profile struct {
	Name    string
	Seconds uint16
}

// Bye is the last message on the control stream, from either side: the session
// ends for the reason in Text (empty: as asked).
type Bye struct {
	Code string
	Text string
}

// Network of a Dial.
const (
	NetworkTCP        uint8 = 1
	NetworkUDP        uint8 = 2
	NetworkPing       uint8 = 3
	NetworkUnix       uint8 = 4 // a unix socket, SOCK_STREAM
	NetworkUnixPacket uint8 = 5 // the same, SOCK_SEQPACKET
)

// Dial asks the agent to connect from the target's network. The reply is an
// Answer. After yes a TCP stream carries the connection's bytes both ways,
// with half-close as on the connection and a reset for a reset; a UDP stream
// carries Datagrams both ways until either side closes it. One of NetworkPing
// does the same with ICMP echo requests and their replies: whole messages, with
// an identifier and a checksum that mean nothing. The port is 0 there.
//
// For unix sockets there is no Addr but a Name; the stream of a NetworkUnix is
// like that of TCP, but that nothing tells a reset from an end in the target. On
// one of NetworkUnixPacket each message is a Datagram, and an end of a direction
// is a half-close.
type Dial struct {
	Network uint8
	Addr    netip.AddrPort
	// Name is an absolute path in the target, of 4,095 bytes at most, or NUL and an
	// abstract name as sun_path has it (unix(7)), of 108 together.
	Name string
	// Wait: as for a blocking socket, the dial waits for room in the queue of a
	// busy server, which is EAGAIN otherwise.
	Wait bool
}

// Datagram is one datagram of a UDP Dial, or a message of a NetworkUnixPacket; on an error that the socket reported
// instead (port unreachable), Errno is set and Data empty.
type Datagram struct {
	Data  []byte
	Errno syscall.Errno
}

// Lookup sends one datagram, a DNS message, to a name server from the target's
// network, by a socket of its own. The reply is a Datagram: the server's reply,
// which has the same id, or the errno that the socket reported instead; or an
// Answer: why there is no socket, or yes when the server has said nothing.
type Lookup struct {
	Addr  netip.AddrPort
	Query []byte
}

// Mode of a Subscribe and of an Incoming.
const (
	ModeMirror uint8 = 1
	ModeSteal  uint8 = 2
	// ModeTee, of a Subscribe: the port is taken as in ModeSteal, each connection
	// goes to the target's own server, and local gets a copy as in ModeMirror.
	ModeTee uint8 = 3
	// ModeUDP, with one of the others, is of UDP.
	ModeUDP uint8 = 0x10
)

// What becomes of connections that are there when a port is stolen. By default, and
// with agents that know nothing else, they stay with the target.
const (
	ExistingStay uint8 = 0
	ExistingIdle uint8 = 1 // they are ended, in order, between two requests of HTTP/1
	ExistingAll  uint8 = 2 // they are cut at once
)

// Subscribe asks for the connections that reach TCP port Port of the target or,
// with ModeUDP, for the datagrams that reach that UDP port; those have no Filter,
// Probes or Existing.
// The reply is an Answer; after yes the subscription lives as long as the
// stream, on which nothing more is said but one Answer with CauseTaken before the
// end, if that is why.
//
// Several subscriptions of a session to one port and mode are one: the newest
// says which requests are meant.
type Subscribe struct {
	Port   uint16
	Mode   uint8
	Filter string // a rules.Filter as JSON: the requests that are meant; empty: whole connections
	// Probes are the paths (with their queries, if any) of the HTTP probes that
	// the target's pod declares for the port: the kubelet's requests for them
	// are never stolen. At most 64, of 1 KiB each.
	Probes []string
	// BodySize is how many bytes of a request's body are waited for where Filter
	// looks at it, BodyTime how many milliseconds behind its head. 0 is 65535 and
	// 1000; more than 512 KiB and a minute is refused.
	BodySize, BodyTime uint32
	// Existing says what becomes of connections that clients have with the port when
	// it begins to be stolen.
	Existing uint8
	// Override, in ModeSteal: what cannot be shared with another session is taken
	// from it. It is said once, when a person asks for the port, and never when the
	// same wish is repeated: two sessions would take the port from each other for ever.
	Override bool
	// Replies, of copies: where an Incoming wants it, the program's replies travel back.
	// Without, no copies are made of what needs them.
	Replies bool
	// TLS, in ModeSteal, is a rules.TLS as JSON: how connections under TLS are
	// decrypted, so that Filter sees their requests; empty: they are not.
	TLS string
}

// Incoming opens a stream, from agent to local, for one subscribed connection.
// It carries the client's bytes; in ModeSteal the reply's bytes travel back,
// with half-close and reset as on the connection. In ModeMirror nothing
// travels back but with Replies, and a reset means that the copy is incomplete.
//
// With ModeUDP it carries Datagrams, those between one client and one address,
// until either side ends it: the agent when nothing has been said for a minute.
//
// With a filter it carries the requests of one connection that match, one
// after another, and their replies. Either side may end it between a reply and
// the next request; for that, there is another stream.
type Incoming struct {
	Port  uint16
	Mode  uint8
	Peer  netip.AddrPort // the client
	Local netip.AddrPort // the address that the client dialed
	// Replies, in ModeMirror: the agent is the program's client, of HTTP/2, and must
	// know what that allows; the replies travel back to it, and no further.
	Replies bool
	// TLS: the client speaks TLS, which the agent has taken off. ServerName is whom it
	// asked for (SNI, RFC 6066 §3) and Protocol what was agreed on (ALPN, RFC 7301);
	// either may be empty.
	TLS                  bool
	ServerName, Protocol string
}

func (*Hello) Kind() Kind      { return KindHello }
func (*Welcome) Kind() Kind    { return KindWelcome }
func (*Answer) Kind() Kind     { return KindAnswer }
func (*EnvRequest) Kind() Kind { return KindEnvRequest }
func (*Env) Kind() Kind        { return KindEnv }
func (*Notice) Kind() Kind     { return KindNotice }
func (*Dial) Kind() Kind       { return KindDial }
func (*Datagram) Kind() Kind   { return KindDatagram }
func (*Subscribe) Kind() Kind  { return KindSubscribe }
func (*Incoming) Kind() Kind   { return KindIncoming }
func (*Bye) Kind() Kind        { return KindBye }
func (*Lookup) Kind() Kind     { return KindLookup }
func (*Lost) Kind() Kind       { return KindLost }
func (*Join) Kind() Kind       { return KindJoin }

func (*CountsRequest) Kind() Kind { return KindCountsRequest }
func (*Counts) Kind() Kind        { return KindCounts }
func (*Profile) Kind() Kind       { return KindProfile }

func (m *Hello) fields(c *codec) {
	number(c, 1, &m.Min)
	number(c, 2, &m.Max)
	c.text(3, &m.Software)
	c.text(4, &m.Session)
	c.text(5, &m.User)
}

func (m *Welcome) fields(c *codec) {
	number(c, 1, &m.Version)
	c.text(2, &m.Software)
	c.text(3, &m.Hostname)
	c.prefixes(4, &m.Addrs)
	c.texts(5, &m.Mounts)
	number(c, 6, &m.UID)
	number(c, 7, &m.GID)
	c.text(8, &m.Dir)
	c.boolean(9, &m.Targetless)
	c.texts(10, &m.Features)
	number(c, 11, &m.SYNRetries)
	number(c, 12, &m.SYNLinear)
}

func (m *Answer) fields(c *codec) {
	c.errno(1, &m.Errno)
	number(c, 2, &m.Cause)
	c.text(3, &m.Text)
	c.addrPort(4, &m.Addr)
}

func (m *EnvRequest) fields(*codec) {}

func (m *Env) fields(c *codec) { c.texts(1, &m.Vars) }

func (m *Notice) fields(c *codec) {
	c.text(1, &m.Code)
	c.text(2, &m.Text)
}

func (m *Bye) fields(c *codec) {
	c.text(1, &m.Code)
	c.text(2, &m.Text)
}

func (m *Lost) fields(c *codec) {
	number(c, 1, &m.Packets)
	number(c, 2, &m.Copies)
}

func (m *Join) fields(c *codec) {
	number(c, 1, &m.Port)
	c.text(2, &m.Holder)
	number(c, 3, &m.Began)
}

func (m *CountsRequest) fields(*codec) {}

func (m *Counts) fields(c *codec) {
	number(c, 1, &m.Passed)
	number(c, 2, &m.Returned)
	number(c, 3, &m.Refused)
	number(c, 4, &m.Packets)
	number(c, 5, &m.Copies)
	number(c, 6, &m.Ended)
}

func (m *Profile) fields(c *codec) {
	c.text(1, &m.Name)
	number(c, 2, &m.Seconds)
}

func (m *Dial) fields(c *codec) {
	number(c, 1, &m.Network)
	c.addrPort(2, &m.Addr)
	c.text(3, &m.Name)
	c.boolean(4, &m.Wait)
}

func (m *Datagram) fields(c *codec) {
	c.blob(1, &m.Data)
	c.errno(2, &m.Errno)
}

func (m *Lookup) fields(c *codec) {
	c.addrPort(1, &m.Addr)
	c.blob(2, &m.Query)
}

func (m *Subscribe) fields(c *codec) {
	number(c, 1, &m.Port)
	number(c, 2, &m.Mode)
	c.text(3, &m.Filter)
	c.texts(4, &m.Probes)
	number(c, 5, &m.BodySize)
	number(c, 6, &m.BodyTime)
	number(c, 7, &m.Existing)
	c.boolean(8, &m.Override)
	c.boolean(9, &m.Replies)
	c.text(10, &m.TLS)
}

func (m *Incoming) fields(c *codec) {
	number(c, 1, &m.Port)
	number(c, 2, &m.Mode)
	c.addrPort(3, &m.Peer)
	c.addrPort(4, &m.Local)
	c.boolean(5, &m.Replies)
	c.boolean(6, &m.TLS)
	c.text(7, &m.ServerName)
	c.text(8, &m.Protocol)
}
