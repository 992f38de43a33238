package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/mirrord-go/mirrord/internal/failure"
	"github.com/mirrord-go/mirrord/internal/leak"
)

// Names by which this test's executable plays other roles.
const (
	roleParent = "demo-test-parent" // starts a pod, prints its pid, waits
	roleSelf   = "mirrord"          // a stand-in for the mirrord command; see story_test.go
)

func TestMain(m *testing.M) {
	switch filepath.Base(os.Args[0]) {
	case Name:
		Main()
	case roleParent:
		parent()
	case roleSelf:
		standIn(os.Args[1:])
	default:
		// The race detector makes every program that it is in last a second
		// longer; the story starts many.
		os.Setenv("GORACE", "atexit_sleep_ms=0")
		os.Exit(leak.Main(m))
	}
}

func parent() {
	p, err := Start(context.Background())
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println(p.PID(), p.NeighbourPID())
	<-p.Done()
}

func startPod(t *testing.T) *Pod {
	t.Helper()
	leak.Check(t)
	p, err := Start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.Close()
		for _, pid := range []int{p.PID(), p.NeighbourPID()} {
			gone(t, pid)
		}
	})
	return p
}

// gone waits for the end of a process.
func gone(t *testing.T, pid int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := awaitEnd(ctx, pid); err != nil {
		t.Errorf("process %d is still there: %v", pid, err)
	}
}

// TestAsUser runs the tests of this package again as an ordinary user.
func TestAsUser(t *testing.T) {
	if os.Getuid() != 0 {
		t.Logf("these tests run as uid %d already", os.Getuid())
		return
	}
	cmd := exec.Command("/proc/self/exe", "-test.v", "-test.skip", "^TestAsUser$|^Fuzz")
	cmd.Dir = "/usr"
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=/tmp", "TMPDIR=/tmp"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 1000, Gid: 1000}}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("as uid 1000: %v\n%s", err, out)
	}
}

func TestPodItself(t *testing.T) {
	p := startPod(t)
	environ, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", p.PID()))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := strings.Split(strings.TrimSuffix(string(environ), "\x00"), "\x00"), environment(); !slices.Equal(got, want) {
		t.Errorf("environment: got %q, want %q", got, want)
	}
	root := fmt.Sprintf("/proc/%d/root", p.PID())
	for path, want := range map[string]string{
		"/etc/hostname":            "shop-demo-0\n",
		"/etc/hosts":               hostsText(),
		"/etc/resolv.conf":         "search demo.svc.cluster.local svc.cluster.local cluster.local\nnameserver 10.245.0.10\noptions ndots:5\n",
		"/data/hello.txt":          "hello from the demo pod\n",
		"/data/orders/3.json":      "{\"order\": 3}\n",
		"/etc/app/config.yaml":     "color: blue\nreplicas: 3\n",
		secretDir + "/token":       "demo-token\n",
		"/app/static/index.html":   "<h1>shop</h1>\n",
		"/etc/app/..data/../../os": "", // no such file
	} {
		got, err := os.ReadFile(root + path)
		if want == "" {
			if !errors.Is(err, syscall.ENOENT) {
				t.Errorf("%s: got error %v, want ENOENT", path, err)
			}
			continue
		}
		if err != nil || string(got) != want {
			t.Errorf("%s: got %q, %v, want %q", path, got, err, want)
		}
	}
	if got, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", p.PID())); string(got) != commName+"\n" {
		t.Errorf("name: got %q, %v", got, err)
	}
	if got, err := os.Readlink(root + "/data/latest.json"); got != "orders/3.json" {
		t.Errorf("link: got %q, %v", got, err)
	}
	if err := os.WriteFile(root+configDir+"/new", nil, 0o644); !errors.Is(err, syscall.EROFS) {
		t.Errorf("write to a volume: got %v, want EROFS", err)
	}
	mounts, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", p.PID()))
	if err != nil {
		t.Fatal(err)
	}
	var points []string
	for line := range strings.Lines(string(mounts)) {
		points = append(points, strings.Fields(line)[4])
	}
	if want := []string{"/", configDir, secretDir}; !slices.Equal(points, want) {
		t.Errorf("mounts: got %q, want %q", points, want)
	}
	if got, want := fmt.Sprint(p.Addresses()), "[10.245.0.7 fd00:245::7]"; got != want {
		t.Errorf("addresses: got %s, want %s", got, want)
	}
	if cwd, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", p.PID())); cwd != "/app" {
		t.Errorf("working directory: got %q, %v, want /app", cwd, err)
	}
	uidMap, err := os.ReadFile(fmt.Sprintf("/proc/%d/uid_map", p.PID()))
	if want := []string{"0", fmt.Sprint(os.Geteuid()), "1"}; err != nil || !slices.Equal(strings.Fields(string(uidMap)), want) {
		t.Errorf("uid map: got %q, %v, want %q", uidMap, err, want)
	}
}

