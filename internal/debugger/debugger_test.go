package debugger

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// say writes ports as the tables below do: "> 5678 debugpy", "< 9229 node…".
func say(p Ports) string {
	var all []string
	for _, one := range p.Dials {
		all = append(all, fmt.Sprintf("> %d %s", one.Number, one.Kind))
	}
	for _, one := range p.Listens {
		all = append(all, fmt.Sprintf("< %d %s", one.Number, one.Kind))
	}
	for _, s := range p.Within {
		all = append(all, fmt.Sprintf("< %d-%d %s", s.First, s.Last, s.Kind))
	}
	return strings.Join(all, ", ")
}

func TestFind(t *testing.T) {
	for _, c := range []struct {
		name    string
		command string // words
		env     string // words
		want    string
	}{
		{"nothing", "python app.py --connect db:5432 --listen 80 --port 8080", "", ""},
		{"an empty one", "", "", ""},

		{"debugpy connects", "python -m debugpy --connect 127.0.0.1:41235 --adapter-access-token abc app.py", "", "> 41235 debugpy"},
		{"debugpy of an editor", "/usr/bin/python3 /home/ana/.vscode/extensions/ms-python.debugpy/bundled/libs/debugpy --connect 127.0.0.1:41235 --configure-qt none --adapter-access-token abc /w/app.py --connect 10.0.0.1:1", "", "> 41235 debugpy"},
		{"debugpy, a port alone", "python -m debugpy --connect 41235 -m app", "", "> 41235 debugpy"},
		{"debugpy, by name", "python -m debugpy --connect localhost:41235 app.py", "", "> 41235 debugpy"},
		{"debugpy, IPv6", "python -m debugpy --connect [::1]:41235 app.py", "", "> 41235 debugpy"},
		{"debugpy, somewhere else", "python -m debugpy --connect 10.0.0.1:41235 app.py", "", ""},
		{"debugpy listens", "python -m debugpy --log-to /tmp/x --listen 0.0.0.0:5678 --wait-for-client app.py --listen 1", "", "< 5678 debugpy"},
		{"debugpy listens, with a sign", "python -Xfrozen_modules=off -m debugpy --wait-for-client --listen=5678 app.py", "", "< 5678 debugpy"},
		{"debugpy's launcher", "/usr/bin/env python /ext/bundled/libs/debugpy/launcher 40001 -- /w/app.py 5", "", "> 40001 debugpy"},
		{"debugpy's adapter", "/usr/bin/python3 /usr/lib/python3/dist-packages/debugpy/adapter --for-server 43211 --host 127.0.0.1 --port 5678 --server-access-token x", "", "< 5678 debugpy"},
		{"debugpy in a shell", "bash -lc", "", ""},

		{"pydevd connects", "python /opt/pycharm/plugins/python/helpers/pydev/pydevd.py --multiprocess --qt-support=auto --client 127.0.0.1 --port 36025 --file app.py --port 80", "", "> 36025 pydevd"},
		{"pydevd, with signs", "python pydevd.py --client=localhost --port=36025 --file=app.py", "", "> 36025 pydevd"},
		{"pydevd listens", "python -m pydevd --server --port 5678 --file app.py", "", "< 5678 pydevd"},
		{"Rider's worker", "dotnet JetBrains.Debugger.Worker.exe --mode=client --frontend-port=57387 --etw=1", "", "> 57387 resharper"},

		{"JDWP connects", "java -agentlib:jdwp=transport=dt_socket,server=n,suspend=y,address=localhost:54898 -cp . Main", "", "> 54898 javaagent"},
		{"JDWP connects, by default", "java -agentlib:jdwp=transport=dt_socket,address=54898 Main", "", "> 54898 javaagent"},
		{"JDWP connects elsewhere", "java -agentlib:jdwp=transport=dt_socket,address=10.1.1.1:54898 Main", "", ""},
		{"JDWP listens", "java -agentlib:jdwp=transport=dt_socket,server=y,suspend=n,address=*:5005 -jar app.jar", "", "< 5005 javaagent"},
		{"JDWP, the old way", "java -Xdebug -Xrunjdwp:server=y,transport=dt_socket,address=8000 Main", "", "< 8000 javaagent"},
		{"JDWP in a variable", "mvn spring-boot:run", "JAVA_TOOL_OPTIONS=-Xmx1g -agentlib:jdwp=transport=dt_socket,server=y,address=5005", "< 5005 javaagent"},
		{"JDWP at any port", "java -agentlib:jdwp=transport=dt_socket,server=y,address=0 Main", "", ""},

		{"node", "node app.js --port 80", "", "< 9229 nodeinspector"},
		{"node --inspect", "node --inspect app.js", "", "< 9229 nodeinspector"},
		{"node --inspect-brk with a port", "/usr/bin/node --inspect-brk=9333 app.js", "", "< 9333 nodeinspector, < 9229 nodeinspector"},
		{"node --inspect with an address", "tsx watch --inspect=0.0.0.0:9333 app.ts", "", "< 9333 nodeinspector"},
		{"node --inspect with a host", "tsx --inspect=127.0.0.1 app.ts", "", "< 9229 nodeinspector"},
		{"node --inspect with a name", "tsx --inspect=localhost app.ts", "", "< 9229 nodeinspector"},
		{"node --inspect at any port", "tsx --inspect=0 app.ts", "", ""},
		{"node, any port of an address", "tsx --inspect-port=127.0.0.1:0 app.ts", "", ""},
		{"node under js-debug", "npm start", "NODE_OPTIONS=--require=/x/bootloader.js|VSCODE_INSPECTOR_OPTIONS={}", "< 53000-53999 nodeinspector"},
		{"node by a variable", "npm start", "NODE_OPTIONS=--require /x.js --inspect-wait=9400", "< 9400 nodeinspector"},
		{"node's own client", "node inspect localhost:9333", "", "> 9333 nodeinspector, < 9229 nodeinspector"},
		{"node's own client with a program", "node inspect app.js", "", "< 9229 nodeinspector"},
		{"bun", "bun --inspect=localhost:6500/path app.ts", "", "< 6500 nodeinspector"},
		{"bun by default", "bun --inspect-wait app.ts", "", "< 6499 nodeinspector"},

		{"delve connects", "/home/ana/go/bin/dlv dap --client-addr=:37251 --log-dest 3", "", "> 37251 delve"},
		{"delve connects, IPv6", "dlv dap --client-addr [::1]:37251", "", "> 37251 delve"},
		{"delve listens", "dlv exec --headless -l 127.0.0.1:2345 --accept-multiclient ./app -- --listen=:80", "", "< 2345 delve"},
		{"delve listens, long", "dlv dap --listen=127.0.0.1:2345", "", "< 2345 delve"},
		{"delve's client", "dlv connect localhost:2345", "", "> 2345 delve"},

		{"gdbserver", "gdbserver --once :2159 ./app :80", "", "< 2159 gdbserver"},
		{"gdbserver, tcp", "gdbserver tcp:localhost:2159 --attach 4711", "", "< 2159 gdbserver"},
		{"gdbserver by stdio", "gdbserver - ./app", "", ""},
		{"lldb-server", "/usr/bin/lldb-server-14 gdbserver 127.0.0.1:4711 -- ./app --port 80:80", "", "< 4711 lldb"},
		{"lldb-server by a descriptor", "lldb-server gdbserver --fd=5 -- ./app", "", ""},
		{"lldb-server connects back", "lldb-server gdbserver --reverse-connect 127.0.0.1:4711 -- ./app", "", "> 4711 lldb"},
		{"lldb's platform", "lldb-server platform --server --listen *:1234 --gdbserver-port 1235", "", "< 1234 lldb, < 1235 lldb"},

		{"rdbg", "rdbg --open --port 12345 -- app.rb --port 80", "", "< 12345 ruby"},
		{"ruby by a variable", "ruby -rdebug/open app.rb", "RUBY_DEBUG_PORT=12345", "< 12345 ruby"},
		{"rdebug-ide", "rdebug-ide --host 127.0.0.1 --port 1234 --dispatcher-port 1235 -- app.rb", "", "> 1235 ruby, < 1234 ruby"},

		{"php", "php app.php", "", ""},
		{"Xdebug", "php -dxdebug.mode=debug -dxdebug.start_with_request=yes app.php", "", "> 9003 xdebug"},
		{"Xdebug with a port", "php -d xdebug.client_port=9100 app.php", "", "> 9100 xdebug"},
		{"Xdebug by variables", "php app.php", "XDEBUG_MODE=debug|XDEBUG_CONFIG=client_host=127.0.0.1 client_port=9200", "> 9200 xdebug"},
		{"Xdebug elsewhere", "php -dxdebug.mode=debug -dxdebug.client_host=ide.corp.example app.php", "", ""},

		{"several", "dlv exec --listen=:2345 /usr/bin/env -- node --inspect app.js", "", "< 9229 nodeinspector, < 2345 delve"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var env []string
			for kv := range strings.SplitSeq(c.env, "|") {
				env = append(env, kv)
			}
			if got := say(Find(strings.Fields(c.command), env, Kinds())); got != c.want {
				t.Errorf("%q with %q: got %q, want %q", c.command, c.env, got, c.want)
			}
		})
	}
}

