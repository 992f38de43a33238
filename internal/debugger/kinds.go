package debugger

import (
	"path"
	"slices"
	"strings"
)

// This file is what the arguments of each debugger mean.

// python reports whether a word is a module of Python's: named after -m, or by
// the path of its directory.
func python(word, module string) bool {
	return word == module || strings.HasSuffix(word, "/"+strings.ReplaceAll(module, ".", "/")) ||
		strings.HasSuffix(word, "/"+strings.ReplaceAll(module, ".", "/")+"/__main__.py")
}

// debugpyFlags are debugpy's options without a value (debugpy/server/cli.py);
// the others have one, but for those that tell the program.
var debugpyFlags = []string{"--wait-for-client", "--log-to-stderr"}

func (c *commandLine) debugpy() {
	for _, at := range c.program(func(w string) bool { return python(w, "debugpy") }) {
		for i := at; i < len(c.words) && strings.HasPrefix(c.words[i], "--"); {
			if v, next, ok := c.option(i, "--connect"); ok {
				c.dials(v)
				i = next
			} else if v, next, ok := c.option(i, "--listen"); ok {
				c.listens(v)
				i = next
			} else if strings.Contains(c.words[i], "=") || slices.Contains(debugpyFlags, c.words[i]) {
				i++
			} else if strings.HasPrefix(c.words[i], "--configure-") || c.words[i] == "--log-to" || c.words[i] == "--adapter-access-token" || c.words[i] == "--parent-session-pid" {
				i += 2
			} else {
				break
			}
		}
	}
	// An editor's adapter starts the launcher, which connects back: to a number
	// in front of "--".
	for _, at := range c.program(func(w string) bool { return python(w, "debugpy.launcher") }) {
		if at < len(c.words) {
			c.dials(c.words[at])
		}
	}
	// debugpy --listen leaves the listening to an adapter of its own.
	for _, at := range c.program(func(w string) bool { return python(w, "debugpy.adapter") }) {
		for i := at; i < len(c.words); i++ {
			if v, _, ok := c.option(i, "--port"); ok {
				c.listens(v)
			}
		}
	}
}

func (c *commandLine) pydevd() {
	for _, at := range c.program(func(w string) bool {
		return path.Base(w) == "pydevd.py" || python(w, "pydevd") || path.Base(w) == "pydevconsole.py"
	}) {
		client, port, serves := "", "", false
		for i := at; i < len(c.words) && c.words[i] != "--file"; i++ { // what follows is the program's
			if v, _, ok := c.option(i, "--client"); ok {
				client = v
			} else if v, _, ok := c.option(i, "--host"); ok {
				client = v
			} else if v, _, ok := c.option(i, "--port"); ok {
				port = v
			}
			serves = serves || c.words[i] == "--server" || c.words[i] == "--mode=server"
		}
		if serves || client == "" {
			c.listens(port)
		} else {
			c.dials(client + ":" + port)
		}
	}
}

func (c *commandLine) resharper() {
	for i := range c.words {
		if v, _, ok := c.option(i, "--frontend-port"); ok {
			c.dials(v)
		}
	}
}

// javaVariables are options of every Java program (JDK, java(1)).
var javaVariables = []string{"JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS", "_JAVA_OPTIONS"}

func (c *commandLine) java() {
	options := slices.Clone(c.words)
	for _, name := range javaVariables {
		v, _ := c.variable(name)
		options = append(options, strings.Fields(v)...)
	}
	for _, w := range options {
		w = strings.TrimPrefix(w, "-J") // jdk tools pass it on
		text, ok := strings.CutPrefix(w, "-agentlib:jdwp=")
		if !ok {
			text, ok = strings.CutPrefix(w, "-Xrunjdwp:")
		}
		if !ok {
			continue
		}
		address, serves := "", false
		for part := range strings.SplitSeq(text, ",") {
			switch k, v, _ := strings.Cut(part, "="); k {
			case "address":
				address = v
			case "server":
				serves = v == "y"
			}
		}
		if serves {
			c.listens(address)
		} else {
			c.dials(address)
		}
	}
}

// Ports that inspectors have by default (node(1), bun --help).
const (
	nodePort = "9229"
	bunPort  = "6499"
)

