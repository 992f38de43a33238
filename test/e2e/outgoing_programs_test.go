package e2e

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Unmodified programs against the servers that they are made for.

// runs starts a server in the world, as the user, until the test's end. It is
// there when its output has the word.
func (p *handmade) runs(word string, asRoot bool, argv ...string) {
	p.t.Helper()
	if !asRoot {
		argv = append([]string{"setpriv", "--reuid", strconv.Itoa(user), "--regid", strconv.Itoa(user), "--clear-groups", "--"}, argv...)
	}
	cmd := exec.Command("nsenter", append([]string{"-t", strconv.Itoa(p.world), "--net", "--"}, argv...)...)
	cmd.Env, cmd.Dir = append(environment(), "PATH="+filepath.Join(w.dir, "bin")+":/usr/sbin:/usr/bin:/sbin:/bin"), p.dir
	out := newOutput()
	cmd.Stdout, cmd.Stderr = out, out
	stdin, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { stdin.Close(); _ = cmd.Process.Kill(); _ = cmd.Wait() })
	if !out.waitFor(word, runTime) {
		p.t.Fatalf("%v did not say %q: %s", argv, word, out)
	}
}

// web serves HTTP/1 and 2 over TLS on 8443, and HTTP/1 on 8080, in the world.
func (p *handmade) web() {
	p.t.Helper()
	answer := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, _, _ := net.SplitHostPort(r.RemoteAddr)
		n, _ := io.Copy(io.Discard, r.Body)
		fmt.Fprintf(w, "%s from %s with %d bytes\n", r.Proto, host, n)
	})
	for port, tls := range map[string]bool{"8443": true, "8080": false} {
		s := httptest.NewUnstartedServer(answer)
		s.Listener.Close()
		within(p.t, p.world, func() (err error) {
			s.Listener, err = net.Listen("tcp", handWorld+":"+port)
			return err
		})
		if s.EnableHTTP2 = tls; tls {
			s.StartTLS()
		} else {
			s.Start()
		}
		p.t.Cleanup(s.Close)
	}
}

