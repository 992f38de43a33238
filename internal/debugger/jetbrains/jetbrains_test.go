package jetbrains

import (
	"encoding/xml"
	"os/exec"
	"strings"
	"testing"
)

// read is what an IDE finds in a file.
func read(t *testing.T, c Configuration) (kind string, options, attributes map[string]string) {
	t.Helper()
	var doc component
	if err := xml.Unmarshal(c.XML, &doc); err != nil {
		t.Fatalf("%v in\n%s", err, c.XML)
	}
	if !Own(c.XML) || doc.Name != "ProjectRunConfigurationManager" || doc.Configuration.Default || doc.Configuration.Name != c.Name {
		t.Errorf("%s is\n%s", c.Name, c.XML)
	}
	options, attributes = map[string]string{}, map[string]string{}
	for _, o := range doc.Configuration.Options {
		options[o.Name] = o.Value
	}
	for _, a := range doc.Configuration.Attrs {
		attributes[a.Name.Local] = a.Value
	}
	return doc.Configuration.Type, options, attributes
}

func TestMake(t *testing.T) {
	front := []string{"mirrord", "exec", "-t", "deployment/shop", "--"}
	for _, c := range []struct {
		command string // words
		kind    string // of the second configuration
		port    string // option or attribute, and its value
		note    string
	}{
		{"npm start", "", "", ""},
		{"node --inspect-brk=9230 server.js", "ChromiumRemoteDebugType", "port 9230", "when its line about port 9230 has come"},
		{"java -agentlib:jdwp=transport=dt_socket,server=y,suspend=y,address=5005 -jar shop.jar", "Remote", "PORT 5005", "debug"},
		{"dlv exec --headless --listen=127.0.0.1:2345 --accept-multiclient ./shop", "GoRemoteDebugConfigurationType", "port 2345", "debug"},
		{"gdbserver 127.0.0.1:2159 ./shop", "CLion_Remote", "remoteCommand 127.0.0.1:2159", "debug"},
		{"python -m pydevd --client 127.0.0.1 --port 5679 --file app.py", "PyRemoteDebugConfigurationType", "PORT 5679", "first: it waits at port 5679"},
		{"python -m debugpy --listen 5678 app.py", "", "", "debugpy waits for its debugger at port 5678, to which JetBrains' IDEs do not attach"},
	} {
		m := Make("shop", front, strings.Fields(c.command))
		kind, options, _ := read(t, m.Configurations[0])
		if want := strings.Join(front, " ") + " " + c.command; kind != "ShConfigurationType" || options["SCRIPT_TEXT"] != want || options["SCRIPT_WORKING_DIRECTORY"] != "$PROJECT_DIR$" {
			t.Errorf("%s: %s with %v", c.command, kind, options)
		}
		if notes := strings.Join(m.Notes, "\n"); !strings.Contains(notes, c.note) || (c.note == "") != (notes == "") {
			t.Errorf("%s: it is noted %q", c.command, notes)
		}
		if c.kind == "" {
			if len(m.Configurations) != 1 {
				t.Errorf("%s: %d configurations", c.command, len(m.Configurations))
			}
			continue
		}
		if len(m.Configurations) != 2 {
			t.Fatalf("%s: %d configurations", c.command, len(m.Configurations))
		}
		kind, options, attributes := read(t, m.Configurations[1])
		key, value, _ := strings.Cut(c.port, " ")
		if kind != c.kind || options[key]+attributes[key] != value {
			t.Errorf("%s: %s with %v, %v", c.command, kind, options, attributes)
		}
	}
}

// TestScript: what the IDE's shell runs are the words that were given.
func TestScript(t *testing.T) {
	words := []string{"a b", `it's "$HOME" <&>`, "", "ü\n", "--"}
	m := Make("x", []string{"printf", "%s|"}, words)
	_, options, _ := read(t, m.Configurations[0])
	out, err := exec.Command("/bin/sh", "-c", options["SCRIPT_TEXT"]).Output()
	if want := strings.Join(words, "|") + "|"; err != nil || string(out) != want {
		t.Errorf("got %q, want %q: %v", out, want, err)
	}
}

func TestFileName(t *testing.T) {
	for name, want := range map[string]string{"mirrord: shop": "mirrord_ shop.run.xml", "a/b\\c\n": "a_b_c_.run.xml", "ü": "ü.run.xml"} {
		if got := fileName(name); got != want {
			t.Errorf("%q: got %q", name, got)
		}
	}
}