func TestFindInScripts(t *testing.T) {
	for _, c := range []struct {
		argv []string
		want string
	}{
		{[]string{"sh", "-c", "cd app && exec python3 -m debugpy --connect 127.0.0.1:4000 'app.py'"}, "> 4000 debugpy"},
		{[]string{"env", "A=b", "/bin/bash", "-ec", "(dlv dap --client-addr=:4001;)"}, "> 4001 delve"},
		{[]string{"python3", "-c", "import os # dlv dap --client-addr=:4001"}, ""},
		{[]string{"sh", "-c"}, ""},
	} {
		if got := say(Find(c.argv, nil, Kinds())); got != c.want {
			t.Errorf("%q: got %q, want %q", c.argv, got, c.want)
		}
	}
}

func TestFindOneKind(t *testing.T) {
	argv := strings.Fields("python -m debugpy --connect 4000 node --inspect=4001")
	if got, want := say(Find(argv, nil, []Kind{Node})), "< 4001 nodeinspector, < 9229 nodeinspector"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestPorts(t *testing.T) {
	p := Find(strings.Fields("dlv dap --client-addr=:4000"), nil, Kinds())
	p.Add(Find(strings.Fields("node --inspect=4001 app.js"), nil, Kinds()))
	p.Add(Find([]string{"npm"}, []string{"VSCODE_INSPECTOR_OPTIONS="}, Kinds()))
	p.Add(p)
	if got, want := say(p), "> 4000 delve, < 4001 nodeinspector, < 9229 nodeinspector, < 53000-53999 nodeinspector"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	for _, c := range []struct{ got, want Kind }{
		{p.DialsTo(4000), Delve}, {p.DialsTo(4001), ""}, {p.ListensAt(4001), Node}, {p.ListensAt(4000), ""}, {p.ListensAt(53000), Node}, {p.ListensAt(53999), Node}, {p.ListensAt(54000), ""},
	} {
		if c.got != c.want {
			t.Errorf("got %q, want %q", c.got, c.want)
		}
	}
}

// FuzzFind: command lines come from anybody.
func FuzzFind(f *testing.F) {
	f.Add("python\x00-m\x00debugpy\x00--connect\x00127.0.0.1:1", "NODE_OPTIONS=--inspect=1")
	f.Add("sh\x00-c\x00dlv dap --client-addr", "XDEBUG_CONFIG=client_port=")
	f.Fuzz(func(t *testing.T, argv, env string) {
		p := Find(strings.Split(argv, "\x00"), strings.Split(env, "\x00"), Kinds())
		for _, one := range slices.Concat(p.Dials, p.Listens) {
			if one.Number == 0 || one.Kind == "" {
				t.Errorf("found %+v", one)
			}
		}
	})
}

// What is told of a tool is recognised: its port is open here.
func TestTools(t *testing.T) {
	for _, tool := range Tools() {
		argv := strings.Fields(tool.Run)
		if argv[0] != tool.Program {
			t.Errorf("%s: its line runs %s", tool.Program, argv[0])
		}
		var want []Kind
		if tool.Kind != "" {
			want = []Kind{tool.Kind}
		}
		var got []Kind
		for _, p := range Find(argv, nil, Kinds()).Listens {
			got = append(got, p.Kind)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: listens for %v, want %v", tool.Run, got, want)
		}
	}
}