func TestProgramsTowardsTheirServers(t *testing.T) {
	p := handmadePod(t, families{four: true, six: true})
	newZone().serve(p)
	p.serve()
	p.web()
	p.tcp(p.world, handWorld, 7010, func(c *net.TCPConn) {
		line, _ := bufio.NewReader(c).ReadString('\n')
		host, _, _ := net.SplitHostPort(c.RemoteAddr().String())
		fmt.Fprintf(c, "%s from %s\n", strings.TrimSpace(line), host)
	})
	p.runs("Ready to accept", false, "redis-server", "--bind", handWorld, "--port", "6379", "--save", "", "--protected-mode", "no", "--dir", w.dir)
	const from, curl = handPod, "curl -sS -k --max-time 20 "
	for _, c := range []struct{ name, script, want string }{
		{"redis-cli", "redis-cli -h four.example set k v; redis-cli -h four.example get k; seq 2000 | sed 's/.*/incr n/' | redis-cli -h four.example --pipe | tail -n 1; redis-cli -h four.example get n",
			"OK\nv\nerrors: 0, replies: 2000\n2000"},
		{"redis-cli, 50 connections", "redis-benchmark -h four.example -c 50 -n 2000 -t set -q >/dev/null && echo done", "done"},
		{"curl, HTTP/1", curl + "http://four.example:8080/", "HTTP/1.1 from " + from + " with 0 bytes"},
		{"curl, HTTP/1 over TLS", "head -c 3000000 /dev/zero | " + curl + "--http1.1 --data-binary @- https://four.example:8443/", "HTTP/1.1 from " + from + " with 3000000 bytes"},
		{"curl, HTTP/2", "head -c 3000000 /dev/zero | " + curl + "--http2 --data-binary @- https://four.example:8443/", "HTTP/2.0 from " + from + " with 3000000 bytes"},
		{"curl, 20 at once", curl + "--http2 -Z --parallel-immediate 'https://four.example:8443/[1-20]' | sort | uniq -c | sed 's/^ *//'", "20 HTTP/2.0 from " + from + " with 0 bytes"},
		{"openssl s_client", `printf 'GET / HTTP/1.0\r\n\r\n' | openssl s_client -quiet -connect four.example:8443 -servername example.com 2>/dev/null | tail -n 1`, "HTTP/1.0 from " + from + " with 0 bytes"},
		{"python, urllib", `python3 -c 'import urllib.request as u, ssl; print(u.urlopen("https://four.example:8443/", context=ssl._create_unverified_context()).read().decode(), end="")'`, "HTTP/1.1 from " + from + " with 0 bytes"},
		{"python, asyncio", `python3 -c '
import asyncio
async def ask(i):
    r, w = await asyncio.open_connection("four.example", 7010)
    w.write(b"%d\n" % i); line = await r.readline(); w.close(); return line.decode().split()[0]
async def main(): print(len(set(await asyncio.gather(*(ask(i) for i in range(100))))))
asyncio.run(main())'`, "100"},
		{"python, asyncio datagrams", `python3 -c '
import asyncio
class P(asyncio.DatagramProtocol):
    def connection_made(self, t): t.sendto(b"hi")
    def datagram_received(self, d, a): print(d.decode(), *a); done.set_result(0)
    def error_received(self, e): print(e); done.set_result(0)
async def main():
    global done; done = asyncio.get_running_loop().create_future()
    await asyncio.get_running_loop().create_datagram_endpoint(P, remote_addr=("` + handWorld + `", 7001)); await done
    done = asyncio.get_running_loop().create_future()
    await asyncio.get_running_loop().create_datagram_endpoint(P, remote_addr=("` + handWorld + `", 9)); await done
asyncio.run(main())'`, "hi " + handWorld + " 7001\n[Errno 111] Connection refused"},
		{"node, fetch", `NODE_TLS_REJECT_UNAUTHORIZED=0 node --no-warnings -e 'fetch("https://four.example:8443/").then(r => r.text()).then(t => process.stdout.write(t))'`, "HTTP/1.1 from " + from + " with 0 bytes"},
		{"node, HTTP/2", `node -e 'const c = require("http2").connect("https://four.example:8443", {rejectUnauthorized: false}); const r = c.request({":path": "/"}); r.on("data", d => process.stdout.write(d)).on("end", () => c.close())'`, "HTTP/2.0 from " + from + " with 0 bytes"},
		{"node, datagrams", `node -e 'const s = require("dgram").createSocket("udp4"); s.on("message", (m, r) => { console.log(String(m), r.address, r.port); s.close() }); s.send("hi", 7001, "four.example")'`, "hi " + handWorld + " 7001"},
		{"java", "java -XX:TieredStopAtLevel=1 -cp $(dirname $(command -v probe)) Ask four.example 7010", "hi from " + from},
		{"static Go", "probe tcp four.example:7010 hi", "hi from " + from},
		{"C with io_uring", "uring " + handWorld + " 7010 hi; uring " + handWorld + " 9 hi; uring " + handNowhere + " 80 hi", "hi from " + from + "\nconnect: Connection refused\nconnect: Network is unreachable"},
		{"nothing but a shell", "exec 3<>/dev/tcp/four.example/7010; echo hi >&3; head -n 1 <&3", "hi from " + from},
		{"socat, datagrams", "echo hi | socat -t 2 - udp:four.example:7001", "hi"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := in(t, p.target(), "bash", "-c", c.script); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestSSH(t *testing.T) {
	p := handmadePod(t, families{four: true})
	newZone().serve(p)
	home := filepath.Join(w.dir, "home")
	key, hostKey := filepath.Join(home, "sshkey"), filepath.Join(p.dir, "hostkey")
	for _, k := range []string{key, hostKey} {
		if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", k).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	if err := os.Chown(key, user, user); err != nil {
		t.Fatal(err)
	}
	directory(t, "/run/sshd") // where sshd locks itself in
	conf := fmt.Sprintf("Port 2222\nListenAddress %s\nHostKey %s\nAuthorizedKeysFile %s.pub\nStrictModes no\nPermitRootLogin prohibit-password\nUsePAM no\nPidFile none\nSubsystem sftp internal-sftp\n", handWorld, hostKey, key)
	if err := os.WriteFile(filepath.Join(p.dir, "sshd_config"), []byte(conf), 0o644); err != nil {
		t.Fatal(err)
	}
	p.runs("listening", true, "/usr/sbin/sshd", "-D", "-e", "-f", filepath.Join(p.dir, "sshd_config"))
	ssh := "ssh -i " + key + " -p 2222 -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR root@four.example "
	for _, c := range []struct{ name, script, want string }{
		{"a command", ssh + `'echo $SSH_CONNECTION | cut -d" " -f1,3,4'`, handPod + " " + handWorld + " 2222"},
		{"5 MB there and back", "head -c 5000000 /dev/zero | " + ssh + "cat | cmp - <(head -c 5000000 /dev/zero) && echo intact", "intact"},
		{"a tunnel", ssh + "-N -L 7999:" + handWorld + ":2222 & until (exec 3<>/dev/tcp/127.0.0.1/7999; head -c 7 <&3) 2>/dev/null; do sleep 0.1; done; kill $!", "SSH-2.0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := in(t, p.target(), "bash", "-c", c.script); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

// modern builds the program of that name and gives its path.
func modern(t *testing.T) string {
	t.Helper()
	program := filepath.Join(w.dir, "bin", "modern")
	build := exec.Command("go", "build", "-o", program, ".")
	build.Dir, build.Env = "programs/modern", append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return program
}

// HTTP/3 is QUIC: datagrams both ways, many and large. gRPC is HTTP/2 without
// an end.
func TestModernProtocols(t *testing.T) {
	program := modern(t)
	p := handmadePod(t, families{four: true, six: true})
	newZone().serve(p)
	p.runs("ready", false, program, "serve", handWorld+":9443")
	p.runs("ready", false, program, "serve", "["+handWorld6+"]:9443")
	for _, c := range []struct {
		name string
		argv []string
		want string
	}{
		{"HTTP/3", []string{program, "http3", "https://four.example:9443/"}, "HTTP/3.0 from " + handPod + " with 1048576 bytes and 1048576 bytes more"},
		{"HTTP/3, IPv6", []string{program, "http3", "https://six.example:9443/"}, "HTTP/3.0 from " + handPod6 + " with 1048576 bytes and 1048576 bytes more"},
		{"gRPC", []string{program, "grpc", "four.example:9443"}, "SERVING\nfour messages of a stream"},
		{"gRPC, IPv6", []string{program, "grpc", "six.example:9443"}, "SERVING\nfour messages of a stream"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := in(t, p.target(), c.argv...); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

// Ping goes where the pod's network lets an ordinary process, or the agent have
// raw sockets.
func TestPingFromThePod(t *testing.T) {
	p := handmadePod(t, families{four: true, six: true})
	newZone().serve(p)
	const ping = "ping -c 2 -i 0.2 -W 3 "
	p.sysctl(p.pid, "net/ipv4/ping_group_range", "1 0")
	// Its agent may have raw sockets there.
	in(t, p.target(), "bash", "-c", ping+handWorld+" && "+ping+handWorld6)
	p.sysctl(p.pid, "net/ipv4/ping_group_range", "0 2147483647")
	for _, c := range []struct{ name, to, want string }{
		{"IPv4", handWorld, "2 received"}, {"IPv6", handWorld6, "2 received"}, {"a name", "four.example", "2 received"}, {"localhost", "localhost", "2 received"},
		{"its own address", handPod, "2 received"}, {"nowhere", handNowhere, "0 received"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := in(t, p.target(), "bash", "-c", ping+c.to+" | grep received"); !strings.Contains(got, c.want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

// A program that pings sees what it sees in the pod, whatever its socket: by the
// kind that all may have, and by raw ones if its file has the capability.
func TestPingAsInThePod(t *testing.T) {
	p := handmadePod(t, families{four: true, six: true})
	p.sysctl(p.pid, "net/ipv4/ping_group_range", "0 2147483647")
	program := filepath.Join(w.dir, "bin", "network")
	b, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	capable := filepath.Join(w.dir, "bin", "network-raw")
	if err := os.WriteFile(capable, b, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove(capable) })
	// struct vfs_cap_data (linux/capability.h): the second version, effective;
	// CAP_NET_RAW permitted.
	attribute := make([]byte, 20)
	binary.LittleEndian.PutUint32(attribute, 0x02000000|1)
	binary.LittleEndian.PutUint32(attribute[4:], 1<<unix.CAP_NET_RAW)
	if err := unix.Setxattr(capable, "security.capability", attribute, 0); err != nil {
		t.Fatal(err)
	}
	for _, program := range []string{program, capable} {
		for name, at := range map[string][]string{"IPv4": {handWorld, handOther, handNowhere, handPod}, "IPv6": {handWorld6, handOther6, handNowhere6, handPod6}} {
			t.Run(filepath.Base(program)+" "+name, func(t *testing.T) {
				p.same(t, nil, append([]string{program, "ping"}, at...)...)
			})
		}
	}
}
