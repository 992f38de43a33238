package nft

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"syscall"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// ChainName is a chain of any table, ours or not.
type ChainName struct{ Table, Name string }

const (
	// maxChains bounds what Chains reads. A node with services has tens of
	// thousands, and who looks for a few by name must not hold the socket for all.
	maxChains = 4096
	// dumpSize is the most that the kernel gives at once (netlink(7)).
	dumpSize = 32 << 10
)

// ErrManyChains says that there are more chains than were read.
var ErrManyChains = errors.New("there are more chains than are read")

// Chains lists the chains of all families in the network namespace that f, a
// socket of OpenFile, was opened in; any thread may call it. Those of iptables
// are among them where it is made of nftables. With ErrManyChains it gives the
// first.
func Chains(f *os.File) (all []ChainName, err error) {
	ne := binary.NativeEndian
	b := ne.AppendUint32(nil, unix.NLMSG_HDRLEN+4)
	b = ne.AppendUint16(b, unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_GETCHAIN)
	b = ne.AppendUint16(b, unix.NLM_F_REQUEST|unix.NLM_F_DUMP)
	b = append(b, make([]byte, 8)...) // sequence, port: one question of one socket
	b = append(b, unix.NFPROTO_UNSPEC, unix.NFNETLINK_V0, 0, 0)
	rc, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	cerr := rc.Control(func(fd uintptr) {
		if err = unix.Sendto(int(fd), b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
			return
		}
		buf := make([]byte, dumpSize)
		for done := false; !done && err == nil && len(all) < maxChains; {
			var n int
			// The kernel goes on with the dump while it is read: nothing blocks.
			if n, _, err = unix.Recvfrom(int(fd), buf, unix.MSG_DONTWAIT); err == nil {
				all, done, err = appendChains(all, buf[:n])
			}
		}
	})
	switch {
	case cerr != nil:
		return nil, cerr
	case err != nil:
		return nil, fmt.Errorf("list chains: %w", err)
	case len(all) >= maxChains:
		return all, ErrManyChains
	}
	return all, nil
}

// appendChains reads one piece of the kernel's answer; done: it was the last.
func appendChains(all []ChainName, b []byte) (_ []ChainName, done bool, err error) {
	list, err := syscall.ParseNetlinkMessage(b)
	if err != nil {
		return all, false, err
	}
	for _, m := range list {
		switch {
		case m.Header.Type == unix.NLMSG_DONE:
			return all, true, nil
		case m.Header.Type == unix.NLMSG_ERROR:
			if len(m.Data) < 4 {
				return all, true, unix.EBADMSG
			}
			return all, true, unix.Errno(-int32(binary.NativeEndian.Uint32(m.Data)))
		case len(m.Data) < 4: // struct nfgenmsg
			continue
		}
		attrs, err := netlink.NewAttributeDecoder(m.Data[4:])
		if err != nil {
			return all, false, fmt.Errorf("read chains: %w", err)
		}
		var n ChainName
		for attrs.Next() {
			switch attrs.Type() {
			case unix.NFTA_CHAIN_TABLE:
				n.Table = attrs.String()
			case unix.NFTA_CHAIN_NAME:
				n.Name = attrs.String()
			}
		}
		if attrs.Err() == nil {
			all = append(all, n)
		}
	}
	return all, false, nil
}
