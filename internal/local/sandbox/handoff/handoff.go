// Package handoff holds the words that the supervisor and the sandbox's init
// exchange, and the pipe that carries them.
//
// The supervisor (package sandbox) sends a Spec; init (package boot) answers
// with descriptors that it opened inside the namespaces, with Ready, or with an
// Error that names the step; the supervisor says Go; init sends the last
// descriptor and becomes the command, which closes the pipe.
//
// Everything here is values, bytes and sockets of this machine: no privilege,
// no policy. What does not decode is refused. The environment of the command
// holds secrets, so it travels in the pipe only, never in arguments or files.
package handoff

import (
	"fmt"
	"net/netip"
	"syscall"
)

// argv[0] of the roles that live inside a sandbox.
const (
	InitName   = "mirrord-init"   // becomes the command
	HelperName = "mirrord-helper" // stays: makes sockets, guards the tree
	JoinName   = "mirrord-join"   // an init that has entered a sandbox, and becomes another command
)

// Environment variables of init, from the front: the user and the
// group to map, by the number inside and, after a space, that outside, which init
// cannot ask the kernel for before they are mapped. Without them init has no
// user namespace of its own: it is root, and uses root's rights.
//
// Its arguments are two descriptors: the socket, and a pipe. When that ends the
// front has tried to have more ids mapped (newuidmap(1), from outside), and init
// maps what is not. One that joins has the socket only, and no such variable.
const (
	EnvUID = "MIRRORD_INIT_UID"
	EnvGID = "MIRRORD_INIT_GID"
)

// Device is the name of the sandbox's network device: that of nearly every pod's
// (CNI_IFNAME), for programs that look for it or bind to it (SO_BINDTODEVICE).
const Device = "eth0"

// Reserved addresses inside the tunnel. 198.18.0.0/15 is for benchmarks and
// never routed (RFC 2544), fd00:6d69::/64 a unique local prefix. The variables
// are constants in all but name.
var (
	// Localhost4 and Localhost6 stand for the target's 127.0.0.1 and ::1: what
	// the program sends to a localhost port that it does not serve itself
	// arrives on the device with this destination. Packets that come out of the
	// device with this destination reach listeners on the sandbox's own
	// 127.0.0.1 and ::1.
	Localhost4 = netip.MustParseAddr("198.18.0.1")
	Localhost6 = netip.MustParseAddr("fd00:6d69::1")
	// Self4 and Self6 stand for the pod's own address, for ports that the
	// program does not serve itself: another container of the pod may.
	Self4 = netip.MustParseAddr("198.18.0.2")
	Self6 = netip.MustParseAddr("fd00:6d69::2")
	// Source4 and Source6 are the source of packets to Localhost4 and Localhost6
	// when the pod has no address of the family.
	Source4 = netip.MustParseAddr("198.18.0.3")
	Source6 = netip.MustParseAddr("fd00:6d69::3")
	// Reserved4 and Reserved6 hold all of the above; always routed to the device.
	Reserved4 = netip.MustParsePrefix("198.18.0.0/29")
	Reserved6 = netip.MustParsePrefix("fd00:6d69::/64")
)

// The table of the loopback rules in the sandbox's network namespace, and its
// sets of ports that the program serves itself.
const (
	Table  = "mirrord"
	SetTCP = "local_tcp"
	SetUDP = "local_udp"
)

// Routed is in the body of NFT where there are no nftables: then the socket is
// one of rtnetlink, and routing rules of these priorities (RULE_… of ip-rule(8))
// do their work. What comes by the device or has the Mark is local; then the
// program's own ports (RulePort); then localhost goes to the device.
const (
	Routed = 1

	RuleArrived  = 50
	RulePort     = 60
	RuleLoopback = 70
	RuleLocal    = 100
)

// Veth: where there is no TUN, Packets is a packet socket (SOCK_RAW with
// PACKET_VNET_HDR) at the other end of a veth pair, and the rest of the body is
// the hardware address of the device, this many bytes.
const Veth = 6

// Mark is the mark (SO_MARK) of sockets that the supervisor has made inside:
// the loopback rules leave them alone, so they reach the sandbox's own
// listeners or nobody, never the pod.
const Mark = 0x6d72

