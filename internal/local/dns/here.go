package dns

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"
)

const (
	// serverTime bounds one try of a name server: the default of resolv.conf(5).
	serverTime = 5 * time.Second
	// confTime is how long this machine's resolv.conf is taken for what was read:
	// programs make many flows at once, a VPN changes the file a few times a day.
	confTime = time.Second
	// maxMessage is the longest message, in bytes: its length has 16 bits over TCP,
	// and UDP carries no more.
	maxMessage = 1<<16 - 1
)

// Here is this machine's name resolution.
type Here struct {
	// Lookup gives all addresses of a name, as programs of this machine get
	// them: hosts file, search list. That there is no such name is a
	// *net.DNSError with IsNotFound.
	Lookup func(ctx context.Context, name string) ([]netip.Addr, error)
	// Exchange asks a name server of this machine, over "udp" or "tcp", and
	// gives its reply as it is.
	Exchange func(ctx context.Context, network string, query []byte) ([]byte, error)
}

// Machine is the resolution of the machine that this process runs on. Its
// files are read when they are needed: a VPN changes them.
func Machine() Here {
	return Here{
		Lookup: func(ctx context.Context, name string) ([]netip.Addr, error) {
			addrs, err := new(net.Resolver).LookupNetIP(ctx, "ip", name)
			for i, a := range addrs {
				addrs[i] = a.Unmap()
			}
			return addrs, err
		},
		Exchange: func(ctx context.Context, network string, query []byte) ([]byte, error) {
			var servers []netip.AddrPort
			for _, s := range MachineConf().Servers {
				servers = append(servers, netip.AddrPortFrom(s, port))
			}
			return exchange(ctx, servers, network, query)
		},
	}
}

// MachineConf is the machine's resolv.conf; without one, what resolvers take
// for it.
func MachineConf() Conf {
	b, _ := os.ReadFile("/etc/resolv.conf")
	return ParseConf(string(b))
}

// Remembered gives what read gives, which it asks again when that is older
// than confTime. Name servers of earlier come behind those of now: programs
// that read the file once go on asking them. It may be called concurrently.
func Remembered(read func() Conf) func() Conf {
	var mu sync.Mutex
	var c Conf
	var at time.Time
	return func() Conf {
		mu.Lock()
		defer mu.Unlock()
		if at.IsZero() || time.Since(at) > confTime {
			earlier := c.Servers
			c, at = read(), time.Now()
			for _, s := range earlier {
				if len(c.Servers) < maxServers && !slices.Contains(c.Servers, s) {
					c.Servers = append(c.Servers, s)
				}
			}
		}
		return c
	}
}

// MachineHosts is the machine's hosts file.
func MachineHosts() map[netip.Addr][]string {
	b, _ := os.ReadFile("/etc/hosts")
	return ParseHosts(string(b))
}

// exchange asks servers one after the other.
func exchange(ctx context.Context, servers []netip.AddrPort, network string, query []byte) ([]byte, error) {
	err := errors.New("this machine has no name server")
	for _, s := range servers {
		var reply []byte
		if reply, err = ask(ctx, s, network, query); err == nil || ctx.Err() != nil {
			return reply, err
		}
	}
	return nil, err
}

func ask(ctx context.Context, server netip.AddrPort, network string, query []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, serverTime)
	defer cancel()
	c, err := new(net.Dialer).DialContext(ctx, network, server.String())
	if err != nil {
		return nil, fmt.Errorf("ask name server %v: %w", server, err)
	}
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	b, err := talk(c, network, query)
	if err != nil {
		return nil, fmt.Errorf("ask name server %v: %w", server, err)
	}
	return b, nil
}

// talk waits for the reply with the number of the query.
func talk(c net.Conn, network string, query []byte) ([]byte, error) {
	tcp := network == "tcp"
	if tcp {
		query = framed(query)
	}
	if _, err := c.Write(query); err != nil {
		return nil, err
	}
	if tcp {
		query = query[2:]
	}
	buf := make([]byte, maxMessage)
	for {
		b := buf
		if tcp {
			if _, err := io.ReadFull(c, buf[:2]); err != nil {
				return nil, err
			}
			b = buf[:binary.BigEndian.Uint16(buf)]
			if _, err := io.ReadFull(c, b); err != nil {
				return nil, err
			}
		} else {
			n, err := c.Read(buf)
			if err != nil {
				return nil, err
			}
			b = buf[:n]
		}
		if len(b) >= 2 && len(query) >= 2 && b[0] == query[0] && b[1] == query[1] {
			return b, nil
		}
	}
}

// framed puts the length in front, as over TCP (RFC 1035 §4.2.2).
func framed(message []byte) []byte {
	return append(binary.BigEndian.AppendUint16(make([]byte, 0, 2+len(message)), uint16(len(message))), message...)
}
