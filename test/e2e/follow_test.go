package e2e

import (
	"fmt"
	"io"
	"strings"
	"testing"
	"time"
)

// follower is a session whose program does what is written to it, line by line.
type follower struct {
	*run
	lines int
}

// follow starts a session with a target of follow.yaml that steals port 8021.
func follow(t *testing.T, target string) *follower {
	t.Helper()
	followable(t)
	f := &follower{run: start(t, "-t", target, "--steal", "bash", "-c", `goserver 8021 & while read -r line; do eval "$line"; done; kill %1`)}
	f.waitFor("listening")
	return f
}

// followable makes the targets of follow.yaml.
func followable(t *testing.T) {
	t.Helper()
	lent(t, "follow.yaml")
	kubectl(t, "rollout", "status", "deployment/followed", "--timeout=28s")
	kubectl(t, "rollout", "status", "statefulset/kept", "--timeout=28s")
}

// says gives what the program prints for a line, in one line.
func (f *follower) says(line string) string {
	f.t.Helper()
	f.lines++
	mark := fmt.Sprintf("answer %d: ", f.lines)
	io.WriteString(f.stdin, fmt.Sprintf("echo \"%s$(%s 2>&1 | tr '\\n' ' ')\"\n", mark, line))
	f.waitFor(mark)
	_, rest, _ := strings.Cut(f.stdout.String(), mark)
	answer, _, _ := strings.Cut(rest, "\n")
	return strings.TrimSpace(answer)
}

func (f *follower) followed(times int) {
	f.t.Helper()
	for begin := time.Now(); strings.Count(f.stderr.String(), "the session goes on in ") < times; time.Sleep(20 * time.Millisecond) {
		select {
		case <-f.done:
			f.t.Fatal("the session has ended instead of following its target")
		default:
		}
		if time.Since(begin) > runTime {
			f.t.Fatal("the session did not follow its target")
		}
	}
}

// works checks every flow against a pod whose container was born later than
// before; it gives when that was.
func (f *follower) works(pod string, before string) (born string) {
	f.t.Helper()
	born = kubectl(f.t, "exec", pod, "--", "cat", "/tmp/born")
	if born == before {
		f.t.Errorf("the container of %s was not replaced", pod)
	}
	if got := f.says("cat /.mirrord/remote/tmp/born"); got != born {
		f.t.Errorf("files: born %q, want %q", got, born)
	}
	if got := f.says("curl -s http://" + podIP(f.t, "app") + ":8002/out"); !strings.HasPrefix(got, "remote /out peer="+podIP(f.t, pod)) {
		f.t.Errorf("outgoing: %q, want to come from %s", got, podIP(f.t, pod))
	}
	if got := f.says("getent hosts kubernetes.default"); !strings.Contains(got, "kubernetes.default.svc") {
		f.t.Errorf("names: %q", got)
	}
	url := fmt.Sprintf("http://%s:8021/in", podIP(f.t, pod))
	if got := request(f.t, url); !strings.HasPrefix(got, "local go /in") {
		f.t.Errorf("incoming: %q", got)
	}
	return born
}

// ready is the one pod with a label that is not going away.
func ready(t *testing.T, label string) string {
	t.Helper()
	for begin := time.Now(); time.Since(begin) < 30*time.Second; {
		out := kubectl(t, "get", "pods", "-l", label, "-o", `jsonpath={range .items[*]}{.metadata.name} {.metadata.deletionTimestamp}{"\n"}{end}`)
		var left []string
		for line := range strings.Lines(out) {
			if name, going, _ := strings.Cut(strings.TrimSpace(line), " "); going == "" {
				left = append(left, name)
			}
		}
		if len(left) == 1 {
			return left[0]
		}
	}
	t.Fatalf("there is not one pod with %s", label)
	return ""
}

// crash ends a pod's container, and with it what is run in there to do so: that
// may be before it can say that it has.
func crash(t *testing.T, namespace, pod string) {
	t.Helper()
	const killed = "exit code 137"
	_, err := w.cluster.Kubectl(t.Context(), "-n", namespace, "exec", pod, "-c", "app", "--", "kill", "-USR1", "1")
	if err != nil && !strings.Contains(err.Error(), killed) {
		t.Fatal(err)
	}
}

// A workload's pods are replaced by a rollout, one is evicted, a container
// crashes: the session goes on with the next one, and its program sees that.
func TestTargetIsFollowed(t *testing.T) {
	f := follow(t, "deployment/followed")
	born := f.works(ready(t, "app=followed"), "")

	kubectl(t, "rollout", "restart", "deployment/followed")
	f.followed(1)
	born = f.works(ready(t, "app=followed"), born)

	kubectl(t, "delete", "pod", ready(t, "app=followed"), "--wait=false") // what an eviction is in the end
	f.followed(2)
	born = f.works(ready(t, "app=followed"), born)

	crash(t, w.namespace, ready(t, "app=followed"))
	f.followed(3)
	born = f.works(ready(t, "app=followed"), born)

	// A node that is drained loses target and agent at once.
	agent := kubectl(t, "get", "pods", "-l", "app.kubernetes.io/name=mirrord-agent", "-o", "jsonpath={.items[0].metadata.name}")
	kubectl(t, "delete", "pod", ready(t, "app=followed"), agent, "--wait=false")
	f.followed(4)
	f.works(ready(t, "app=followed"), born)

	if n := strings.Count(f.stderr.String(), "waiting for its successor"); n != 4 {
		t.Errorf("the end of a target was said %d times, want 4", n)
	}
	if code := f.end(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// A pod that was named itself is followed where its successor has its name.
func TestPodIsFollowed(t *testing.T) {
	f := follow(t, "pod/kept-0")
	born := f.works("kept-0", "")
	kubectl(t, "delete", "pod", "kept-0", "--wait=false")
	f.followed(1)
	f.works("kept-0", born)
	f.end()
}

// What the cluster does not replace ends the session, and says so.
func TestNoSuccessor(t *testing.T) {
	f := follow(t, "deployment/followed")
	kubectl(t, "delete", "deployment", "followed", "--wait=false")
	select {
	case <-f.done:
	case <-time.After(runTime):
		t.Fatal("the session goes on without a target")
	}
	if code := f.end(); code != 1 {
		t.Errorf("exit code %d, want 1", code)
	}
	if got := f.stderr.String(); !strings.Contains(got, `there is no deployment "followed"`) {
		t.Errorf("nobody said why:\n%s", got)
	}
}