// Spec is what init needs to know.
type Spec struct {
	// Argv[0] is looked up in Env's PATH when it has no slash. Without Argv there is
	// no command: init ends, and the namespaces are kept for others that join.
	Argv []string
	Env  []string // the command's environment, complete
	Dir  string   // absolute working directory; it must exist inside

	Hostname string         // empty: the caller's
	Addrs    []netip.Prefix // the pod's own addresses, put on the device
	NoIPv6   bool           // socket(AF_INET6) fails with EAFNOSUPPORT
	// How long connect(2) waits for a peer that says nothing: tcp_syn_retries and
	// tcp_syn_linear_timeouts. Retries 0: as long as the kernel does by itself.
	SYNRetries, SYNLinear uint8

	FUSE               bool   // the root is a FUSE file system; else the caller's root
	DefaultPermissions bool   // the kernel checks modes of the FUSE root
	MaxRead            uint32 // bytes of one FUSE read; 0: the kernel's own choice
	// Binds are absolute paths of local directories and files, attached to the
	// FUSE root in this order, each with everything mounted below it. One that is
	// gone from its directory is left out. Ignored without FUSE.
	Binds []string
	// Hides are directories below Binds to cover with an empty one that cannot
	// be written. Ignored without FUSE.
	Hides []string

	Poll     bool // do not install the seccomp filter, look for listeners instead
	Connects bool // the filter sends connect(2), too
}

// Label says what a descriptor that init sends is.
type Label byte

// Descriptors in the order they are sent.
const (
	Space     Label = iota + 1 // the sandbox's user namespace or, without one, its network namespace; of an init that joins its UTS namespace
	Packets                    // of the device, a TUN (IFF_TUN | IFF_NO_PI | IFF_VNET_HDR, TUN_F_CSUM); or see Veth
	NFT                        // netlink socket for the loopback rules' sets; or see Routed
	Dump                       // sock_diag socket for looking at sockets
	EventsTCP                  // sock_diag socket that reports destroyed TCP listeners
	EventsUDP                  // the same for UDP sockets
	Helper                     // socket to the helper; the body is its process id
	FUSE                       // /dev/fuse, mounted
	Notify                     // seccomp listener; without descriptor: there is none, the body is the errno
	labels
)

// Step names what init was doing when it failed.
type Step string

// Steps, in the order in which they are taken.
const (
	StepUserNS   Step = "userns"   // clone of the namespaces (in the front)
	StepMap      Step = "uid_map"  // the id maps; the first privileged act inside
	StepOwners   Step = "owners"   // more ids in them than the caller's (outside); never an end
	StepSpec     Step = "spec"     // reading the Spec
	StepHostname Step = "hostname" //
	StepTUN      Step = "tun"      // /dev/net/tun
	StepNetwork  Step = "network"  // addresses and routes
	StepJoin     Step = "join"     // of one that joins: its own UTS namespace
	StepNFT      Step = "nft"      // the loopback rules
	StepSockets  Step = "sockets"  // netlink sockets for the supervisor
	StepHelper   Step = "helper"   // starting the helper
	StepBind     Step = "bind"     // a local directory
	StepFUSE     Step = "fuse"     // /dev/fuse, mount
	StepMount    Step = "mount"    // pivot_root
	StepChdir    Step = "chdir"    // the working directory
	StepLookup   Step = "lookup"   // finding the command in PATH
	StepSeccomp  Step = "seccomp"  // the filter
	StepExec     Step = "exec"     // execve of the command
	StepLost     Step = "lost"     // init ended, or was killed, without a word
)

// Error is a failure inside the sandbox, before the command ran.
type Error struct {
	Step  Step
	Path  string        // file, directory or command it is about, if any
	Errno syscall.Errno // 0 when no system call failed
	Text  string        // more, for a person
	// Instead: in a KindProbed, a sandbox does without.
	Instead bool
}

func (e *Error) Error() string {
	s := "sandbox: " + string(e.Step)
	if e.Path != "" {
		s += fmt.Sprintf(" %q", e.Path)
	}
	if e.Text != "" {
		s += ": " + e.Text
	}
	if e.Errno != 0 {
		s += ": " + e.Errno.Error()
	}
	return s
}

// Unwrap gives the errno, if there is one.
func (e *Error) Unwrap() error {
	if e.Errno == 0 {
		return nil
	}
	return e.Errno
}

// Exit codes of init when the command never ran, as shells and env(1) use them.
const (
	CodeNotFound      = 127
	CodeNotExecutable = 126
	CodeBroken        = 125 // the sandbox itself
)

// ExitCode is the code that a shell would give.
func (e *Error) ExitCode() int {
	switch {
	case e.Step != StepExec && e.Step != StepLookup:
		return CodeBroken
	case e.Errno == syscall.ENOENT || e.Errno == syscall.ENOTDIR:
		return CodeNotFound
	}
	return CodeNotExecutable
}
