// Package sandbox runs a command in fresh user, mount, network and UTS
// namespaces, without privileges, and watches it from outside.
//
// Two processes use it. The front starts it (Launch) and is the command's
// parent: exit code, signals, job control. The supervisor, another process of
// the same user, tells it what to become (Attach), lets it run (Box.Go),
// serves its listeners (Box.Watch), reaches into its network, and ends it. The
// code inside is package boot, the words between are package handoff. The
// binary must call boot.Main before anything else.
//
// It needs user namespaces, /dev/net/tun or veth pairs, nf_tables or routing
// rules, and, for a FUSE root, /dev/fuse; what is missing comes back as a *handoff.Error that names the
// step and the errno.
//
// Hazards:
//   - The supervisor must not touch a path below the FUSE root that it serves.
//   - The supervisor keeps descriptors of the sandbox's sockets only while a
//     call is parked: with a copy held longer, a port stays open.
//   - Whatever holds the front's end of the init socket keeps init waiting:
//     pass it on and close it.
//   - A process of the tree ends when nobody serves its parked system call and
//     it is killed; it never ends by itself. Watch must run.
package sandbox

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mirrord-go/mirrord/internal/local/host"
	"github.com/mirrord-go/mirrord/internal/local/ids"
	"github.com/mirrord-go/mirrord/internal/local/sandbox/handoff"
	"github.com/mirrord-go/mirrord/internal/local/sandbox/tree"
	"github.com/mirrord-go/mirrord/internal/nft"
)

// Options of Attach.
type Options struct {
	// OnFUSE gets /dev/fuse, already mounted, and must see to it that it is
	// served before it returns or soon after: init's next steps need answers.
	// It owns the file. known are the ids that owners can be shown by. Required
	// with Spec.FUSE.
	OnFUSE func(f *os.File, known ids.Known) error
}

// Box is a sandbox seen from the supervisor. Its methods may be called
// concurrently.
type Box struct {
	conn  *handoff.Conn // to init; closed by Go
	kept  bool          // there is no command, others join
	files map[handoff.Label]*os.File
	tree  *tree.Tree
	proc  *os.File
	nft   *nft.Conn  // owns its file; nil where routes do its work
	ports sync.Mutex // one change of a routing rule at a time
	net   netID      // the sandbox's network namespace

	routed  bool             // there are no nftables
	address net.HardwareAddr // of the device; nil: it is a TUN

	started chan struct{} // closed by Go; then notify is set
	notify  *os.File      // nil: there is no filter, look for listeners

	helper  *helper
	dumping sync.Mutex // one request at a time
	peers   *peers
	done    chan struct{}
	joined  chan *Command // to Hold
}

// Attach tells the init at the other end of sock what to become and receives
// its descriptors. It owns sock. When it returns without error, init waits for
// Box.Go. The caller must Close the Box, which ends what runs in it.
//
// A failure inside is a *handoff.Error; the front's Process then ends with its
// ExitCode.
func Attach(ctx context.Context, sock *os.File, spec handoff.Spec, o Options) (*Box, error) {
	conn, err := handoff.NewConn(sock)
	if err != nil {
		return nil, err
	}
	b := &Box{conn: conn, kept: len(spec.Argv) == 0, files: map[handoff.Label]*os.File{}, started: make(chan struct{}), done: make(chan struct{}), joined: make(chan *Command), peers: newPeers()}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if err := b.attach(&spec, o); err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		_ = b.Close() // there is a better error already
		return nil, err
	}
	return b, nil
}

func (b *Box) attach(spec *handoff.Spec, o Options) error {
	if err := b.conn.Send(handoff.Message{Kind: handoff.KindSpec, Body: spec.Encode()}); err != nil {
		// Init may have ended with a word before it read the spec.
		if _, failed := receive(b.conn); failed != nil {
			return failed
		}
		return err
	}
	for {
		m, err := receive(b.conn)
		if err != nil {
			return err
		}
		if m.Kind == handoff.KindReady {
			return b.ready()
		}
		if handoff.Label(m.Body[0]) == handoff.FUSE {
			if o.OnFUSE == nil {
				m.File.Close()
				return errors.New("sandbox: nobody serves the FUSE root")
			}
			if err := o.OnFUSE(m.File, b.known()); err != nil {
				return fmt.Errorf("serve root: %w", err)
			}
			continue
		}
		if err := b.take(m); err != nil {
			return err
		}
	}
}

// receive gives init's next message; its failure is the error.
func receive(conn *handoff.Conn) (handoff.Message, error) {
	m, err := conn.Receive()
	if errors.Is(err, io.EOF) {
		return m, &handoff.Error{Step: handoff.StepLost, Text: "the first process of the sandbox has ended"}
	}
	if err != nil {
		return m, err
	}
	switch m.Kind {
	case handoff.KindError:
		failed, err := handoff.DecodeError(m.Body)
		if err != nil {
			return m, err
		}
		// Init ends next. The caller's Close would have it killed by the helper,
		// and its exit code, which the front returns, would be lost.
		_, _ = conn.Receive()
		return m, failed
	case handoff.KindReady:
		return m, nil
	case handoff.KindFile:
		if len(m.Body) > 0 && (m.File != nil || handoff.Label(m.Body[0]) == handoff.Notify) {
			return m, nil
		}
	}
	if m.File != nil {
		m.File.Close()
	}
	return m, fmt.Errorf("sandbox: unexpected message %d", m.Kind)
}

