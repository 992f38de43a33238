package launch

import (
	"fmt"
	"hash/fnv"
	"path"
	"strings"

	"github.com/mirrord-go/mirrord/internal/config/document"
	"github.com/mirrord-go/mirrord/internal/shell"
)

// node: js-debug reaches its program by a socket with a path, and by variables.
// So nothing but the program has to change.
func (w *rewriting) node() error {
	runtime, err := w.text("runtimeExecutable")
	if err != nil {
		return err
	}
	args, err := w.list("runtimeArgs")
	if err != nil {
		return err
	}
	if runtime == "" {
		runtime = "node"
	}
	if w.already(runtime) {
		return nil
	}
	w.c.Set("runtimeExecutable", w.Mirrord)
	w.c.Set("runtimeArgs", append(w.wrap(runtime)[1:], args...))
	base := path.Base(runtime)
	switch {
	case base == "npm" || base == "yarn" || base == "pnpm" || base == "npx":
		w.note(`if the script of %s has an --inspect-brk of its own, add "attachSimplePort": 9229`, base)
	case runtime != base && strings.HasPrefix(base, "node") && w.c.Value("nodeVersionHint") == nil:
		w.note(`if %s is another version than the node on PATH, add its number: "nodeVersionHint": 22`, runtime)
	}
	return nil
}

// nodeTerminal: the command is typed into a shell.
func (w *rewriting) nodeTerminal() error {
	command, err := w.text("command")
	if err != nil {
		return err
	}
	if command == "" {
		return invalid(w.file, w.c.Place, "type node-terminal has no command")
	}
	first, _, _ := strings.Cut(command, " ")
	if w.already(first) {
		return nil
	}
	front := shell.Line(w.command()...)
	if strings.ContainsAny(command, ";&|<>()`\n") || strings.Contains(first, "=") {
		command = "sh -c " + shell.Quote(command)
	}
	w.c.Set("command", front+" "+command)
	return nil
}

// interpreter is what VS Code puts the chosen Python in place of.
const interpreter = "${command:python.interpreterPath}"

// python: the launcher stays on this machine, the program goes into the session
// and connects back to the adapter.
func (w *rewriting) python() error {
	words, err := w.list("python")
	if err != nil {
		return err
	}
	if len(words) == 0 {
		if words, err = w.list("pythonPath"); err != nil {
			return err
		}
	}
	if len(words) == 0 {
		words = []string{interpreter}
	}
	if w.already(words[0]) {
		return nil
	}
	w.c.Delete("pythonPath")
	w.c.Set("python", w.wrap(words...))
	if w.c.Value("debugLauncherPython") == nil {
		w.c.Set("debugLauncherPython", words[0])
	}
	w.note("an editor may mark the list of python as wrong: debugpy takes it")
	return nil
}

// golang: delve must be in the session, together with its program; the build
// stays outside.
func (w *rewriting) golang() error {
	mode, err := w.text("mode")
	if err != nil {
		return err
	}
	program, err := w.text("program")
	if err != nil {
		return err
	}
	dlv, err := w.text("dlvToolPath")
	if err != nil {
		return err
	}
	switch mode {
	case "", "auto", "debug", "test":
		if program == "" {
			return invalid(w.file, w.c.Place, "the configuration has no program")
		}
		w.build(program, mode == "test" || strings.HasSuffix(program, "_test.go"))
	case "exec":
	case "remote":
		w.note("mode remote connects to delve: start that with %s dlv exec --headless --listen=127.0.0.1:PORT ...", strings.Join(w.command(), " "))
		return nil
	default:
		return invalid(w.file, w.c.Value("mode").Place, fmt.Sprintf("mode %q starts no program that could run in a session", mode))
	}
	shim, err := w.shim("dlv", dlv, []string{"version", "--version", "help", "-h", "--help", "substitute-path-guess-helper", "completion"})
	if err != nil {
		return err
	}
	w.c.Set("dlvToolPath", shim)
	w.r.Settings = (&document.Node{Kind: document.Map}).Set("go.alternateTools", (&document.Node{Kind: document.Map}).Set("dlv", shim))
	w.note("the Go extension overwrites dlvToolPath: put the setting go.alternateTools into .vscode/settings.json; it holds for every Go configuration of the folder")
	return nil
}

// build makes a task that builds outside of the session what delve then runs.
func (w *rewriting) build(program string, test bool) {
	dir, what := program, "."
	if strings.HasSuffix(program, ".go") {
		dir, what = "${workspaceFolder}", program
		if test {
			dir, what = path.Dir(program), "."
		}
	}
	if w.c.Value("cwd") == nil && !strings.HasSuffix(program, ".go") {
		w.c.Set("cwd", program) // as it is for delve's own builds
	}
	out := path.Join(w.Storage, "__debug_bin"+w.hash(program, fmt.Sprint(test)))
	args := []string{"build"}
	if test {
		args = []string{"test", "-c"}
	}
	args = append(args, "-gcflags=all=-N -l", "-o", out)
	if flags, err := w.list("buildFlags"); err == nil {
		for _, f := range flags {
			args = append(args, strings.Fields(f)...)
		}
	}
	w.c.Delete("buildFlags")
	w.task("build", "go", append(args, what), dir, nil)
	w.c.Set("mode", "exec").Set("program", out)
}

