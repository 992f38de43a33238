package e2e

import (
	"fmt"
	"net"
	"strings"
	"testing"
	"time"
)

// datagramServer answers what it gets at a port of all addresses, and prints it.
const datagramServer = `
import socket, sys
s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
s.bind(("::", int(sys.argv[1])))
print("listening", flush=True)
while True:
    b, peer = s.recvfrom(65536)
    print("got", b[:20].decode(), "from", peer[0].removeprefix("::ffff:"), peer[1], flush=True)
    s.sendto(b"local " + b, peer)
`

// datagramPod lets the pod app answer datagrams at a port, and gives how a process of
// the cluster asks there.
func datagramPod(t *testing.T, port int) (ask func(pid int, host, text string) (answer, from string), app, tools int) {
	t.Helper()
	process := func(pod string) int {
		pid, err := w.cluster.PodProcess(t.Context(), w.namespace, pod)
		if err != nil {
			t.Fatal(err)
		}
		return pid
	}
	app, tools = process("app"), process("tools")
	var server net.PacketConn
	within(t, app, func() (err error) {
		server, err = net.ListenPacket("udp", fmt.Sprintf(":%d", port))
		return err
	})
	done := make(chan struct{})
	t.Cleanup(func() { server.Close(); <-done })
	go func() {
		defer close(done)
		b := make([]byte, 1<<16)
		for {
			n, peer, err := server.ReadFrom(b)
			if err != nil {
				return
			}
			_, _ = server.WriteTo(append([]byte("remote "), b[:n]...), peer)
		}
	}()
	ask = func(pid int, host, text string) (string, string) {
		t.Helper()
		var c net.Conn
		to := net.JoinHostPort(strings.Trim(host, "[]"), fmt.Sprint(port))
		dial := func() (err error) { c, err = net.Dial("udp", to); return err }
		if pid == 0 {
			if err := dial(); err != nil {
				t.Fatal(err)
			}
		} else {
			within(t, pid, dial)
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		if _, err := c.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 1<<16)
		n, err := c.Read(b)
		if err != nil {
			t.Errorf("%s is answered: %v", to, err)
		}
		_, from, _ := net.SplitHostPort(c.LocalAddr().String())
		return string(b[:n]), from
	}
	return ask, app, tools
}

// Datagrams to a port of the target are the program's from its bind on, with the
// client's address, and the target's again afterwards; copies change nothing.
func TestUDP(t *testing.T) {
	const port = 8051
	ask, app, tools := datagramPod(t, port)
	ip, ip6 := podIP(t, "app"), podIP6(t, "app")
	asks := []struct {
		pid        int
		host, from string
	}{{tools, ip, podIP(t, "tools")}, {tools, ip6, strings.Trim(podIP6(t, "tools"), "[]")}, {app, "127.0.0.1", ""}, {app, ip, ""}}
	all := func(who string) {
		t.Helper()
		for _, a := range asks {
			for _, text := range []string{"hello", strings.Repeat("long ", 1200)} {
				if got, _ := ask(a.pid, a.host, text); got != who+" "+text {
					t.Errorf("at %s: %d bytes, %.20q, want %s", a.host, len(got), got, who)
				}
			}
		}
	}
	all("remote")

	r := start(t, "-t", "pod/app", "--steal", "python3", "-c", datagramServer, fmt.Sprint(port))
	r.waitFor("listening")
	all("local")
	for _, a := range asks[:2] {
		_, from := ask(a.pid, a.host, "whose")
		r.waitFor(fmt.Sprintf("got whose from %s %s", a.from, from))
	}
	r.stderr.waitFor(fmt.Sprintf("UDP port %d: the target's traffic is stolen, open here at 127.0.0.1:%d", port, port), runTime)
	if got, _ := ask(0, "127.0.0.1", "here"); got != "local here" {
		t.Errorf("on this machine: %q", got)
	}
	r.stop()
	all("remote")
	if text := r.stderr.String(); !strings.Contains(text, " stolen") {
		t.Errorf("the last line does not count:\n%s", text)
	}

	r = start(t, "-t", "pod/app", "python3", "-c", datagramServer, fmt.Sprint(port))
	r.waitFor("listening")
	for i, a := range asks[:2] {
		text := fmt.Sprintf("copy%d", i)
		got, from := ask(a.pid, a.host, text)
		if got != "remote "+text {
			t.Errorf("the client got %q", got)
		}
		r.waitFor(fmt.Sprintf("got %s from %s %s", text, a.from, from))
	}
	r.stop()
}