func TestServices(t *testing.T) {
	p := startPod(t)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for url, want := range map[string]string{
		"http://10.245.0.7/path?a=b":       "remote GET /path?a=b\nserved by shop-demo-0\nclient 10.245.0.1\nbody 3 bytes\n",
		"http://[fd00:245::7]/path":        "remote GET /path\nserved by shop-demo-0\nclient fd00:245::1\nbody 3 bytes\n",
		"http://v4only:5432/":              "",
		"http://10.245.0.7:9901/":          "", // the sidecar is on the pod's loopback only
		"http://nobody.demo.svc/":          "",
		"http://shop-demo-0.shop/by-name":  "remote GET /by-name\n",
		"http://catalog/items":             "catalog GET /items\n",
		"http://catalog.demo.svc/items":    "catalog GET /items\n",
		"http://shop:80/from-search-list/": "remote GET /from-search-list/\n",
	} {
		got, err := p.Request(ctx, Request{Method: "GET", URL: url, Body: []byte("abc")})
		if want == "" {
			if err == nil {
				t.Errorf("%s: got %q, want an error", url, got.Body)
			}
			continue
		}
		if err != nil || got.Status != 200 || !strings.HasPrefix(string(got.Body), want) {
			t.Errorf("%s: got %d %q, %v, want %q", url, got.Status, got.Body, err, want)
		}
	}
	if _, err := p.Request(ctx, Request{Method: "GET", URL: "http://10.245.0.7:9901/"}); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("sidecar from outside: got %v, want ECONNREFUSED", err)
	}
	if _, err := p.Request(ctx, Request{Method: "GET", URL: "http://192.0.2.1/"}); !errors.Is(err, syscall.ENETUNREACH) {
		t.Errorf("outside of the demo: got %v, want ENETUNREACH", err)
	}
	for _, c := range []struct{ network, address, data, want string }{
		{"tcp", "db:5432", "select 1\nselect 2\n", "demo-db ready, you are 10.245.0.1\n1: select 1\n2: select 2\n"},
		{"tcp", "10.245.0.40:7001", "echo", "echo"},
		{"udp", "echo:7001", "datagram", "datagram"},
		{"udp", "10.245.0.7:7001", "to the pod", "to the pod"},
		{"udp", "[fd00:245::7]:7001", "to the pod", "to the pod"},
	} {
		got, err := p.Exchange(ctx, c.network, c.address, []byte(c.data))
		if c.address == "db:5432" && strings.Contains(string(got), "fd00:") { // either family will do
			c.want = strings.Replace(c.want, "10.245.0.1", "fd00:245::1", 1)
		}
		if err != nil || string(got) != c.want {
			t.Errorf("%s %s: got %q, %v, want %q", c.network, c.address, got, err, c.want)
		}
	}
	// As many at once as one caller may want.
	errs := make(chan error)
	for i := range 200 {
		go func() {
			url := fmt.Sprintf("http://10.245.0.7/%d", i)
			r, err := p.Request(ctx, Request{Method: "GET", URL: url})
			if err == nil && !strings.HasPrefix(string(r.Body), fmt.Sprintf("remote GET /%d\n", i)) {
				err = fmt.Errorf("%s: got %q", url, r.Body)
			}
			errs <- err
		}()
	}
	for range 200 {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
}

// TestInside runs this machine's own programs in the pod's network.
func TestInside(t *testing.T) {
	p := startPod(t)
	inside := func(script string) string {
		t.Helper()
		cmd := exec.Command("nsenter", "--user", "--net", "--uts", "--preserve-credentials", "--target", fmt.Sprint(p.PID()),
			"bash", "-c", script)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Errorf("%s: %v\n%s", script, err, out)
		}
		return string(out)
	}
	for script, want := range map[string]string{
		"uname -n": "shop-demo-0\n",
		"exec 3<>/dev/tcp/127.0.0.1/9901 && printf 'GET / HTTP/1.0\\r\\n\\r\\n' >&3 && grep sidecar <&3": "sidecar GET /\n",
		"exec 3<>/dev/tcp/::1/9901 && printf 'GET / HTTP/1.0\\r\\n\\r\\n' >&3 && grep sidecar <&3":       "sidecar GET /\n",
		"exec 3<>/dev/tcp/10.245.0.20/5432 && head -n 1 <&3":                                             "demo-db ready, you are 10.245.0.7\n",
		"exec 3<>/dev/tcp/fd00:245::20/5432 && head -n 1 <&3":                                            "demo-db ready, you are fd00:245::7\n",
	} {
		if got := inside(script); got != want {
			t.Errorf("%s: got %q, want %q", script, got, want)
		}
	}
}