// task adds a task that runs before the program, after the one that is there.
func (w *rewriting) task(what, command string, args []string, dir string, background *document.Node) {
	label := "mirrord: " + what + " " + text(w.c, "name")
	t := (&document.Node{Kind: document.Map}).Set("label", label).Set("type", "process").Set("command", command).Set("args", args)
	options := &document.Node{Kind: document.Map}
	if dir != "" {
		options.Set("cwd", dir)
	}
	if env := w.c.Value("env"); background != nil && env != nil {
		options.Set("env", env)
	}
	if len(options.Keys) > 0 {
		t.Set("options", options)
	}
	if before := text(w.c, "preLaunchTask"); before != "" {
		t.Set("dependsOn", before)
	}
	if background != nil {
		t.Set("isBackground", true)
		t.Set("problemMatcher", background)
	}
	w.c.Set("preLaunchTask", label)
	w.r.Tasks = append(w.r.Tasks, t)
}

// cppdbg: gdb speaks over pipes, so it goes into the session with its program.
func (w *rewriting) cppdbg() error {
	if pipe := w.c.Value("pipeTransport"); pipe != nil {
		return invalid(w.file, pipe.Place, "pipeTransport starts gdb somewhere else: put mirrord exec in front of that by hand")
	}
	if at := w.c.Value("miDebuggerServerAddress"); at != nil {
		w.note("it connects to a debug server: start that with %s gdbserver 127.0.0.1:PORT ...", strings.Join(w.command(), " "))
		return nil
	}
	debugger, err := w.text("miDebuggerPath")
	if err != nil {
		return err
	}
	name := "gdb"
	if text(w.c, "MIMode") == "lldb" {
		name = "lldb-mi"
	}
	shim, err := w.shim(name, debugger, []string{"--version", "-v", "--help"})
	if err != nil {
		return err
	}
	w.c.Set("miDebuggerPath", shim)
	return nil
}

// Ports for lldb-server: below those that the kernel gives to clients
// (net.ipv4.ip_local_port_range).
const firstPort, ports = 20000, 10000

// lldb: the server runs in the session with its program, lldb connects to the
// port that is published.
func (w *rewriting) lldb() error {
	program, err := w.text("program")
	if err != nil {
		return err
	}
	if cargo := w.c.Value("cargo"); cargo != nil {
		return invalid(w.file, cargo.Place, `cargo finds the program only when it starts: build it before, and name it: "program": "${workspaceFolder}/target/debug/NAME"`)
	}
	if program == "" {
		return invalid(w.file, w.c.Place, "the configuration has no program")
	}
	args, err := w.list("args")
	if err != nil {
		return err
	}
	dir, err := w.text("cwd")
	if err != nil {
		return err
	}
	created := program
	if strings.Contains(program, " ") {
		created = shell.Quote(program)
	}
	h := fnv.New32a()
	h.Write([]byte(program + text(w.c, "name")))
	at := fmt.Sprintf("127.0.0.1:%d", firstPort+h.Sum32()%ports)
	matcher := (&document.Node{Kind: document.Map}).
		Set("pattern", (&document.Node{Kind: document.Map}).Set("regexp", "^mirrord: error: (.*)$").Set("message", 1)).
		Set("background", (&document.Node{Kind: document.Map}).Set("activeOnStart", true).Set("beginsPattern", "^mirrord: target").Set("endsPattern", "open here at "+strings.ReplaceAll(at, ".", `\.`)))
	w.task("lldb-server", w.Mirrord, append(w.wrap("lldb-server", "gdbserver", at, "--", program)[1:], args...), dir, matcher)
	for _, key := range []string{"program", "args", "env", "cwd", "terminal", "stdio"} {
		w.c.Delete(key)
	}
	w.c.Set("request", "attach").Set("targetCreateCommands", []string{"target create " + created}).Set("processCreateCommands", []string{"gdb-remote " + at})
	if w.c.Value("postRunCommands") == nil {
		w.c.Set("postRunCommands", []string{"process continue"}) // it stops in the loader first
	}
	w.note("the program's terminal is the task's; lldb-server must be on PATH: CodeLLDB has one in its lldb/bin")
	return nil
}

// java: the virtual machine connects back to the adapter.
func (w *rewriting) java() error {
	java, err := w.text("javaExec")
	if err != nil {
		return err
	}
	shim, err := w.shim("java", java, []string{"-version", "--version", "-fullversion", "-XshowSettings:properties"})
	if err != nil {
		return err
	}
	w.c.Set("javaExec", shim)
	return nil
}
