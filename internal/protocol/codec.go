package protocol

import (
	"encoding/binary"
	"errors"
	"net/netip"
)

var errMalformed = errors.New("malformed")

// maxRepeated bounds the elements of one repeated field: more than any
// message of ours needs, few enough that a hostile peer cannot make small
// messages expand into large slices.
const maxRepeated = 64 << 10

// Wire types of Protocol Buffers.
const (
	wireVarint  = 0
	wireFixed64 = 1
	wireBytes   = 2
	wireFixed32 = 5
)

// codec is a visitor of a message's fields. It writes them to out, or, while
// reading, gives the one field that stands next in the body to whichever call
// asks for its number: so each message lists its fields once, for both ways.
// Zero values are not written.
type codec struct {
	out []byte // written fields

	reading bool
	num     uint64 // of the field being read
	varint  uint64 // its value, for wireVarint
	bytes   []byte // its value, for wireBytes
	isBytes bool
	err     error
}

// parseFields calls visit once for each field of body.
func parseFields(body []byte, visit func(*codec)) error {
	c := &codec{reading: true}
	for len(body) > 0 {
		tag, n := binary.Uvarint(body)
		if n <= 0 {
			return errMalformed
		}
		body = body[n:]
		c.num, c.isBytes = tag>>3, false
		switch tag & 7 {
		case wireVarint:
			c.varint, n = binary.Uvarint(body)
			if n <= 0 {
				return errMalformed
			}
			body = body[n:]
		case wireBytes:
			size, n := binary.Uvarint(body)
			if n <= 0 || size > uint64(len(body)-n) {
				return errMalformed
			}
			c.bytes, c.isBytes = body[n:n+int(size)], true
			body = body[n+int(size):]
		case wireFixed64, wireFixed32: // ours has none; a newer peer's are skipped
			skip := 8
			if tag&7 == wireFixed32 {
				skip = 4
			}
			if len(body) < skip {
				return errMalformed
			}
			body = body[skip:]
			continue
		default:
			return errMalformed
		}
		visit(c)
		if c.err != nil {
			return c.err
		}
	}
	return nil
}

// here reports whether the field being read is num and has the wanted form.
func (c *codec) here(num int, bytes bool) bool {
	if c.num != uint64(num) {
		return false
	}
	if c.isBytes != bytes {
		c.err = errMalformed
		return false
	}
	return true
}

func (c *codec) putVarint(num int, v uint64) {
	c.out = binary.AppendUvarint(c.out, uint64(num)<<3|wireVarint)
	c.out = binary.AppendUvarint(c.out, v)
}

func (c *codec) putBytes(num int, v []byte) {
	c.out = binary.AppendUvarint(c.out, uint64(num)<<3|wireBytes)
	c.out = binary.AppendUvarint(c.out, uint64(len(v)))
	c.out = append(c.out, v...)
}

// integer is any type that travels as a varint; negative numbers as their
// two's complement in 64 bits, as Protocol Buffers' int64.
type integer interface {
	~int | ~int64 | ~uint8 | ~uint16 | ~uint32 | ~uint64 | ~uintptr
}

func number[T integer](c *codec, num int, v *T) {
	if !c.reading {
		if *v != 0 {
			c.putVarint(num, uint64(*v))
		}
		return
	}
	if c.here(num, false) {
		*v = T(c.varint)
		if uint64(*v) != c.varint { // does not fit
			c.err = errMalformed
		}
	}
}

func (c *codec) boolean(num int, v *bool) {
	n := uint8(0)
	if *v {
		n = 1
	}
	number(c, num, &n)
	if c.reading { // a message that is written may be in use elsewhere
		*v = n != 0
	}
}

func (c *codec) text(num int, v *string) {
	if !c.reading {
		if *v != "" {
			c.putBytes(num, []byte(*v))
		}
		return
	}
	if c.here(num, true) {
		*v = string(c.bytes)
	}
}

// blob shares the memory of the message that is read.
func (c *codec) blob(num int, v *[]byte) {
	if !c.reading {
		if len(*v) > 0 {
			c.putBytes(num, *v)
		}
		return
	}
	if c.here(num, true) {
		*v = c.bytes
	}
}

// repeated visits a field that may stand many times; write and read turn one
// element into bytes and back.
func repeated[T any](c *codec, num int, list *[]T, write func(T) []byte, read func([]byte) (T, error)) {
	if !c.reading {
		for _, v := range *list {
			c.putBytes(num, write(v))
		}
		return
	}
	if !c.here(num, true) {
		return
	}
	if len(*list) >= maxRepeated {
		c.err = errMalformed
		return
	}
	v, err := read(c.bytes)
	if err != nil {
		c.err = errMalformed
		return
	}
	*list = append(*list, v)
}

func (c *codec) texts(num int, list *[]string) {
	repeated(c, num, list,
		func(s string) []byte { return []byte(s) },
		func(b []byte) (string, error) { return string(b), nil })
}

// addrPort is 4 or 16 bytes of address and 2 bytes of port, all in network
// order; the zero value is absent.
func (c *codec) addrPort(num int, v *netip.AddrPort) {
	if !c.reading {
		if v.IsValid() {
			c.putBytes(num, binary.BigEndian.AppendUint16(v.Addr().Unmap().AsSlice(), v.Port()))
		}
		return
	}
	if !c.here(num, true) {
		return
	}
	n := len(c.bytes) - 2
	if n != 4 && n != 16 {
		c.err = errMalformed
		return
	}
	a, _ := netip.AddrFromSlice(c.bytes[:n])
	*v = netip.AddrPortFrom(a.Unmap(), binary.BigEndian.Uint16(c.bytes[n:]))
}

// prefixes are 4 or 16 bytes of address and 1 byte of length each.
func (c *codec) prefixes(num int, list *[]netip.Prefix) {
	repeated(c, num, list,
		func(p netip.Prefix) []byte { return append(p.Addr().AsSlice(), byte(p.Bits())) },
		func(b []byte) (netip.Prefix, error) {
			if n := len(b) - 1; n != 4 && n != 16 {
				return netip.Prefix{}, errMalformed
			}
			a, _ := netip.AddrFromSlice(b[:len(b)-1])
			p := netip.PrefixFrom(a, int(b[len(b)-1]))
			if !p.IsValid() {
				return netip.Prefix{}, errMalformed
			}
			return p, nil
		})
}

// message visits a field that is a message of its own without a kind.
func submessage[T any](c *codec, num int, list *[]T, fields func(*T, *codec)) {
	repeated(c, num, list,
		func(v T) []byte {
			in := &codec{}
			fields(&v, in)
			return in.out
		},
		func(b []byte) (v T, err error) {
			err = parseFields(b, func(in *codec) { fields(&v, in) })
			return v, err
		})
}