// take keeps a descriptor.
func (b *Box) take(m handoff.Message) error {
	label := handoff.Label(m.Body[0])
	if b.files[label] != nil {
		m.File.Close()
		return fmt.Errorf("sandbox: descriptor %d came twice", label)
	}
	b.files[label] = m.File
	if label == handoff.Packets && len(m.Body) == 1+handoff.Veth {
		b.address = m.Body[1:]
	}
	b.routed = b.routed || label == handoff.NFT && len(m.Body) > 1 && m.Body[1] == handoff.Routed
	if label != handoff.Helper {
		return nil
	}
	if len(m.Body) != 5 {
		return errors.New("sandbox: the helper has no process id")
	}
	var err error
	if b.proc, err = os.Open("/proc"); err != nil {
		return err
	}
	ns := b.files[handoff.Space]
	if ns == nil {
		return errors.New("sandbox: the namespace is missing")
	}
	pid := int(binary.BigEndian.Uint32(m.Body[1:]))
	if b.tree, err = tree.New(b.proc, ns, pid); err != nil {
		return err
	}
	b.helper, err = newHelper(m.File, b.proc, pid)
	return err
}

// ready checks that nothing is missing.
func (b *Box) ready() error {
	for _, l := range []handoff.Label{handoff.Space, handoff.Packets, handoff.NFT, handoff.Dump, handoff.EventsTCP, handoff.EventsUDP, handoff.Helper} {
		if b.files[l] == nil {
			return fmt.Errorf("sandbox: descriptor %d is missing", l)
		}
	}
	if !b.routed {
		b.nft = nft.NewConn(b.files[handoff.NFT])
		delete(b.files, handoff.NFT)
	}
	return control(b.files[handoff.Dump], func(fd int) (err error) {
		b.net, err = netOf(fd)
		return err
	})
}

// Go lets the command run. It returns when execve has succeeded, or with what
// failed. It is called once; Watch must be running, or be called next. A sandbox
// that is kept is ready for commands then.
func (b *Box) Go() (err error) {
	if b.kept {
		err = dismiss(b.conn)
	} else {
		b.notify, err = release(b.conn)
	}
	if err != nil {
		return err
	}
	close(b.started)
	return b.conn.Close()
}

// Filtered tells, after Go, whether listeners are seen as they are made. If
// not (a sandbox in a sandbox), they are looked for, and a hook's error cannot
// become the program's.
func (b *Box) Filtered() bool { return b.notify != nil }

// Without lists, after Go, what this sandbox does without, in the order of
// host.Pieces; of one that is kept, what all commands do.
func (b *Box) Without() []host.Piece {
	return without(map[handoff.Step]bool{handoff.StepUserNS: !b.tree.Own(), handoff.StepTUN: b.address != nil,
		handoff.StepSeccomp: !b.kept && !b.Filtered(), handoff.StepNFT: b.routed})
}

func without(lacks map[handoff.Step]bool) []host.Piece {
	return slices.DeleteFunc(slices.Clone(host.Pieces), func(p host.Piece) bool { return !lacks[p.Step] })
}

// Localhost is what a connection that comes out of the device names the
// sandbox's 127.0.0.1 and ::1; the zero Addr: it cannot.
func (b *Box) Localhost() (v4, v6 netip.Addr) {
	if b.routed {
		return netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.Addr{}
	}
	return handoff.Localhost4, handoff.Localhost6
}

// Device is the network device, in non-blocking mode: a TUN, with raw IP packets,
// each after a virtio_net_hdr (IFF_VNET_HDR, TUN_F_CSUM), and a nil address; or a
// packet socket with the same as Ethernet frames (PACKET_VNET_HDR), to be sent
// to the address. Close closes it, unless its user has already.
func (b *Box) Device() (*os.File, net.HardwareAddr) { return b.files[handoff.Packets], b.address }

// Done is closed when the last process of the tree has ended.
func (b *Box) Done() <-chan struct{} { return b.done }

// Signal sends a signal to every process of the tree.
func (b *Box) Signal(s syscall.Signal) error {
	_, err := b.tree.Signal(s)
	return err
}

// End ends the tree: SIGTERM, SIGKILL after tree.Grace or when ctx ends. It
// returns when no process is left.
func (b *Box) End(ctx context.Context) error { return b.tree.End(ctx) }

// Close lets go of the sandbox. What still runs in it is ended by the helper,
// which goes too. Watch must have returned, or its ctx be ended.
func (b *Box) Close() error {
	all := []io.Closer{b.conn}
	if b.nft != nil {
		all = append(all, b.nft)
	}
	files := append(slices.Collect(maps.Values(b.files)), b.proc, b.notify)
	if b.helper != nil {
		defer b.helper.pidfd.Close()
		defer b.helper.signal(unix.SIGCONT) // a stopped one does not see that we are gone
	}
	for _, f := range files {
		if f != nil {
			all = append(all, f)
		}
	}
	var result error
	for _, c := range all {
		if err := c.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
			result = errors.Join(result, err)
		}
	}
	return result
}

// control runs do with f's descriptor, which stays open meanwhile.
func control(f *os.File, do func(fd int) error) error {
	rc, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var result error
	if err := rc.Control(func(fd uintptr) { result = do(int(fd)) }); err != nil {
		return err
	}
	return result
}