func (c *commandLine) node() {
	usual := nodePort
	if len(c.program(named("bun"))) > 0 {
		usual = bunPort
	}
	options := slices.Clone(c.words)
	v, _ := c.variable("NODE_OPTIONS")
	options = append(options, strings.Fields(v)...)
	for _, w := range options {
		name, at, given := strings.Cut(w, "=")
		switch name {
		case "--inspect", "--inspect-brk", "--inspect-wait", "--inspect-port", "--debug-port":
		default:
			continue
		}
		at, _, _ = strings.Cut(at, "/") // bun has a path there
		if _, _, ok := split(at); given && !ok && !strings.HasSuffix(at, "0") {
			at += ":" + usual // a host alone
		}
		if !given {
			at = usual
		}
		c.listens(at)
	}
	if _, ok := c.variable("VSCODE_INSPECTOR_OPTIONS"); ok { // js-debug has every node open one, at a port that its editor can forward
		c.found.Within = append(c.found.Within, Span{53000, 53999, c.kind})
	}
	if nodes := c.program(named("node", "nodejs")); len(nodes) > 0 {
		c.listens(nodePort) // which SIGUSR1 opens at any time
		for _, at := range nodes {
			if at+1 < len(c.words) && c.words[at] == "inspect" {
				c.dials(c.words[at+1]) // a program's name is no address
			}
		}
	}
}

func (c *commandLine) delve() {
	for _, at := range c.program(named("dlv", "dlv-dap")) {
		for i := at; i < len(c.words) && c.words[i] != "--"; i++ {
			if v, _, ok := c.option(i, "--client-addr"); ok {
				c.dials(v)
			} else if v, _, ok := c.option(i, "--listen"); ok {
				c.listens(v)
			} else if v, _, ok := c.option(i, "-l"); ok {
				c.listens(v)
			}
		}
		if at+1 < len(c.words) && c.words[at] == "connect" {
			c.dials(c.words[at+1])
		}
	}
}

// gdbserver has its address in front of the program (gdbserver(1)).
func (c *commandLine) gdbserver() {
	for _, at := range c.program(named("gdbserver")) {
		if at > 1 && lldbServer(c.words[at-2]) {
			continue // its mode of that name
		}
		for _, w := range c.words[at:] {
			if !strings.HasPrefix(w, "-") {
				c.listens(strings.TrimPrefix(w, "tcp:"))
				break
			}
		}
	}
}

func lldbServer(word string) bool {
	base := path.Base(word)
	return strings.HasPrefix(base, "lldb-server") || base == "debugserver"
}

func (c *commandLine) lldbServer() {
	for _, at := range c.program(lldbServer) {
		back := slices.Contains(c.words[at:], "--reverse-connect")
		for i := at; i < len(c.words) && c.words[i] != "--"; i++ {
			v, _, ok := c.option(i, "--listen")
			if !ok {
				v, _, ok = c.option(i, "--gdbserver-port")
			}
			switch {
			case ok:
				c.listens(v)
			case strings.HasPrefix(c.words[i], "-"):
			case back:
				c.dials(c.words[i])
			case strings.Contains(c.words[i], ":"):
				c.listens(c.words[i])
			}
		}
	}
}

func (c *commandLine) ruby() {
	if v, ok := c.variable("RUBY_DEBUG_PORT"); ok {
		c.listens(v)
	}
	for _, at := range c.program(named("rdbg", "rdebug-ide")) {
		for i := at; i < len(c.words) && c.words[i] != "--"; i++ {
			if v, _, ok := c.option(i, "--port"); ok {
				c.listens(v)
			} else if v, _, ok := c.option(i, "-p"); ok {
				c.listens(v)
			} else if v, _, ok := c.option(i, "--dispatcher-port"); ok {
				c.dials(v)
			}
		}
	}
}

// xdebugPort is where Xdebug 3 connects to by default.
const xdebugPort = "9003"

// xdebug connects from the program to the editor, once it is asked to debug.
func (c *commandLine) xdebug() {
	set := map[string]string{}
	if v, ok := c.variable("XDEBUG_CONFIG"); ok {
		for part := range strings.FieldsSeq(v) {
			k, v, _ := strings.Cut(part, "=")
			set[strings.TrimPrefix(k, "xdebug.")] = v
		}
	}
	for _, w := range c.words {
		if k, v, ok := strings.Cut(strings.TrimPrefix(w, "-d"), "="); ok && strings.HasPrefix(k, "xdebug.") {
			set[strings.TrimPrefix(k, "xdebug.")] = v
		}
	}
	if v, ok := c.variable("XDEBUG_MODE"); ok {
		set["mode"] = v
	}
	asked := strings.Contains(set["mode"], "debug") || set["remote_enable"] == "1"
	if _, ok := c.variable("XDEBUG_SESSION"); ok {
		asked = true
	}
	port := xdebugPort
	for _, name := range []string{"remote_port", "client_port"} {
		if v := set[name]; v != "" {
			port, asked = v, true
		}
	}
	host := set["client_host"]
	if host == "" {
		host = set["remote_host"]
	}
	if asked {
		c.dials(host + ":" + port)
	}
}
