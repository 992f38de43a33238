package mesh

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"runtime"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/mirrord-go/mirrord/internal/nft"
)

// maxSockets bounds what is read of a table of sockets, in bytes: some thousand
// of them. Those that listen come first.
const maxSockets = 512 << 10

// Look finds out about the namespace that do runs functions in. There it only
// opens what it reads: others wait for do.
func Look(do func(func() error) error) (f Facts) {
	v := openView(do)
	defer v.close()
	f.Read = true
	if v.nft != nil {
		chains, err := nft.Chains(v.nft)
		for _, c := range chains {
			f.Chains = append(f.Chains, Chain(c))
		}
		f.Read = !unread(err)
	}
	tables, err := v.tables()
	f.Read = f.Read && !unread(err)
	for _, table := range tables {
		names, err := legacy(int(v.inet.Fd()), table)
		for _, name := range names {
			f.Chains = append(f.Chains, Chain{table, name})
		}
		f.Read = f.Read && !unread(err)
	}
	if f.Read {
		return f
	}
	for _, file := range v.sockets {
		f.Listeners = append(f.Listeners, listeners(io.LimitReader(file, maxSockets))...)
	}
	return f
}

// unread reports whether there may be rules that were not read, because of err.
func unread(err error) bool {
	for _, e := range []error{unix.EPERM, unix.EACCES, nft.ErrManyChains, errLarge} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false // a kernel without such rules has none
}

// view is what is read of a namespace, opened in it. What cannot be opened is nil.
type view struct {
	nft, inet *os.File // sockets: of nftables, and one whose options give the older iptables
	names     *os.File // the tables of those
	refused   error    // why names cannot be opened
	sockets   []*os.File
}

func openView(do func(func() error) error) (v view) {
	_ = do(func() error {
		v.nft, _ = nft.OpenFile()
		v.names, v.refused = os.Open("/proc/thread-self/net/ip_tables_names")
		if fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err == nil {
			v.inet = os.NewFile(uintptr(fd), "iptables")
		}
		for _, name := range []string{"tcp", "tcp6"} {
			if f, err := os.Open("/proc/thread-self/net/" + name); err == nil {
				v.sockets = append(v.sockets, f)
			}
		}
		return nil
	})
	return v
}

func (v view) close() {
	for _, f := range append(v.sockets, v.nft, v.inet, v.names) {
		if f != nil {
			f.Close()
		}
	}
}

// tables are those of the older iptables that are there and may matter. Asking for
// one that is not there would make it.
func (v view) tables() (names []string, err error) {
	if v.names == nil || v.inet == nil {
		return nil, v.refused
	}
	have, err := io.ReadAll(io.LimitReader(v.names, 4<<10)) // a kernel has five
	for _, table := range []string{"nat", "mangle"} {
		if bytes.Contains(append([]byte("\n"), have...), []byte("\n"+table+"\n")) {
			names = append(names, table)
		}
	}
	return names, err
}

// listeners reads the ports that are listened on from a table of sockets
// (proc_pid_net(5)).
func listeners(table io.Reader) (ports []uint16) {
	const stateListen = "0A"
	lines := bufio.NewScanner(table)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 4 || fields[3] != stateListen {
			continue
		}
		_, port, _ := strings.Cut(fields[1], ":")
		if n, err := strconv.ParseUint(port, 16, 16); err == nil {
			ports = append(ports, uint16(n))
		}
	}
	return ports
}

// The older iptables has tables of its own, which nftables does not show. They
// are read by options of any socket of IPv4 (linux/netfilter_ipv4/ip_tables.h);
// IPv6 has the same names where a mesh has both.
const (
	getInfo    = 64 // IPT_SO_GET_INFO
	getEntries = 65 // IPT_SO_GET_ENTRIES
	tableName  = 32 // of struct ipt_getinfo and ipt_get_entries, in bytes
	infoSize   = 84
	infoTotal  = 80        // where the former has the size of all entries
	entries    = 40        // where the latter has them
	maxEntries = 512 << 10 // more than any mesh has; the next ones would be no less like it
)

// errLarge says that a table of the older iptables is larger than maxEntries.
var errLarge = errors.New("there are more entries than are read")

// legacy gives the names of the chains of a table of the older iptables, in the
// network namespace of the socket fd.
func legacy(fd int, table string) ([]string, error) {
	info := make([]byte, infoSize)
	copy(info, table)
	if errno := option(fd, getInfo, info); errno != 0 {
		return nil, errno
	}
	size := binary.NativeEndian.Uint32(info[infoTotal:])
	if size > maxEntries {
		return nil, errLarge
	}
	all := make([]byte, entries+size)
	copy(all, table)
	binary.NativeEndian.PutUint32(all[tableName:], size)
	if errno := option(fd, getEntries, all); errno != 0 {
		return nil, errno
	}
	return chains(all[entries:]), nil
}

// option is getsockopt(2) with a value that is read, too.
func option(fd, name int, value []byte) unix.Errno {
	size := uint32(len(value))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_IP, uintptr(name),
		uintptr(unsafe.Pointer(&value[0])), uintptr(unsafe.Pointer(&size)), 0)
	runtime.KeepAlive(value)
	return errno
}

// chains are the names of the chains that somebody has added: each begins with an
// entry whose target is named ERROR and has the chain's name (struct ipt_entry,
// struct xt_error_target).
func chains(b []byte) (names []string) {
	const (
		targetOffset = 88
		nextOffset   = 90
		entrySize    = 112
		targetName   = 2  // in the target, behind its size
		errorName    = 32 // in the target
		last         = "ERROR"
	)
	for len(b) >= entrySize {
		target, next := int(binary.NativeEndian.Uint16(b[targetOffset:])), int(binary.NativeEndian.Uint16(b[nextOffset:]))
		if next < entrySize || next > len(b) || target+errorName >= next {
			return names
		}
		e := b[target:next]
		if name := text(e[errorName:]); text(e[targetName:errorName]) == "ERROR" && name != last {
			names = append(names, name)
		}
		b = b[next:]
	}
	return names
}

// text is what comes before a zero.
func text(b []byte) string {
	before, _, _ := bytes.Cut(b, []byte{0})
	return string(before)
}
