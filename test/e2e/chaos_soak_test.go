package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// churn is a program that does a little of everything, over and over: files,
// names, connections, datagrams, children, listeners that come and go. It says
// each round that was as it should be.
const churn = `
goserver 8040 &
trap "kill $!; exit" TERM
for i in $(seq 1000000); do
	grep -q from-pod /data/hello.txt && cat /data/many/$((i % 1000 + 1)) >/dev/null && ls /data/many >/dev/null &&
	getent hosts echo >/dev/null &&
	probe tcp echo:7000 $i | grep -q "echo $i" && probe udp echo:7000 $i | grep -q "echo $i" && probe parallel 5 echo:7002 >/dev/null &&
	timeout 5 python3 -c 'import socket; s = socket.create_server(("", 8039)); s.close()' &&
	(env -i /bin/cat /data/link >/dev/null &) &&
	echo "round $i" || echo "FAILED $i"
done`

// usage is what a process holds at a moment.
type usage struct{ mib, descriptors, threads, goroutines int }

// usageOf asks pid, which writes to log.
func usageOf(t *testing.T, pid int, log func() string) usage {
	t.Helper()
	told := strings.Count(log(), "vitals: ")
	if err := syscall.Kill(pid, syscall.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	goroutines := 0
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		all := regexp.MustCompile(`vitals: goroutines=(\d+)`).FindAllStringSubmatch(log(), -1)
		if len(all) > told {
			goroutines, _ = strconv.Atoi(all[len(all)-1][1])
			break
		}
		if time.Now().After(end) {
			t.Fatalf("process %d does not tell how it is", pid)
		}
	}
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		t.Fatal(err)
	}
	threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		t.Fatal(err)
	}
	return usage{statusMiB(t, pid, "VmRSS"), len(fds), len(threads), goroutines}
}

// A session under constant change holds as much at the end as at the
// beginning.
func TestChaosSoak(t *testing.T) {
	length := time.Duration(number(30*60, 20)) * time.Second
	os.WriteFile(filepath.Join(w.dir, "work", "churn"), []byte(churn), 0o755)
	supervisorLog := filepath.Join(w.dir, "work", "supervisor.log")
	r := startCommand(t, []string{w.mirrord, "exec", "-n", w.namespace, "-q", "-t", "pod/app", "--steal", "bash", "churn"},
		func(c *exec.Cmd) { c.Env = append(c.Env, "MIRRORD_SUPERVISOR_LOG="+supervisorLog) })
	r.waitFor("round 3")
	clients, end := podRun(t, "tools", "bash", "-c", fmt.Sprintf(
		`while read -t 0; [ $? = 1 ]; do curl -sS --max-time 10 http://%s:8040/soak || echo FAILED; done`, podIP(t, "app")))
	if !clients.waitFor("local go /soak", runTime) {
		t.Fatalf("the clients: %s", clients)
	}
	who := map[string]int{"agent": agentProcess(t), "supervisor": supervisor(t)}
	logs := map[string]func() string{
		"agent":      func() string { return kubectl(t, "logs", "-l", "app.kubernetes.io/name=mirrord-agent", "--tail=-1") },
		"supervisor": func() string { b, _ := os.ReadFile(supervisorLog); return string(b) },
	}
	time.Sleep(length / 4) // pools and caches fill
	before := map[string]usage{}
	for name, pid := range who {
		before[name] = usageOf(t, pid, logs[name])
	}
	time.Sleep(length * 3 / 4)
	for name, pid := range who {
		was, is := before[name], usageOf(t, pid, logs[name])
		t.Logf("%s: %+v, then %+v", name, was, is)
		// In the short form pools still fill, and datagram flows wait for the end of
		// their time: some each round, for a minute.
		if is.mib > was.mib*5/4+number(10, 60) || is.descriptors > was.descriptors+number(150, 600) || is.threads > was.threads+10 || is.goroutines > was.goroutines+number(300, 1200) {
			t.Errorf("%s grows: %+v, then %+v", name, was, is)
		}
	}
	if err := end(); err != nil {
		t.Errorf("the clients: %v", err)
	}
	r.stop()
	t.Logf("%d rounds, %d requests", strings.Count(r.stdout.String(), "round"), strings.Count(clients.String(), "local go"))
	for name, out := range map[string]*output{"the program": r.stdout, "the clients": clients} {
		if n := strings.Count(out.String(), "FAILED"); n > 0 {
			t.Errorf("%s failed %d times:\n%s", name, n, out)
		}
	}
}
