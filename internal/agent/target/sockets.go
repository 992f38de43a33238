package target

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"
)

// portRange is the local ports that the kernel gives to connections.
type portRange struct{ first, last int }

// defaultRange is the kernel's (ip_local_port_range, ip-sysctl.rst).
var defaultRange = portRange{32768, 60999}

func (r portRange) size() int { return r.last - r.first + 1 }

// readRange reads that of the calling thread's network namespace.
func readRange() portRange {
	b, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range") // of IPv6 too: ip-sysctl.rst
	var r portRange
	if err != nil {
		return defaultRange
	}
	if _, err := fmt.Sscan(string(b), &r.first, &r.last); err != nil || r.last < r.first {
		return defaultRange
	}
	return r
}

// inUse is how many ports of the range sockets of a network ("tcp", "udp") have
// in the calling thread's network namespace, those in TIME_WAIT too. While there
// are fewer than enough sockets at all, it is these that are counted: the kernel
// knows their number, and a list of tens of thousands takes it milliseconds.
func (r portRange) inUse(network string, enough int) (int, error) {
	all := 0
	err := eachFile("sockstat", func(f io.Reader) error {
		text, err := io.ReadAll(f)
		all += parseSockstat(network, string(text))
		return err
	})
	if err != nil || all < enough {
		return all, err
	}
	n, used := 0, make([]bool, r.size()) // what a server accepts has the port of its listener
	err = eachFile(network, func(f io.Reader) error {
		lines := bufio.NewScanner(f)
		for lines.Scan() {
			if port, ok := parseSocket(lines.Text()); ok && r.first <= port && port <= r.last && !used[port-r.first] {
				n++
				used[port-r.first] = true
			}
		}
		return lines.Err()
	})
	return n, err
}

// eachFile calls f with a file of proc_pid_net(5) and its twin for IPv6, which
// there may not be.
func eachFile(name string, f func(io.Reader) error) error {
	for _, suffix := range []string{"", "6"} {
		file, err := os.Open("/proc/thread-self/net/" + name + suffix)
		if suffix != "" && errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			err = f(file)
			file.Close()
		}
		if err != nil {
			return fmt.Errorf("count the sockets in the target's network: %w", err)
		}
	}
	return nil
}

// parseSockstat gives the sockets of a network in lines like
// "TCP: inuse 5 orphan 0 tw 2 alloc 7 mem 1" and "UDP6: inuse 1". Orphans are
// among those in use.
func parseSockstat(network, text string) (n int) {
	for line := range strings.Lines(text) {
		name, rest, _ := strings.Cut(line, ":")
		if strings.TrimSuffix(strings.ToLower(name), "6") != network {
			continue
		}
		f := strings.Fields(rest)
		for i := 0; i+1 < len(f); i += 2 {
			if v, err := strconv.Atoi(f[i+1]); err == nil && v > 0 && (f[i] == "inuse" || f[i] == "tw") {
				n += v
			}
		}
	}
	return n
}

// parseSocket gives the local port of a line like
// "   0: 0100007F:1F90 00000000:0000 0A …".
func parseSocket(line string) (port int, ok bool) {
	f := strings.Fields(line)
	if len(f) < 2 {
		return 0, false
	}
	_, hex, ok := strings.Cut(f[1], ":")
	v, err := strconv.ParseUint(hex, 16, 16)
	return int(v), ok && err == nil
}
