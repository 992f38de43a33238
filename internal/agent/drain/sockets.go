package drain

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// ownSockets are the inodes of this process's sockets.
func ownSockets() (map[string]bool, error) {
	const dir = "/proc/self/fd/"
	names, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("list the agent's own sockets: %w", err)
	}
	own := map[string]bool{}
	for _, n := range names {
		to, err := os.Readlink(dir + n.Name())
		if inode, ok := strings.CutPrefix(to, "socket:["); err == nil && ok {
			own[strings.TrimSuffix(inode, "]")] = true
		}
	}
	return own, nil
}

// established lists the connections to port in the calling thread's network
// namespace, but for sockets with these inodes (proc_pid_net(5)).
func established(port uint16, but map[string]bool) (all []flowKey, err error) {
	for _, name := range []string{"tcp", "tcp6"} {
		file, err := os.Open("/proc/thread-self/net/" + name)
		if errors.Is(err, fs.ErrNotExist) && name == "tcp6" {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("list connections: %w", err)
		}
		lines := bufio.NewScanner(file)
		for lines.Scan() {
			if k, inode, ok := parseLine(lines.Text()); ok && k.server.Port() == port && !but[inode] {
				all = append(all, k)
			}
		}
		file.Close()
		if lines.Err() != nil {
			return nil, fmt.Errorf("list connections: %w", lines.Err())
		}
	}
	return all, nil
}

// parseLine reads a line like
// "   0: 0100007F:1F90 0200007F:C350 01 00000000:00000000 00:00000000 00000000  1000 0 4711 …";
// false if it is no established connection.
func parseLine(line string) (k flowKey, inode string, ok bool) {
	const stateEstablished = "01"
	f := strings.Fields(line)
	if len(f) < 10 || f[3] != stateEstablished {
		return k, "", false
	}
	var ok1, ok2 bool
	k.server, ok1 = parseAddress(f[1])
	k.client, ok2 = parseAddress(f[2])
	return k, f[9], ok1 && ok2
}

// parseAddress reads an address of which each word is in the machine's order.
func parseAddress(text string) (netip.AddrPort, bool) {
	address, number, _ := strings.Cut(text, ":")
	b, err := hex.DecodeString(address)
	port, perr := strconv.ParseUint(number, 16, 16)
	if err != nil || perr != nil {
		return netip.AddrPort{}, false
	}
	for word := range slices.Chunk(b, 4) {
		slices.Reverse(word)
	}
	ip, ok := netip.AddrFromSlice(b)
	return unmapped(netip.AddrPortFrom(ip, uint16(port))), ok
}

// sockDestroy is SOCK_DESTROY of linux/sock_diag.h.
const sockDestroy = 21

// destroy resets connections in the calling thread's network namespace, and gives
// how many there were.
func destroy(keys []flowKey) (n int, err error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return 0, fmt.Errorf("open a netlink socket: %w", err)
	}
	defer unix.Close(fd)
	for _, k := range keys {
		switch err := destroyOne(fd, k); {
		case err == nil:
			n++
		case !errors.Is(err, unix.ENOENT):
			return n, fmt.Errorf("reset a connection: %w", err)
		}
	}
	return n, nil
}

func destroyOne(fd int, k flowKey) error {
	family := byte(unix.AF_INET)
	if k.client.Addr().Is6() {
		family = unix.AF_INET6
	}
	address := func(b []byte, a netip.Addr) []byte {
		return append(b, append(a.AsSlice(), make([]byte, 16)...)[:16]...)
	}
	// struct nlmsghdr, struct inet_diag_req_v2 (linux/netlink.h, linux/inet_diag.h)
	const length = unix.NLMSG_HDRLEN + 56
	ne := binary.NativeEndian
	b := ne.AppendUint32(nil, length)
	b = ne.AppendUint16(b, sockDestroy)
	b = ne.AppendUint16(b, unix.NLM_F_REQUEST|unix.NLM_F_ACK)
	b = append(b, make([]byte, 8)...)
	b = append(b, family, unix.IPPROTO_TCP, 0, 0)
	b = ne.AppendUint32(b, ^uint32(0)) // any state
	b = binary.BigEndian.AppendUint16(b, k.server.Port())
	b = binary.BigEndian.AppendUint16(b, k.client.Port())
	b = address(b, k.server.Addr())
	b = address(b, k.client.Addr())
	b = ne.AppendUint32(b, 0)          // any interface
	b = ne.AppendUint64(b, ^uint64(0)) // any cookie
	if err := unix.Sendto(fd, b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	answer := make([]byte, 1024)
	m, _, err := unix.Recvfrom(fd, answer, 0) // it is there when send returns
	if err != nil || m < unix.NLMSG_HDRLEN+4 || ne.Uint16(answer[4:]) != unix.NLMSG_ERROR {
		return errors.Join(err, unix.EPROTO)
	}
	if errno := -int32(ne.Uint32(answer[unix.NLMSG_HDRLEN:])); errno != 0 {
		return unix.Errno(errno)
	}
	return nil
}
