// Package jetbrains writes run configurations of JetBrains' IDEs, for commands that run
// in a session.
//
// The command line writes them into a project's .run directory, from where the IDEs
// read what a team shares. A command becomes one of type Shell Script; where its words
// say that a debugger waits in it, another one attaches to that. It is pure: words in,
// files out. The formats are those that the IDEs write ("Store as project file").
package jetbrains

import (
	"encoding/xml"
	"fmt"
	"strings"

	"github.com/mirrord-go/mirrord/internal/debugger"
	"github.com/mirrord-go/mirrord/internal/shell"
)

// Configuration is a file of a project's.
type Configuration struct {
	Name string // in the IDE's list
	File string // its name in .run
	XML  []byte
}

// Made are the configurations of a command, and what a person has to know of them.
type Made struct {
	Configurations []Configuration
	Notes          []string
}

// folder is where the IDE's list has them, which tells them from others.
const folder = "mirrord"

// Own reports whether a file is one that Make has given.
func Own(text []byte) bool {
	var doc component
	return xml.Unmarshal(text, &doc) == nil && doc.Configuration.Folder == folder
}

// component is the document of a run configuration.
type component struct {
	XMLName       xml.Name      `xml:"component"`
	Name          string        `xml:"name,attr"`
	Configuration configuration `xml:"configuration"`
}

type configuration struct {
	Default bool       `xml:"default,attr"`
	Name    string     `xml:"name,attr"`
	Type    string     `xml:"type,attr"`
	Folder  string     `xml:"folderName,attr"`
	Attrs   []xml.Attr `xml:",any,attr"`
	Options []option   `xml:"option"`
	Method  method     `xml:"method"`
}

type option struct {
	Name  string `xml:"name,attr"`
	Value string `xml:"value,attr"`
}

type method struct {
	V string `xml:"v,attr"`
}

// attaches is how each kind of debugger that waits is attached to.
var attaches = map[debugger.Kind]func(port uint16) configuration{
	debugger.Node: func(port uint16) configuration {
		return configuration{Type: "ChromiumRemoteDebugType", Attrs: attrs("factoryName", "Chromium Remote", "port", fmt.Sprint(port), "restartOnDisconnect", "true")}
	},
	debugger.Java: func(port uint16) configuration {
		return configuration{Type: "Remote", Options: []option{{"USE_SOCKET_TRANSPORT", "true"}, {"SERVER_MODE", "false"}, {"HOST", "localhost"}, {"PORT", fmt.Sprint(port)}, {"AUTO_RESTART", "false"}}}
	},
	debugger.Delve: func(port uint16) configuration {
		return configuration{Type: "GoRemoteDebugConfigurationType", Attrs: attrs("factoryName", "Go Remote", "port", fmt.Sprint(port))}
	},
	debugger.GDB: func(port uint16) configuration {
		return configuration{Type: "CLion_Remote", Attrs: attrs("version", "1", "remoteCommand", fmt.Sprintf("127.0.0.1:%d", port), "symbolFile", "", "sysroot", "")}
	},
}

func attrs(pairs ...string) (all []xml.Attr) {
	for i := 0; i < len(pairs); i += 2 {
		all = append(all, xml.Attr{Name: xml.Name{Local: pairs[i]}, Value: pairs[i+1]})
	}
	return all
}

// Make gives the configurations of argv, called name. front is what runs it in a
// session: mirrord, exec, flags, --.
func Make(name string, front, argv []string) Made {
	script := shell.Line(append(append([]string{}, front...), argv...)...)
	var m Made
	m.add(name, configuration{Type: "ShConfigurationType", Options: []option{
		{"SCRIPT_TEXT", script}, {"INDEPENDENT_SCRIPT_PATH", "true"}, {"SCRIPT_PATH", ""}, {"SCRIPT_OPTIONS", ""},
		{"INDEPENDENT_SCRIPT_WORKING_DIRECTORY", "true"}, {"SCRIPT_WORKING_DIRECTORY", "$PROJECT_DIR$"},
		{"INDEPENDENT_INTERPRETER_PATH", "true"}, {"INTERPRETER_PATH", "/bin/sh"}, {"INTERPRETER_OPTIONS", ""},
		{"EXECUTE_IN_TERMINAL", "true"}, {"EXECUTE_SCRIPT_FILE", "false"},
	}})
	found := debugger.Find(argv, nil, debugger.Kinds())
	seen := map[debugger.Kind]bool{}
	for _, p := range found.Listens {
		if seen[p.Kind] {
			continue // a further one that it may open: the one that is asked for comes first
		}
		seen[p.Kind] = true
		attach := attaches[p.Kind]
		if attach == nil {
			m.Notes = append(m.Notes, fmt.Sprintf("%s waits for its debugger at port %d, to which JetBrains' IDEs do not attach", p.Kind, p.Number))
			continue
		}
		m.add(name+" (debugger)", attach(p.Number))
		m.Notes = append(m.Notes, fmt.Sprintf("run %q, and when its line about port %d has come, debug %q", name, p.Number, name+" (debugger)"))
	}
	for _, p := range found.Dials {
		if p.Kind == debugger.Pydevd {
			m.add(name+" (debugger)", configuration{Type: "PyRemoteDebugConfigurationType", Attrs: attrs("factoryName", "Python Remote Debug"),
				Options: []option{{"PORT", fmt.Sprint(p.Number)}, {"HOST", "localhost"}, {"SUSPEND_AFTER_CONNECT", "true"}}})
			m.Notes = append(m.Notes, fmt.Sprintf("debug %q first: it waits at port %d for %q", name+" (debugger)", p.Number, name))
		}
	}
	return m
}

func (m *Made) add(name string, c configuration) {
	c.Name, c.Folder, c.Method.V = name, folder, "2"
	text, err := xml.MarshalIndent(component{Name: "ProjectRunConfigurationManager", Configuration: c}, "", "  ")
	if err != nil {
		panic(err) // it is made of texts
	}
	m.Configurations = append(m.Configurations, Configuration{Name: name, File: fileName(name), XML: append(text, '\n')})
}

// fileName is how the IDEs name the file of a configuration.
func fileName(name string) string {
	return strings.Map(func(r rune) rune {
		if strings.ContainsRune(`/\:*?"<>|`, r) || r < ' ' {
			return '_'
		}
		return r
	}, name) + ".run.xml"
}
