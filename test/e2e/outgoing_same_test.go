package e2e

import (
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// differences are the cases that end otherwise in a session than in the pod, as
// docs/flows/outgoing.md says: what the session shows.
var differences = map[string]map[string]string{
	// In the pod nobody says that nobody hears it.
	"IPv4": {"a socket connected to a group": "<nil> <nil> true ENETUNREACH"},
	"IPv6": {"a socket connected to a group": "<nil> <nil> true EACCES"},
}

// A program that looks closely sees the same in a session as in the pod: each
// case of programs/network is run in both, over both families.
func TestAsInThePod(t *testing.T) {
	p := handmadePod(t, families{four: true, six: true})
	p.serve()
	program := filepath.Join(w.dir, "bin", "network")
	for _, f := range []struct{ name, server, other, nowhere, self string }{
		{"IPv4", handWorld, handOther, handNowhere, handPod}, {"IPv6", handWorld6, handOther6, handNowhere6, handPod6},
	} {
		for _, area := range []string{"tcp", "udp", "odd"} {
			t.Run(f.name+" "+area, func(t *testing.T) {
				p.same(t, differences[f.name], program, area, f.server, f.other, f.nowhere, f.self)
			})
		}
	}
}

// unanswered is a program that connects to who does not answer, in every way and to
// all at once, and prints how each ended and after how many seconds, to the nearest
// multiple of four: tries are seconds apart, and this machine takes some time.
const unanswered = `
import concurrent.futures, errno, select, socket, sys, time
def new(at):
    return socket.socket(socket.AF_INET6 if ":" in at[0] else socket.AF_INET)
def blocking(at):
    return new(at).connect_ex(at)
def polled(at):
    s = new(at); s.setblocking(False)
    e = s.connect_ex(at)
    if e == errno.EINPROGRESS:
        p = select.poll(); p.register(s, select.POLLOUT); p.poll(60000)
        e = s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    return e
def patient(at):
    s = new(at); s.setsockopt(socket.IPPROTO_TCP, socket.TCP_SYNCNT, 2)
    return s.connect_ex(at)
def impatient(at):
    s = new(at); s.settimeout(1)
    try: s.connect(at)
    except socket.timeout: return "too late"
def timed(do, at):
    began = time.monotonic()
    e = do(at)
    return errno.errorcode.get(e, e), 4 * round((time.monotonic() - began) / 4)
ways = [globals()[name] for name in sys.argv[1].split(",")]
with concurrent.futures.ThreadPoolExecutor(20) as pool:
    all = [(do, at, pool.submit(timed, do, (at, 7777))) for do in ways for at in sys.argv[2:]]
    for do, at, f in all:
        print(do.__name__, at + ":", *f.result())`

// Who does not answer at all is told of as in the pod, and when the target's
// kernel has given up: that is no refusal.
func TestNobodyAnswers(t *testing.T) {
	for retries, linear := range map[string]string{"1": "0", "2": "1"} { // 3 and 8 seconds; of this kernel by itself it is 131
		t.Run(retries+" retries", func(t *testing.T) {
			p := handmadePod(t, families{four: true, six: true})
			p.sysctl(p.pid, "net/ipv4/tcp_syn_retries", retries)
			p.sysctl(p.pid, "net/ipv4/tcp_syn_linear_timeouts", linear)
			if out, err := exec.Command("nsenter", "-t", strconv.Itoa(p.world), "--net", "nft", "table inet silent { chain in { type filter hook input priority 0; tcp dport 7777 drop; }; }").CombinedOutput(); err != nil {
				t.Fatalf("nft: %v: %s", err, out)
			}
			p.same(t, nil, "python3", "-c", unanswered, "blocking,polled,patient,impatient", handWorld, handWorld6)
		})
	}
}

// A host that is not there, in the target's own network, is unreachable when its
// kernel has looked for it in vain.
func TestNobodyIsThere(t *testing.T) {
	p := handmadePod(t, families{four: true, six: true})
	p.same(t, nil, "python3", "-c", unanswered, "blocking,polled,impatient", handNobody, handNobody6)
}

// What no session carries is said once, by name.
func TestNotCarriedIsSaidOnce(t *testing.T) {
	p := handmadePod(t, families{four: true, six: true})
	p.serve()
	four := strings.Join([]string{"network odd", handWorld, handOther, handNowhere, handPod}, " ")
	six := strings.Join([]string{"network odd", handWorld6, handOther6, handNowhere6, handPod6}, " ")
	join, ping := strings.Replace(four, "odd", "join", 1), strings.Replace(four, "odd", "ping", 1)
	join6 := strings.Replace(six, "odd", "join", 1)
	r := start(t, "-t", p.target(), "bash", "-c", strings.Join([]string{four, six, four, six, join + "& " + join6, join, ping, ping, "ping -c 1 -t 3 " + handWorld, "wait"}, "; "))
	if code := r.end(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	for _, want := range []string{"asks for a socket of kind raw:", "asks for a socket of kind raw ICMP:", "asks for a socket of kind IPsec key:", "asks for SO_MARK:", "asks for IP_TRANSPARENT:",
		"asks for IPV6_TRANSPARENT:", "multicast from 239.7.7.8 does not enter", "multicast from ff0e::7:8 does not enter", "a limit of hops to " + handWorld + " does not leave", "asks for a socket of kind packet:", "asks for a socket of kind SCTP:", "asks for a socket of kind CAN:",
		"multicast to 239.7.7.7:7007 does not leave", "multicast to [ff0e::7:7]:7007 does not leave", "broadcast to 255.255.255.255:7007 does not leave", "UDP to 10.77.0.255:7007 does not leave"} {
		if n := strings.Count(r.stderr.String(), want); n != 1 {
			t.Errorf("%q is said %d times, want once", want, n)
		}
	}
}
