package testcluster

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const (
	// readyTimeout is how long WaitReady waits when its context has no deadline:
	// a pod whose image is there runs within a second, but one core may be busy.
	readyTimeout = 60 * time.Second
	// nameLimit is how many bytes of a test's name go into that of its namespace:
	// it is a DNS label (RFC 1123) of at most 63.
	nameLimit = 40
)

// Kubectl runs kubectl as administrator and returns what it printed on
// standard output, also when it failed.
func (c *Cluster) Kubectl(ctx context.Context, args ...string) (stdout string, err error) {
	return c.kubectl(ctx, nil, args...)
}

func (c *Cluster) kubectl(ctx context.Context, stdin io.Reader, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(c.state, "kubectl"), args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+c.Kubeconfig())
	cmd.Stdin = stdin
	return run(cmd, nil)
}

// Apply makes the objects of one or several YAML documents, or changes them to
// be like that. Those that name no namespace of their own go to the given one.
func (c *Cluster) Apply(ctx context.Context, namespace, yaml string) error {
	_, err := c.kubectl(ctx, strings.NewReader(yaml), "apply", "-n", namespace, "-f", "-")
	return err
}

// Namespace makes a fresh namespace, ready for pods, and returns its name. It
// is deleted after the test, but nobody waits for that: it takes seconds.
func (c *Cluster) Namespace(t testing.TB) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), readyTimeout)
	defer cancel()
	name := namespaceName(t.Name())
	if _, err := c.Kubectl(ctx, "create", "namespace", name); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), quitTimeout)
		defer cancel()
		if _, err := c.Kubectl(ctx, "delete", "namespace", name, "--wait=false"); err != nil {
			t.Error(err)
		}
	})
	// A controller makes the account a moment later, and pods are refused before.
	if _, err := c.Kubectl(ctx, "wait", "-n", name, "--for=create", "serviceaccount/default", "--timeout=30s"); err != nil {
		t.Fatal(err)
	}
	return name
}

// namespaceName is the name of the test as a DNS label, and something random
// after it: a namespace of the run before may still be going.
func namespaceName(test string) string {
	label := strings.Map(func(r rune) rune {
		switch {
		case 'a' <= r && r <= 'z', '0' <= r && r <= '9':
			return r
		case 'A' <= r && r <= 'Z':
			return r + 'a' - 'A'
		}
		return '-'
	}, strings.TrimPrefix(test, "Test"))
	return strings.Trim(label[:min(len(label), nameLimit)], "-") + "-" + strings.ToLower(rand.Text()[:6])
}

// WaitReady waits until each object ("pod/x", "deployment/y", "statefulset/z",
// "daemonset/d", "job/j") is ready, rolled out or complete, until the context's
// deadline or for a minute. The error tells what the namespace looked like.
func (c *Cluster) WaitReady(ctx context.Context, namespace string, objects ...string) error {
	timeout := readyTimeout
	if deadline, ok := ctx.Deadline(); ok {
		timeout = max(time.Until(deadline)-time.Second, time.Second) // leaves time for a report
	}
	limit := fmt.Sprintf("--timeout=%ds", int(timeout.Seconds()))
	for _, object := range objects {
		args := []string{"wait", "--for=condition=Ready", limit, "-n", namespace, object}
		switch kind, _, _ := strings.Cut(object, "/"); kind {
		case "deployment", "statefulset", "daemonset":
			args = []string{"rollout", "status", limit, "-n", namespace, object}
		case "job":
			args[1] = "--for=condition=Complete"
		}
		if _, err := c.Kubectl(ctx, args...); err != nil {
			report, cancel := context.WithTimeout(context.WithoutCancel(ctx), quitTimeout)
			defer cancel()
			pods, _ := c.Kubectl(report, "get", "pods", "-n", namespace, "-o", "wide")
			events, _ := c.Kubectl(report, "get", "events", "-n", namespace, "--sort-by=.lastTimestamp")
			return fmt.Errorf("wait for %s: %w\n%s%s", object, err, pods, events)
		}
	}
	return nil
}
