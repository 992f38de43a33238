package handoff

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"syscall"
)

// Strings of the environment may hold any byte, so the encoding is binary:
// unsigned varints, and strings and lists with their length before them.

var errShort = errors.New("message ends early")

// Encode gives the bytes of s.
func (s *Spec) Encode() []byte {
	var b []byte
	b = appendList(b, s.Argv)
	b = appendList(b, s.Env)
	b = appendString(b, s.Dir)
	b = appendString(b, s.Hostname)
	b = binary.AppendUvarint(b, uint64(len(s.Addrs)))
	for _, a := range s.Addrs {
		b = appendString(b, a.String())
	}
	b = append(b, s.SYNRetries, s.SYNLinear)
	b = binary.AppendUvarint(b, uint64(s.MaxRead))
	b = appendBools(b, s.FUSE, s.DefaultPermissions, s.Poll, s.NoIPv6, s.Connects)
	return appendList(appendList(b, s.Binds), s.Hides)
}

// DecodeSpec reads what Encode made.
func DecodeSpec(b []byte) (*Spec, error) {
	d := decoder{b: b}
	s := &Spec{Argv: d.list(), Env: d.list(), Dir: d.string(), Hostname: d.string()}
	for range d.count() {
		a, err := netip.ParsePrefix(d.string())
		if err != nil && d.err == nil {
			d.err = err
		}
		s.Addrs = append(s.Addrs, a)
	}
	s.SYNRetries, s.SYNLinear = d.byte(), d.byte()
	maxRead := d.uint()
	if maxRead > 1<<32-1 {
		d.err = errors.New("number out of range")
	}
	s.MaxRead = uint32(maxRead)
	d.bools(&s.FUSE, &s.DefaultPermissions, &s.Poll, &s.NoIPv6, &s.Connects)
	s.Binds, s.Hides = d.list(), d.list()
	if err := d.end(); err != nil {
		return nil, fmt.Errorf("decode sandbox spec: %w", err)
	}
	return s, nil
}

// Encode gives the bytes of e.
func (e *Error) Encode() []byte {
	b := appendString(nil, string(e.Step))
	b = appendString(b, e.Path)
	b = appendString(b, e.Text)
	return appendBools(binary.AppendUvarint(b, uint64(e.Errno)), e.Instead)
}

// DecodeError reads what Encode made.
func DecodeError(b []byte) (*Error, error) {
	d := decoder{b: b}
	e := &Error{Step: Step(d.string()), Path: d.string(), Text: d.string(), Errno: syscall.Errno(d.uint())}
	d.bools(&e.Instead)
	if err := d.end(); err != nil {
		return nil, fmt.Errorf("decode sandbox error: %w", err)
	}
	return e, nil
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func appendList(b []byte, l []string) []byte {
	b = binary.AppendUvarint(b, uint64(len(l)))
	for _, s := range l {
		b = appendString(b, s)
	}
	return b
}

func appendBools(b []byte, all ...bool) []byte {
	var v byte
	for i, x := range all {
		if x {
			v |= 1 << i
		}
	}
	return append(b, v)
}

// decoder reads values one after another; the first error stays.
type decoder struct {
	b   []byte
	err error
}

func (d *decoder) uint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.fail()
		return 0
	}
	d.b = d.b[n:]
	return v
}

// count is the length of a list; each element takes a byte at least.
func (d *decoder) count() int {
	n := d.uint()
	if n > uint64(len(d.b)) {
		d.fail()
		return 0
	}
	return int(n)
}

func (d *decoder) string() string {
	n := d.count()
	s := string(d.b[:n])
	d.b = d.b[n:]
	return s
}

func (d *decoder) list() []string {
	var l []string
	for range d.count() {
		l = append(l, d.string())
	}
	return l
}

func (d *decoder) byte() (v byte) {
	if len(d.b) == 0 {
		d.fail()
		return 0
	}
	v, d.b = d.b[0], d.b[1:]
	return v
}

func (d *decoder) bools(all ...*bool) {
	v := d.byte()
	if v>>len(all) != 0 && d.err == nil {
		d.err = errors.New("unknown flag")
	}
	for i, x := range all {
		*x = v>>i&1 != 0
	}
}

func (d *decoder) fail() {
	if d.err == nil {
		d.err = errShort
	}
	d.b = nil
}

func (d *decoder) end() error {
	if d.err == nil && len(d.b) > 0 {
		return errors.New("message has more than it should")
	}
	return d.err
}
