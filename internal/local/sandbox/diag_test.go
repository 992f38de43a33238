package sandbox

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

// diagMessage is a netlink message with a body.
func diagMessage(typ uint16, body []byte) []byte {
	ne := binary.NativeEndian
	b := ne.AppendUint32(nil, uint32(unix.NLMSG_HDRLEN+len(body)))
	b = ne.AppendUint16(b, typ)
	b = append(b, make([]byte, 10)...)
	return append(b, body...)
}

func listenerBody(family byte, ip netip.Addr, port uint16, cookie uint64, inode uint32) []byte {
	b := make([]byte, messageSize)
	b[0] = family
	binary.BigEndian.PutUint16(b[offsetSport:], port)
	copy(b[offsetSrc:], ip.AsSlice())
	binary.NativeEndian.PutUint64(b[offsetCookie:], cookie)
	binary.NativeEndian.PutUint32(b[offsetInode:], inode)
	b[offsetState] = stateListen
	binary.NativeEndian.PutUint32(b[offsetRqueue:], 2)
	binary.NativeEndian.PutUint32(b[offsetWqueue:], 5)
	return b
}

func TestParseSockets(t *testing.T) {
	v4, v6 := netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("::ffff:10.0.0.1")
	one := diagMessage(sockDiagByFamily, listenerBody(unix.AF_INET, v4, 80, 7, 9))
	two := diagMessage(sockDiagByFamily, listenerBody(unix.AF_INET6, v6, 81, 8, 10))
	for _, c := range []struct {
		name string
		in   []byte
		want []socket
		done bool
		err  error
	}{
		{"empty", nil, nil, false, nil},
		{"two", append(append([]byte{}, one...), two...), []socket{
			{netip.MustParseAddrPort("127.0.0.1:80"), 7, 9, 0, stateListen, 2, 5}, {netip.MustParseAddrPort("10.0.0.1:81"), 8, 10, 0, stateListen, 2, 5}}, false, nil},
		{"done", diagMessage(unix.NLMSG_DONE, nil), nil, true, nil},
		{"error", diagMessage(unix.NLMSG_ERROR, binary.NativeEndian.AppendUint32(nil, ^uint32(unix.ENOENT)+1)), nil, true, unix.ENOENT},
		{"short body", diagMessage(sockDiagByFamily, make([]byte, 20)), nil, false, errDiag},
		{"cut", one[:40], nil, false, errDiag},
	} {
		got, done, err := parseSockets(c.in)
		if len(got) != len(c.want) || done != c.done || !errors.Is(err, c.err) {
			t.Errorf("%s: got %v, %v, %v; want %v, %v, %v", c.name, got, done, err, c.want, c.done, c.err)
			continue
		}
		for i := range got {
			if got[i] != c.want[i] {
				t.Errorf("%s: got %v, want %v", c.name, got[i], c.want[i])
			}
		}
	}
}

func FuzzParseSockets(f *testing.F) {
	f.Add(diagMessage(sockDiagByFamily, listenerBody(unix.AF_INET, netip.MustParseAddr("127.0.0.1"), 80, 7, 9)))
	f.Add(diagMessage(unix.NLMSG_ERROR, []byte{1}))
	f.Add([]byte{17, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		found, _, _ := parseSockets(b)
		if len(found)*messageSize > len(b) {
			t.Errorf("%d sockets in %d bytes", len(found), len(b))
		}
	})
}