func TestInventorySeesWhatIsLeft(t *testing.T) {
	p := startPod(t)
	before, err := p.Inventory(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	again, err := p.Inventory(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, again); diff != "" {
		t.Errorf("nothing happened, but the inventory changed:\n%s", diff)
	}
	if list, err := p.Strangers(); err != nil || len(list) != 0 {
		t.Errorf("strangers: got %q, %v, want none", list, err)
	}
	cmd := exec.Command("nsenter", "--user", "--net", "--preserve-credentials", "--target", fmt.Sprint(p.PID()), "cat")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(stdin, "x") // it comes back when the program is inside
	if _, err := io.ReadFull(stdout, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	short, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := p.AwaitAlone(short); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), fmt.Sprint(cmd.Process.Pid)) {
		t.Errorf("with a stranger: got %v, want its pid", err)
	}
	stdin.Close()
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	if err := p.AwaitAlone(t.Context()); err != nil {
		t.Errorf("after its end: %v", err)
	}
}

func TestCallsEnd(t *testing.T) {
	p := startPod(t)
	ctx, cancel := context.WithCancel(t.Context())
	result := make(chan error)
	go func() {
		_, err := p.Exchange(ctx, "udp", "10.245.0.99:1", nil) // nobody answers
		result <- err
	}()
	cancel()
	if err := <-result; !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled call: got %v", err)
	}
	if _, err := p.Request(t.Context(), Request{Method: "GET", URL: "http://10.245.0.7/"}); err != nil {
		t.Errorf("the call after it: %v", err)
	}
	if err := syscall.Kill(p.PID(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-p.Done()
	if _, err := p.Request(t.Context(), Request{Method: "GET", URL: "http://10.245.0.7/"}); !errors.Is(err, errPodEnded) {
		t.Errorf("call to a dead pod: got %v, want %v", err, errPodEnded)
	}
}

// TestHungPod: calls end with their context also when nobody reads them.
func TestHungPod(t *testing.T) {
	p := startPod(t)
	if err := syscall.Kill(p.NeighbourPID(), syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	errs := make(chan error)
	const calls = 20 // of 64 KiB: more than the socket has room for
	for range calls {
		go func() {
			_, err := p.Exchange(ctx, "udp", "echo:7001", make([]byte, maxBody))
			errs <- err
		}()
	}
	for range calls {
		if err := <-errs; !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("call to a pod that hangs: got %v, want %v", err, context.DeadlineExceeded)
		}
	}
	if err := syscall.Kill(p.NeighbourPID(), syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	got, err := p.Exchange(t.Context(), "udp", "echo:7001", []byte("again"))
	if err != nil || string(got) != "again" {
		t.Errorf("afterwards: got %q, %v", got, err)
	}
}

// TestHalfAPod: without the rest of the cluster the pod ends, too.
func TestHalfAPod(t *testing.T) {
	p := startPod(t)
	if err := syscall.Kill(p.NeighbourPID(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	select {
	case <-p.Done():
	case <-time.After(10 * time.Second):
		t.Error("it lives on")
	}
}

// TestParentKilled: kill -9 of whoever started the pod ends all of it.
func TestParentKilled(t *testing.T) {
	cmd := &exec.Cmd{Path: "/proc/self/exe", Args: []string{roleParent}, Env: os.Environ()}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var pod, neighbour int
	if _, err := fmt.Fscan(out, &pod, &neighbour); err != nil {
		t.Fatal(err)
	}
	for _, pid := range []int{pod, neighbour} {
		if err := syscall.Kill(pid, 0); err != nil {
			t.Errorf("process %d before: %v", pid, err)
		}
	}
	if err := unix.Kill(cmd.Process.Pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // killed
	gone(t, pod)
	gone(t, neighbour)
}

func TestStartGivesUp(t *testing.T) {
	leak.Check(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if p, err := Start(ctx); err == nil {
		p.Close()
		t.Error("started although it was called off")
	}
}

// TestRefused: why there is no demo pod, in plain words where the cause is known.
func TestRefused(t *testing.T) {
	for err, why := range map[error]string{
		syscall.ENOSPC: "allows no more user namespaces",
		errors.New("inside: " + syscall.EPERM.Error()): "does not let an ordinary user make namespaces",
		errors.New("odd"): "odd",
	} {
		if f := failure.From(refused(err)); f.Code != "demo-pod" || !strings.Contains(f.Why, why) {
			t.Errorf("%v: got %+v, want %q", err, f, why)
		}
	}
}
