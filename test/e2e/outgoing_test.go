package e2e

import (
	"strings"
	"testing"
)

// Connections that a program makes come from the pod's network.

func TestOutgoingTCP(t *testing.T) {
	ip, ip6 := podIP(t, "app"), strings.Trim(podIP6(t, "app"), "[]")
	echo4 := kubectl(t, "get", "service", "echo", "-o", "jsonpath={.spec.clusterIP}")
	for name, c := range map[string]struct {
		argv []string
		want string
	}{
		"static Go":      {[]string{"probe", "tcp", "echo:7000", "hi"}, "echo hi from " + ip},
		"IPv6":           {[]string{"probe", "tcp", podIP6(t, "echo") + ":7000", "hi"}, "echo hi from " + ip6},
		"python":         {[]string{"python3", "-c", "import socket; s = socket.create_connection(('" + echo4 + "', 7000)); s.sendall(b'hi\\n'); print(s.makefile().readline(), end='')"}, "echo hi from " + ip},
		"shell built-in": {[]string{"bash", "-c", "exec 3<>/dev/tcp/" + echo4 + "/7000; echo hi >&3; head -n 1 <&3"}, "echo hi from " + ip},
		"java":           {[]string{"java", "-XX:TieredStopAtLevel=1", "-cp", "../bin", "Ask", "echo", "7000"}, "echo hi from " + ip},
	} {
		t.Run(name, func(t *testing.T) {
			if got := in(t, "pod/app", c.argv...); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
	t.Run("curl", func(t *testing.T) {
		if got := in(t, "pod/app/container/side", "curl", "-sS", "http://"+podIP(t, "app")+":8001/x"); !strings.HasPrefix(got, "remote /x") {
			t.Errorf("got %q, want remote /x", got)
		}
	})
	t.Run("half-close, 100 at once", func(t *testing.T) {
		if got := in(t, "pod/app", "probe", "parallel", "100", "echo:7002"); got != "100 intact" {
			t.Errorf("got %q", got)
		}
	})
}

func TestResultOfConnect(t *testing.T) {
	for _, c := range []struct{ name, address, want string }{
		{"open port", "echo:7000", "connected"},
		{"closed port", podIP(t, "echo") + ":9", "ECONNREFUSED"},
		{"closed port, IPv6", podIP6(t, "echo") + ":9", "ECONNREFUSED"},
		{"closed port of the pod's localhost", "127.0.0.1:9", "ECONNREFUSED"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := in(t, "pod/app", "probe", "connect", c.address); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestLocalhostIsThePods(t *testing.T) {
	for _, address := range []string{"127.0.0.1:7000", "localhost:7000", "[::1]:7000"} {
		t.Run(address, func(t *testing.T) {
			if got := in(t, "pod/app", "probe", "tcp", address, "hi"); !strings.HasPrefix(got, "echo hi from ") {
				t.Errorf("got %q, want the sidecar's echo", got)
			}
		})
	}
}

func TestOutgoingUDP(t *testing.T) {
	ip := podIP(t, "app")
	service := kubectl(t, "get", "service", "echo", "-o", "jsonpath={.spec.clusterIP}")
	if got := in(t, "pod/app", "probe", "udp", "echo:7000", "hi"); got != "echo hi from "+ip {
		t.Errorf("connected socket: got %q", got)
	}
	if got := in(t, "pod/app", "probe", "udpto", service+":7000", "hi"); got != "echo hi from "+ip+" from "+service+":7000" {
		t.Errorf("unconnected socket: got %q", got)
	}
	if got := in(t, "pod/app", "probe", "udp", "[::1]:7000", "hi"); got != "echo hi from ::1" {
		t.Errorf("sidecar on ::1: got %q", got)
	}
}

func TestDatabase(t *testing.T) {
	if got := in(t, "pod/app", "psql", "-h", "dbmaster", "-U", "postgres", "-Atc", "select 6 * 7"); got != "42" {
		t.Errorf("got %q, want 42", got)
	}
}

func TestTargetless(t *testing.T) {
	if got := in(t, "", "psql", "-U", "postgres", "-Atc", "select 6 * 7", "postgresql://dbmaster:5432/postgres"); got != "42" {
		t.Errorf("psql: got %q, want 42", got)
	}
	if got := in(t, "", "sh", "-c", "probe tcp echo:7000 hi | cut -d' ' -f1,2; echo $COLOR"); got != "echo hi\nlocal" {
		t.Errorf("got %q", got)
	}
}
