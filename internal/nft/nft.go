// Package nft changes nftables of a network namespace by atomic transactions,
// and makes tables that the kernel removes when their owner dies.
//
// The sandbox's boot makes the loopback rules with it, the supervisor changes
// their sets from outside, the agent's redirect keeps its table with it. It
// needs CAP_NET_ADMIN in the user namespace that owns the network namespace.
// Errors are those of the kernel (syscall.Errno, wrapped): EPERM without that
// capability or for another owner's table, EPROTONOSUPPORT or EOPNOTSUPP where
// the kernel lacks nf_tables, ENOENT and EEXIST for elements and tables.
//
// All tables are of the family inet, so that one rule set serves IPv4 and IPv6
// (NAT chains in inet: Linux 5.2).
//
// Hazards:
//   - A socket belongs to the network namespace of the thread that opened it,
//     for ever: Open must run on a thread inside (netns.Do). The kernel checks
//     the rights of the *user* of the socket at each change, so a descriptor
//     may be handed to a process in another namespace that owns the first.
//   - An owned table dies with its socket: closing the Conn removes the table.
//   - The first NAT chain of a namespace switches connection tracking on, and
//     then the next packet of every older connection counts as a new one: a
//     rule that redirects must match SYNs only (Syn).
package nft

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Conn is a netlink socket that changes the nftables of one network namespace.
// Its methods may be called concurrently.
type Conn struct {
	mu  sync.Mutex
	f   *os.File
	seq uint32 // of the last message
	ids uint32 // set ids given within a transaction
}

// Open makes a Conn for the calling thread's network namespace. The caller
// closes it.
func Open() (*Conn, error) {
	f, err := OpenFile()
	if err != nil {
		return nil, err
	}
	return NewConn(f), nil
}

// OpenFile makes the socket only, for handing it to another process, which
// uses NewConn. The caller closes it.
func OpenFile() (*os.File, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, fmt.Errorf("open nftables socket: %w", err)
	}
	// Bound at once: a table's owner is the port id, which the kernel would
	// otherwise choose at the first send, after it has looked at the message.
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("bind nftables socket: %w", err)
	}
	return os.NewFile(uintptr(fd), "nftables"), nil
}

// NewConn owns f, a socket that OpenFile made, here or in another process.
func NewConn(f *os.File) *Conn { return &Conn{f: f} }

// Close closes the socket; the kernel then removes the tables that it owns.
func (c *Conn) Close() error { return c.f.Close() }

// Change is one step of a transaction; the methods of Table, Set and Chain
// make them.
type Change struct {
	op    int
	flags netlink.HeaderFlags
	attrs []netlink.Attribute
	newID bool // wants an id that is unique within the transaction
	err   error
	what  string // for error messages
}

// Apply makes all the changes in one transaction, or none and returns the
// first error. A transaction costs about the same for one element as for a
// hundred; the kernel's limit is the socket's send buffer (about 200 KiB).
func (c *Conn) Apply(changes ...Change) error {
	if len(changes) == 0 {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	first := c.seq + 1
	out, err := c.batch(changes)
	if err != nil {
		return err
	}
	rc, err := c.f.SyscallConn()
	if err != nil {
		return err
	}
	var result error
	// The kernel works while send runs: all answers are there when it returns,
	// so nothing blocks and the descriptor's mode does not matter.
	err = rc.Control(func(fd uintptr) {
		if err := unix.Sendto(int(fd), out, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
			result = fmt.Errorf("send nftables transaction: %w", err)
			return
		}
		result = answers(int(fd), first, c.seq-1, changes)
	})
	return errors.Join(err, result)
}

// batch gives the messages of a transaction. c.mu is held.
func (c *Conn) batch(changes []Change) ([]byte, error) {
	out := c.message(nil, unix.NFNL_MSG_BATCH_BEGIN, netlink.Request, []byte{0, unix.NFNETLINK_V0, 0, unix.NFNL_SUBSYS_NFTABLES})
	for i, ch := range changes {
		if ch.err != nil {
			return nil, fmt.Errorf("%s: %w", ch.what, ch.err)
		}
		attrs := ch.attrs
		if ch.newID {
			c.ids++
			attrs = append(attrs[:len(attrs):len(attrs)], attr(unix.NFTA_SET_ID, be32(c.ids)))
		}
		b, err := netlink.MarshalAttributes(attrs)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", ch.what, err)
		}
		flags := netlink.Request | ch.flags
		if i == len(changes)-1 { // errors come without being asked for
			flags |= netlink.Acknowledge
		}
		out = c.message(out, unix.NFNL_SUBSYS_NFTABLES<<8|ch.op, flags,
			append([]byte{unix.NFPROTO_INET, unix.NFNETLINK_V0, 0, 0}, b...))
	}
	return c.message(out, unix.NFNL_MSG_BATCH_END, netlink.Request, []byte{0, unix.NFNETLINK_V0, 0, unix.NFNL_SUBSYS_NFTABLES}), nil
}

