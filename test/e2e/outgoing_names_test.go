package e2e

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// configure writes feature.network of a session and gives the arguments for it.
func (p *handmade) configure(t testing.TB, network string) []string {
	t.Helper()
	file := filepath.Join(p.dir, "mirrord.json")
	if err := os.WriteFile(file, []byte(`{"feature": {"network": `+network+`}}`), 0o644); err != nil {
		t.Fatal(err)
	}
	return []string{"-t", p.target(), "-f", file}
}

// saying is a server that answers a line.
func saying(text string) func(*net.TCPConn) {
	return func(c *net.TCPConn) {
		_, _ = bufio.NewReader(c).ReadString('\n')
		fmt.Fprintln(c, text)
	}
}

// A rule by name holds for the connections that follow a lookup, whoever has
// looked it up, and by whatever resolver.
func TestRuleByNameForEveryResolver(t *testing.T) {
	p := handmadePod(t, families{four: true, six: true})
	newZone().serve(p)
	port := serveHere(t)
	number, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	p.tcp(p.world, handOther, number, saying("remote"))
	bin := func(name string) string { return filepath.Join(w.dir, "bin", name) }
	script := func(name string) string {
		lines := []string{
			"lookup-glibc connect " + name + " " + port,
			"lookup-musl connect " + name + " " + port,
			"probe tcp " + name + ":" + port + " hi",
			"java -XX:TieredStopAtLevel=1 -cp " + filepath.Dir(bin("x")) + " Ask " + name + " " + port,
			`curl -sS --max-time 30 -o - telnet://` + name + ":" + port + " <<<hi",
			`python3 -c 'import asyncio
async def main():
    r, w = await asyncio.open_connection("` + name + `", ` + port + `)
    w.write(b"hi\n"); print((await r.readline()).decode(), end="")
asyncio.run(main())'`,
			`node -e 'require("dns").resolve4("` + name + `", (e, a) => { if (e) return console.log(e.code);
const c = require("net").connect(` + port + `, a[0]); c.write("hi\n"); c.on("data", d => process.stdout.write(d)).on("error", e => console.log(e.code)) })'`,
		}
		return strings.Join(lines, "\n")
	}
	const clients = 7
	for _, c := range []struct{ name, network, asked, want string }{
		{"none", `{}`, "web.corp.example", "remote"},
		{"a name", `{"outgoing": {"filter": {"local": ["web.corp.example"]}}}`, "web.corp.example", "here"},
		{"a suffix", `{"outgoing": {"filter": {"local": ["*.corp.example:` + port + `"]}}}`, "web.corp.example", "here"},
		{"a glob, and the program's spelling", `{"outgoing": {"filter": {"local": ["w?b.CORP.*"]}}}`, "Web.Corp.Example", "here"},
		{"a glob that does not fit", `{"outgoing": {"filter": {"local": ["*.corp"]}}}`, "web.corp.example", "remote"},
		{"remote only", `{"outgoing": {"filter": {"remote": ["*.other.example"]}}}`, "web.corp.example", "here"},
	} {
		t.Run(c.name, func(t *testing.T) {
			argv := append([]string{w.mirrord, "exec"}, p.configure(t, c.network)...)
			r := startCommand(t, append(argv, "bash", "-c", script(c.asked)), knowing(t, "127.0.0.1 web.corp.example"))
			if code := r.end(); code != 0 {
				t.Errorf("exit code %d", code)
			}
			if got, want := strings.TrimSpace(r.stdout.String()), strings.TrimSpace(strings.Repeat(c.want+"\n", clients)); got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		})
	}
}

// The three localhosts are never taken for one another, and explain says the
// same beforehand.
func TestThreeLocalhosts(t *testing.T) {
	p := handmadePod(t, families{four: true, six: true})
	newZone().serve(p)
	here := serveHere(t)
	number, _ := strconv.Atoi(here)
	for _, a := range []string{"127.0.0.1", "::1"} { // the same ports in the pod: whoever answers shows the side
		p.tcp(p.pid, a, number, saying("pod"))
		p.tcp(p.pid, a, 7800, saying("pod"))
		p.tcp(p.pid, a, 7801, saying("pod"))
	}
	const own = `
import socket, threading
for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
    s = socket.create_server((host, 7801), family=family)
    def serve(s):
        while True:
            c = s.accept()[0]; c.recv(10); c.sendall(b"own\n"); c.close()
    threading.Thread(target=serve, args=(s,), daemon=True).start()
for port in (%s, 7800, 7801):
    for host in ("127.0.0.1", "::1", "localhost", "0.0.0.0"):
        c = socket.create_connection((host, port)); c.sendall(b"hi\n"); print(c.makefile().readline().strip(), end=" ")
`
	for _, c := range []struct{ name, network, want, explained string }{
		{"none", `{}`, "pod pod own", "remote remote remote"},
		{"by port", `{"outgoing": {"filter": {"local": [":` + here + `"]}}}`, "here pod own", "local remote remote"},
		{"by name and port", `{"outgoing": {"filter": {"local": ["localhost:` + here + `"]}}}`, "here pod own", "local remote remote"},
		{"what is remote", `{"outgoing": {"filter": {"remote": ["localhost:7800"]}}}`, "here pod own", "local remote local"},
	} {
		t.Run(c.name, func(t *testing.T) {
			arguments := p.configure(t, c.network)
			r := startCommand(t, append(append([]string{w.mirrord, "exec"}, arguments...), "python3", "-c", fmt.Sprintf(own, here)), nil)
			if code := r.end(); code != 0 {
				t.Fatalf("exit code %d", code)
			}
			var want []string
			for word := range strings.FieldsSeq(c.want) {
				want = append(want, word, word, word, word)
			}
			if got := strings.Fields(r.stdout.String()); strings.Join(got, " ") != strings.Join(want, " ") {
				t.Errorf("got %q, want %q", got, want)
			}
			explained := strings.Fields(c.explained)
			for i, port := range []string{here, "7800", "7801"} {
				cmd := exec.Command(w.mirrord, append(append([]string{"explain", "connect"}, arguments...), "localhost:"+port)...)
				cmd.Env = environment()
				out, err := cmd.CombinedOutput()
				if err != nil || !strings.Contains(string(out), explained[i]) {
					t.Errorf("explain localhost:%s: %v, want %s:\n%s", port, err, explained[i], out)
				}
			}
		})
	}
}
