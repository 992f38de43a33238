// Package debugger knows debuggers by the command lines of the processes that
// they start and listen in.
//
// A debugger and its program talk over localhost, which in a session is the
// target's. So the session asks here which ports of localhost a command means
// on this machine, since its debugger waits there, and which ports of its own
// are a debugger's, so that no traffic of the target is asked for. It is pure:
// it reads arguments and variables and touches nothing. What it does not know
// it says nothing of.
package debugger

import (
	"net/netip"
	"path"
	"slices"
	"strconv"
	"strings"
)

// Kind is a family of debuggers that agree on their arguments.
type Kind string

// Kinds. The first five are mirrord's names.
const (
	Debugpy   Kind = "debugpy"
	Pydevd    Kind = "pydevd"        // PyCharm
	Resharper Kind = "resharper"     // Rider
	Java      Kind = "javaagent"     // JDWP
	Node      Kind = "nodeinspector" // and bun, deno
	Delve     Kind = "delve"
	GDB       Kind = "gdbserver"
	LLDB      Kind = "lldb"
	Ruby      Kind = "ruby" // rdbg, ruby-debug-ide
	Xdebug    Kind = "xdebug"
)

// Kinds are all of them, in the order in which they are looked for.
func Kinds() []Kind {
	return []Kind{Debugpy, Pydevd, Resharper, Java, Node, Delve, GDB, LLDB, Ruby, Xdebug}
}

// Port is a port of localhost and whose it is.
type Port struct {
	Number uint16
	Kind   Kind
}

// Ports are what a command line says of its debugger.
type Ports struct {
	Dials   []Port // the program connects to them: the debugger waits there
	Listens []Port // the program waits there for its debugger
	Within  []Span // it waits at one of them
}

// Span are ports of which one is taken that is free.
type Span struct {
	First, Last uint16
	Kind        Kind
}

// Find reads a command line and its variables ("NAME=value") for debuggers of
// these kinds. Scripts of shells (sh -c) are looked through word by word.
func Find(argv, env []string, kinds []Kind) Ports {
	c := &commandLine{words: words(argv), env: env}
	for _, k := range kinds {
		c.kind = k
		switch k {
		case Debugpy:
			c.debugpy()
		case Pydevd:
			c.pydevd()
		case Resharper:
			c.resharper()
		case Java:
			c.java()
		case Node:
			c.node()
		case Delve:
			c.delve()
		case GDB:
			c.gdbserver()
		case LLDB:
			c.lldbServer()
		case Ruby:
			c.ruby()
		case Xdebug:
			c.xdebug()
		}
	}
	return c.found
}

// kindOf gives the kind of debugger whose port number is; "" if it is none's.
func kindOf(ports []Port, number uint16) Kind {
	for _, p := range ports {
		if p.Number == number {
			return p.Kind
		}
	}
	return ""
}

// DialsTo gives the kind of debugger that waits at a port; "" if none does.
func (p *Ports) DialsTo(number uint16) Kind { return kindOf(p.Dials, number) }

// ListensAt gives the kind of debugger that a port is for; "" if it is none's.
func (p *Ports) ListensAt(number uint16) Kind {
	for _, s := range p.Within {
		if s.First <= number && number <= s.Last {
			return s.Kind
		}
	}
	return kindOf(p.Listens, number)
}

// Add adds what q has and p has not.
func (p *Ports) Add(q Ports) {
	add(&p.Dials, q.Dials)
	add(&p.Listens, q.Listens)
	add(&p.Within, q.Within)
}

func add[T comparable](to *[]T, from []T) {
	for _, one := range from {
		if !slices.Contains(*to, one) {
			*to = append(*to, one)
		}
	}
}

// commandLine is one that is being read, for one kind after the other.
type commandLine struct {
	words []string
	env   []string
	kind  Kind
	found Ports
}

// shells are programs whose -c has a script.
var shells = []string{"sh", "bash", "dash", "ash", "zsh", "ksh", "fish", "busybox"}

// words are the words of a command line, those of a shell's script included:
// not as the shell reads them, but enough to find options in them.
func words(argv []string) []string {
	all := slices.Clone(argv)
	for i, w := range argv {
		if i == 0 || !strings.HasPrefix(w, "-") || strings.HasPrefix(w, "--") || !strings.HasSuffix(w, "c") || i+1 == len(argv) {
			continue
		}
		if slices.ContainsFunc(argv[:i], func(s string) bool { return slices.Contains(shells, path.Base(s)) }) {
			all = append(all, strings.FieldsFunc(argv[i+1], func(r rune) bool { return strings.ContainsRune(" \t\r\n;&|()'\"`", r) })...)
			break
		}
	}
	return all
}

// program gives the offset behind each word that names a program or a module.
func (c *commandLine) program(is func(word string) bool) (after []int) {
	for i, w := range c.words {
		if is(w) {
			after = append(after, i+1)
		}
	}
	return after
}

// named is a test for programs with one of these names, whatever the directory.
func named(names ...string) func(string) bool {
	return func(word string) bool { return slices.Contains(names, path.Base(word)) }
}

// option gives the value of the option at i if it is called name: what follows
// "=", else the next word. next is where the next option may be.
func (c *commandLine) option(i int, name string) (value string, next int, ok bool) {
	w := c.words[i]
	if w == name {
		if i+1 < len(c.words) {
			return c.words[i+1], i + 2, true
		}
		return "", i + 1, false
	}
	if v, found := strings.CutPrefix(w, name+"="); found {
		return v, i + 1, true
	}
	return "", i + 1, false
}

// variable gives the value of a variable, of several the last.
func (c *commandLine) variable(name string) (value string, ok bool) {
	for _, kv := range c.env {
		if v, found := strings.CutPrefix(kv, name+"="); found {
			value, ok = v, true
		}
	}
	return value, ok
}

// dials notes that the program connects to an address, if that is one of
// localhost.
func (c *commandLine) dials(address string) {
	if host, port, ok := split(address); ok && local(host) {
		c.found.Add(Ports{Dials: []Port{{port, c.kind}}})
	}
}

// listens notes that it listens at an address.
func (c *commandLine) listens(address string) {
	if _, port, ok := split(address); ok {
		c.found.Add(Ports{Listens: []Port{{port, c.kind}}})
	}
}

// split reads [HOST:]PORT, with the host as programs write it. Port 0, which
// is any, is none.
func split(address string) (host string, port uint16, ok bool) {
	host, number := "", address
	if i := strings.LastIndexByte(address, ':'); i >= 0 {
		host, number = address[:i], address[i+1:]
	}
	n, err := strconv.ParseUint(number, 10, 16)
	return strings.Trim(host, "[]"), uint16(n), err == nil && n != 0
}

// local reports whether a host is this machine for who connects to it. None is.
func local(host string) bool {
	if host == "" || host == "*" || strings.EqualFold(host, "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && (ip.Unmap().IsLoopback() || ip.IsUnspecified())
}
