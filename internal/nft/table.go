package nft

import (
	"fmt"
	"math"
	"net/netip"

	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Table names a table of the family inet.
type Table struct {
	Name string
	// Owned: the table belongs to the socket that creates it. The kernel
	// removes it with all it holds when the socket is gone, also on kill -9,
	// and nobody else can change it (NFT_TABLE_F_OWNER, Linux 5.12).
	Owned bool
}

// OwnedTable creates an owned table in the calling thread's network namespace.
// It lives until the returned Conn is closed. EEXIST: there is one of that name.
func OwnedTable(name string) (*Conn, Table, error) {
	t := Table{Name: name, Owned: true}
	c, err := Open()
	if err != nil {
		return nil, t, err
	}
	if err := c.Apply(t.Create()); err != nil {
		c.Close()
		return nil, t, err
	}
	return c, t, nil
}

// Create makes the table; EEXIST if it exists.
func (t Table) Create() Change {
	const owner = 0x2 // NFT_TABLE_F_OWNER
	attrs := []netlink.Attribute{text(unix.NFTA_TABLE_NAME, t.Name)}
	if t.Owned {
		attrs = append(attrs, attr(unix.NFTA_TABLE_FLAGS, be32(owner)))
	}
	return Change{op: unix.NFT_MSG_NEWTABLE, flags: netlink.Create | netlink.Excl, attrs: attrs,
		what: "create table " + t.Name}
}

// Delete removes the table with all it holds.
func (t Table) Delete() Change {
	return Change{op: unix.NFT_MSG_DELTABLE, attrs: []netlink.Attribute{text(unix.NFTA_TABLE_NAME, t.Name)},
		what: "delete table " + t.Name}
}

// Type is the type of a set's keys or a map's values.
type Type struct{ magic, size uint32 }

// Types for sets and maps (the numbers that nft(8) shows them by).
var (
	TypePort = Type{13, 2} // inet_service: a port, network byte order
	TypeIPv4 = Type{7, 4}  // ipv4_addr
	TypeIPv6 = Type{8, 16} // ipv6_addr
)

// Set is a named set of a table, or a map when Value is given.
type Set struct {
	Table Table
	Name  string
	Key   Type
	Value Type // the zero Type: a set
}

// Create makes the set or map, empty.
func (s Set) Create() Change {
	attrs := []netlink.Attribute{
		text(unix.NFTA_SET_TABLE, s.Table.Name),
		text(unix.NFTA_SET_NAME, s.Name),
		attr(unix.NFTA_SET_KEY_TYPE, be32(s.Key.magic)),
		attr(unix.NFTA_SET_KEY_LEN, be32(s.Key.size)),
	}
	flags := uint32(0)
	if s.Value != (Type{}) {
		flags |= unix.NFT_SET_MAP
		attrs = append(attrs,
			attr(unix.NFTA_SET_DATA_TYPE, be32(s.Value.magic)),
			attr(unix.NFTA_SET_DATA_LEN, be32(s.Value.size)))
	}
	attrs = append(attrs, attr(unix.NFTA_SET_FLAGS, be32(flags)))
	return Change{op: unix.NFT_MSG_NEWSET, flags: netlink.Create, attrs: attrs, newID: true,
		what: fmt.Sprintf("create set %s of table %s", s.Name, s.Table.Name)}
}

// Element is a key of a set, with its value in a map.
type Element struct{ key, value []byte }

// Port is an element of a set of ports.
func Port(p uint16) Element { return Element{key: be16(p)} }

// PortAddr is an element of a map from ports to addresses; the address's
// family must be that of the map.
func PortAddr(p uint16, a netip.Addr) Element { return Element{be16(p), a.AsSlice()} }

// Add enters elements. What is there already stays and is no error in a set;
// in a map another value for the same key is EEXIST.
func (s Set) Add(elements ...Element) Change {
	return s.change(unix.NFT_MSG_NEWSETELEM, netlink.Create, "add to", elements)
}

// Delete takes elements out; ENOENT if one is not there.
func (s Set) Delete(elements ...Element) Change {
	return s.change(unix.NFT_MSG_DELSETELEM, 0, "delete from", elements)
}

func (s Set) change(op int, flags netlink.HeaderFlags, verb string, elements []Element) Change {
	c := Change{op: op, flags: flags, what: fmt.Sprintf("%s set %s of table %s", verb, s.Name, s.Table.Name)}
	var list []netlink.Attribute
	add := func(t uint16, attrs ...netlink.Attribute) netlink.Attribute {
		a, err := nest(t, attrs...)
		if err != nil && c.err == nil {
			c.err = err
		}
		return a
	}
	for _, e := range elements {
		attrs := []netlink.Attribute{add(unix.NFTA_SET_ELEM_KEY, attr(unix.NFTA_DATA_VALUE, e.key))}
		if e.value != nil {
			attrs = append(attrs, add(unix.NFTA_SET_ELEM_DATA, attr(unix.NFTA_DATA_VALUE, e.value)))
		}
		list = append(list, add(unix.NFTA_LIST_ELEM, attrs...))
	}
	c.attrs = []netlink.Attribute{
		text(unix.NFTA_SET_ELEM_LIST_TABLE, s.Table.Name),
		text(unix.NFTA_SET_ELEM_LIST_SET, s.Name),
		add(unix.NFTA_SET_ELEM_LIST_ELEMENTS, list...),
	}
	return c
}

// Hook is where and when a chain runs.
type Hook struct {
	typ      string
	num      uint32
	priority int32
}

// Hooks that our rules use, with the customary priorities (nft(8)).
var (
	NATPrerouting  = Hook{"nat", unix.NF_INET_PRE_ROUTING, -100} // dstnat
	NATOutput      = Hook{"nat", unix.NF_INET_LOCAL_OUT, -100}   // dstnat, of local processes
	NATPostrouting = Hook{"nat", unix.NF_INET_POST_ROUTING, 100} // srcnat
	// NATPostroutingFirst comes before the rules of others: of all rules the
	// first that translates a connection's source is the one that counts.
	NATPostroutingFirst = Hook{"nat", unix.NF_INET_POST_ROUTING, 99}
	// These come after the rules of others, whatever priority those have, and get
	// only what none of them has led elsewhere. The priority orders chains of NAT
	// among themselves alone: all of them run where the kernel has NAT (at -100,
	// nf_nat_register_fn in net/netfilter/nf_nat_core.c), none later for a larger
	// number. Of two chains with the same priority the newer is the first.
	NATPreroutingLast = Hook{"nat", unix.NF_INET_PRE_ROUTING, math.MaxInt32}
	NATOutputLast     = Hook{"nat", unix.NF_INET_LOCAL_OUT, math.MaxInt32}
)

// Chain is a base chain of a table.
type Chain struct {
	Table Table
	Name  string
	Hook  Hook
}

// Create makes the chain, empty, with the policy accept.
func (c Chain) Create() Change {
	hook, err := nest(unix.NFTA_CHAIN_HOOK,
		attr(unix.NFTA_HOOK_HOOKNUM, be32(c.Hook.num)),
		attr(unix.NFTA_HOOK_PRIORITY, be32(uint32(c.Hook.priority))))
	return Change{op: unix.NFT_MSG_NEWCHAIN, flags: netlink.Create, err: err,
		what: fmt.Sprintf("create chain %s of table %s", c.Name, c.Table.Name),
		attrs: []netlink.Attribute{
			text(unix.NFTA_CHAIN_TABLE, c.Table.Name),
			text(unix.NFTA_CHAIN_NAME, c.Name),
			hook,
			text(unix.NFTA_CHAIN_TYPE, c.Hook.typ),
		}}
}

// Rule appends a rule: the parts must match one after another, then those that
// act do so.
func (c Chain) Rule(parts ...Expr) Change {
	ch := Change{op: unix.NFT_MSG_NEWRULE, flags: netlink.Create | netlink.Append,
		what: fmt.Sprintf("add rule to chain %s of table %s", c.Name, c.Table.Name)}
	var list []netlink.Attribute
	for _, p := range parts {
		for _, e := range p.list {
			b, err := expr.Marshal(unix.NFPROTO_INET, e)
			if err != nil {
				ch.err = err
				return ch
			}
			list = append(list, attr(unix.NFTA_LIST_ELEM|unix.NLA_F_NESTED, b))
		}
	}
	exprs, err := nest(unix.NFTA_RULE_EXPRESSIONS, list...)
	ch.err = err
	ch.attrs = []netlink.Attribute{text(unix.NFTA_RULE_TABLE, c.Table.Name), text(unix.NFTA_RULE_CHAIN, c.Name), exprs}
	return ch
}
