// Package protocoltest holds one example of every message, for the tests of
// both ends. Their bytes are in docs/protocol-vectors.txt, for other
// implementers, and a test of package protocol holds the two together.
package protocoltest

import (
	"net/netip"
	"syscall"

	"github.com/mirrord-go/mirrord/internal/protocol"
)

// Vector is a named example of a message.
type Vector struct {
	Name    string
	Message protocol.Message
}

// Vectors gives every message of the protocol at least once.
func Vectors() []Vector {
	v4 := netip.MustParseAddrPort("10.1.2.3:5432")
	v6 := netip.MustParseAddrPort("[2001:db8::1]:443")
	attr := protocol.Attr{Ino: 7, Size: 5, Mode: 0o100644, Nlink: 1, UID: 1000, GID: 1000, Mtime: 1_700_000_000_000_000_001}
	return []Vector{
		{"hello", &protocol.Hello{Min: 1, Max: 1, Software: "mirrord 0.1.0", Session: "s1", User: "ann@laptop"}},
		{"welcome", &protocol.Welcome{Version: 1, Software: "mirrord-agent 0.1.0", Hostname: "shop-0",
			Addrs:  []netip.Prefix{netip.MustParsePrefix("10.1.2.3/24"), netip.MustParsePrefix("fd00::3/64")},
			Mounts: []string{"/etc/app"}, UID: 1000, GID: 1000, Dir: "/app", Features: []string{protocol.FeatureSteal}, SYNRetries: 6, SYNLinear: 4}},
		{"welcome of a targetless agent", &protocol.Welcome{Version: 1, Targetless: true}},
		{"answer yes", &protocol.Answer{}},
		{"answer yes with address", &protocol.Answer{Addr: v4}},
		{"answer refused", &protocol.Answer{Errno: syscall.ECONNREFUSED}},
		{"answer taken", &protocol.Answer{Errno: syscall.EADDRINUSE, Cause: protocol.CauseTaken, Text: "port 80 has been taken over by bob@desk"}},
		{"answer held", &protocol.Answer{Errno: syscall.EADDRINUSE, Cause: protocol.CauseHeld, Text: "port 80 is held by bob@desk"}},
		{"env request", &protocol.EnvRequest{}},
		{"env", &protocol.Env{Vars: []string{"COLOR=blue", "EMPTY="}}},
		{"notice", &protocol.Notice{Code: "no-steal", Text: "no CAP_NET_ADMIN"}},
		{"bye", &protocol.Bye{Code: "target-ended"}},
		{"lost", &protocol.Lost{Packets: 300, Copies: 2}},
		{"join", &protocol.Join{Port: 80, Holder: "ann@laptop", Began: 1_700_000_000_000_000_001}},
		{"counts request", &protocol.CountsRequest{}},
		{"counts", &protocol.Counts{Passed: 300, Returned: 2, Refused: 1, Packets: 40, Copies: 3, Ended: 7}},
		{"profile", &protocol.Profile{Name: "profile", Seconds: 30}},
		{"dial tcp", &protocol.Dial{Network: protocol.NetworkTCP, Addr: v4}},
		{"dial udp v6", &protocol.Dial{Network: protocol.NetworkUDP, Addr: v6}},
		{"dial unix", &protocol.Dial{Network: protocol.NetworkUnix, Name: "/var/run/app.sock", Wait: true}},
		{"dial unix abstract packet", &protocol.Dial{Network: protocol.NetworkUnixPacket, Name: "\x00app"}},
		{"datagram", &protocol.Datagram{Data: []byte("ping")}},
		{"datagram unreachable", &protocol.Datagram{Errno: syscall.ECONNREFUSED}},
		{"lookup", &protocol.Lookup{Addr: v4, Query: []byte("A? db.")}},
		{"subscribe", &protocol.Subscribe{Port: 80, Mode: protocol.ModeSteal}},
		{"subscribe with a filter of bodies", &protocol.Subscribe{Port: 80, Mode: protocol.ModeMirror, Filter: `{"body":{"kind":"text","matches":{"text":"a"}}}`, BodySize: 4096, BodyTime: 2000}},
		{"subscribe with a filter", &protocol.Subscribe{Port: 80, Mode: protocol.ModeSteal, Filter: `{"path":{"text":"^/api/"}}`, Probes: []string{"/healthz", "/ready?full=1"}}},
		{"subscribe that ends connections", &protocol.Subscribe{Port: 80, Mode: protocol.ModeSteal, Existing: protocol.ExistingIdle}},
		{"subscribe to copies with replies", &protocol.Subscribe{Port: 80, Mode: protocol.ModeMirror, Replies: true}},
		{"incoming copy with replies", &protocol.Incoming{Port: 80, Mode: protocol.ModeMirror, Peer: netip.MustParseAddrPort("192.0.2.7:50000"), Local: netip.MustParseAddrPort("10.1.2.3:80"), Replies: true}},
		{"subscribe that takes over", &protocol.Subscribe{Port: 80, Mode: protocol.ModeSteal, Override: true}},
		{"subscribe to datagrams", &protocol.Subscribe{Port: 53, Mode: protocol.ModeSteal | protocol.ModeUDP}},
		{"incoming", &protocol.Incoming{Port: 80, Mode: protocol.ModeMirror, Peer: v6, Local: v4}},
		{"stat", &protocol.Stat{Path: "/data/hello.txt", Prefetch: 65536}},
		{"attr", &attr},
		{"attr with content", &protocol.Attr{Mode: 0o100644, HasData: true, Data: []byte("hi")}},
		{"open", &protocol.Open{Path: "/data/hello.txt", Flags: 0, Prefetch: 65536}},
		{"opened", &protocol.Opened{Handle: 3, Attr: attr, Data: []byte("hello"), EOF: true}},
		{"read at", &protocol.ReadAt{Handle: 3, Off: 1 << 33, N: 131072}},
		{"data", &protocol.Data{Bytes: []byte("hello")}},
		{"close handle", &protocol.CloseHandle{Handle: 3}},
		{"read dir", &protocol.ReadDir{Path: "/data"}},
		{"entries", &protocol.Entries{List: []protocol.Entry{{Name: "a", Attr: attr}, {Name: "b"}}}},
		{"readlink", &protocol.Readlink{Path: "/app/current"}},
		{"statfs", &protocol.Statfs{Path: "/"}},
		{"fsinfo", &protocol.Fsinfo{Type: 0x794c7630, Bsize: 4096, Namelen: 255}},
		{"stat of a handle", &protocol.Stat{Handle: 3}},
		{"open to create", &protocol.Open{Path: "/data/new", Flags: 0o301, Mode: 0o644}},
		{"write at", &protocol.WriteAt{Handle: 3, Off: 4096, Data: []byte("hello")}},
		{"write in place", &protocol.WriteAt{Handle: 3, Off: 4096, Data: []byte("hello"), InPlace: true}},
		{"resize", &protocol.Resize{Handle: 3, Size: 4096}},
		{"sync handle", &protocol.SyncHandle{Handle: 3}},
		{"make directory", &protocol.Make{Path: "/data/dir", Mode: 0o040755}},
		{"make symbolic link", &protocol.Make{Path: "/data/link", Mode: 0o120777, Text: "dir/x"}},
		{"make hard link", &protocol.Make{Path: "/data/second", Old: "/data/new"}},
		{"remove", &protocol.Remove{Path: "/data/dir", Dir: true}},
		{"rename", &protocol.Rename{Old: "/data/new", New: "/data/newer", Flags: 1}},
		{"set attributes", &protocol.SetAttr{Path: "/data/newer", What: protocol.SetMode | protocol.SetMtime | protocol.SetAtimeNow, Mode: 0o600, Mtime: -1}},
		{"set the owner of a handle", &protocol.SetAttr{Handle: 3, What: protocol.SetUID | protocol.SetGID, UID: 1000, GID: 1000}},
		{"make a handle's name", &protocol.Make{Path: "/data/named", Handle: 3}},
		{"allocate", &protocol.Allocate{Handle: 3, Off: 4096, Len: 1 << 20, Mode: 1}},
		{"seek", &protocol.Seek{Handle: 3, Off: 4096, Whence: 4}},
		{"position", &protocol.Position{Off: 1 << 33}},
		{"copy range", &protocol.CopyRange{From: 3, To: 4, FromOff: 4096, ToOff: 1, Len: 1 << 20}},
		{"get extended attribute", &protocol.GetXattr{Path: "/data/new", Name: "user.note"}},
		{"list extended attributes", &protocol.ListXattr{Path: "/data/new"}},
		{"set extended attribute", &protocol.SetXattr{Path: "/data/new", Name: "user.note", Value: []byte("x"), Flags: 1}},
		{"remove extended attribute", &protocol.RemoveXattr{Path: "/data/new", Name: "user.note"}},
		{"survey", &protocol.Survey{Path: "/data", Bytes: 196608, Content: 65536, Depth: 4}},
		{"survey below", &protocol.Survey{Path: "/data", Bytes: 65536, Depth: 1, Listed: true}},
		{"survey of names", &protocol.Survey{Path: "/data", Names: []string{"a", "b"}, Bytes: 65536, Content: 65536}},
		{"entries of a directory below", &protocol.Entries{Dir: "dir/x", List: []protocol.Entry{{Name: "a", Attr: attr}}, End: protocol.EndWhole, Attr: protocol.Attr{Ino: 8, Mode: 0o040755, Mtime: 1}}},
		{"attr with settled content", &protocol.Attr{Mode: 0o100644, HasData: true, Data: []byte("hi"), Settled: true}},
	}
}