func (c *Conn) message(out []byte, typ int, flags netlink.HeaderFlags, data []byte) []byte {
	c.seq++
	ne := binary.NativeEndian
	out = ne.AppendUint32(out, uint32(unix.NLMSG_HDRLEN+len(data)))
	out = ne.AppendUint16(out, uint16(typ))
	out = ne.AppendUint16(out, uint16(flags))
	out = ne.AppendUint32(out, c.seq)
	out = ne.AppendUint32(out, 0) // port id: filled in by the kernel
	out = append(out, data...)
	for len(out)%unix.NLMSG_ALIGNTO != 0 {
		out = append(out, 0)
	}
	return out
}

// answers reads what the kernel said to the messages first … end; the change
// with index i has the number first+1+i.
func answers(fd int, first, end uint32, changes []Change) error {
	buf := make([]byte, 16<<10)
	var result error
	done := false
	for {
		n, _, err := unix.Recvfrom(fd, buf, unix.MSG_DONTWAIT)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EAGAIN):
			if result == nil && !done {
				return errors.New("nftables: the kernel did not answer")
			}
			return result
		case err != nil:
			return fmt.Errorf("receive nftables answer: %w", err)
		}
		for b := buf[:n]; len(b) >= unix.NLMSG_HDRLEN; {
			size := int(binary.NativeEndian.Uint32(b))
			if size < unix.NLMSG_HDRLEN || size > len(b) {
				return errors.New("nftables: answer of a wrong length")
			}
			typ, seq := binary.NativeEndian.Uint16(b[4:]), binary.NativeEndian.Uint32(b[8:])
			if typ == unix.NLMSG_ERROR && size >= unix.NLMSG_HDRLEN+4 && seq >= first && seq <= end {
				errno := syscall.Errno(-int32(binary.NativeEndian.Uint32(b[unix.NLMSG_HDRLEN:])))
				done = done || seq == end
				if errno != 0 && result == nil {
					what := "nftables transaction"
					if i := int(seq-first) - 1; i >= 0 && i < len(changes) {
						what = changes[i].what
					}
					result = fmt.Errorf("%s: %w", what, errno)
				}
			}
			b = b[min((size+unix.NLMSG_ALIGNTO-1)&^(unix.NLMSG_ALIGNTO-1), len(b)):]
		}
	}
}

func attr(t uint16, data []byte) netlink.Attribute { return netlink.Attribute{Type: t, Data: data} }

func text(t uint16, s string) netlink.Attribute { return attr(t, append([]byte(s), 0)) }

// nest gives attributes as one; one that is too long for netlink is the error.
func nest(t uint16, attrs ...netlink.Attribute) (netlink.Attribute, error) {
	b, err := netlink.MarshalAttributes(attrs)
	return attr(t|unix.NLA_F_NESTED, b), err
}

func be16(v uint16) []byte { return binary.BigEndian.AppendUint16(nil, v) }
func be32(v uint32) []byte { return binary.BigEndian.AppendUint32(nil, v) }
