package debugger

// A Tool is a program that debugs, or that waits for a debugger.
type Tool struct {
	Program string // as PATH has it
	Module  string // of Python's that it needs; empty: none
	Run     string // how to use it in a session, behind "--"
	Kind    Kind   // of the port that Run listens at; empty: it needs none
	Traces  bool   // by ptrace(2)
}

// Tools are those that docs/debuggers.md names.
func Tools() []Tool {
	return []Tool{
		{Program: "node", Run: "node --inspect-brk app.js", Kind: Node},
		{Program: "python3", Module: "debugpy", Run: "python3 -m debugpy --listen 5678 --wait-for-client app.py", Kind: Debugpy},
		{Program: "dlv", Run: "dlv exec --headless --listen=127.0.0.1:2345 --accept-multiclient ./shop", Kind: Delve, Traces: true},
		{Program: "java", Run: "java -agentlib:jdwp=transport=dt_socket,server=y,suspend=y,address=5005 -jar shop.jar", Kind: Java},
		{Program: "gdb", Run: "gdb ./shop", Traces: true},
		{Program: "gdbserver", Run: "gdbserver 127.0.0.1:2159 ./shop", Kind: GDB, Traces: true},
		{Program: "lldb", Run: "lldb ./shop", Traces: true},
		{Program: "lldb-server", Run: "lldb-server gdbserver 127.0.0.1:4711 -- ./shop", Kind: LLDB, Traces: true},
		{Program: "rdbg", Run: "rdbg --open --port 12345 app.rb", Kind: Ruby},
		{Program: "strace", Run: "strace -f ./shop", Traces: true},
	}
}
