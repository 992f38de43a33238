//go:build cluster

package testcluster

import (
	"context"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"
)

// These run with "go test -tags cluster": they start the cluster if it does
// not run, which may build Kubernetes.

const pod = `
apiVersion: v1
kind: Pod
metadata: {name: x}
spec:
  terminationGracePeriodSeconds: 1
  containers: [{name: main, image: "echo:1"}]
`

func start(t *testing.T) *Cluster {
	t.Helper()
	c, err := Start(t.Context(), 2, t.Output())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := c.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	return c
}

func TestCluster(t *testing.T) {
	c := start(t)
	ctx := t.Context()
	ns := c.Namespace(t)
	if err := c.Apply(ctx, ns, pod); err != nil {
		t.Fatal(err)
	}
	if err := c.WaitReady(ctx, ns, "pod/x"); err != nil {
		t.Fatal(err)
	}
	node, err := c.Kubectl(ctx, "get", "pod", "x", "-n", ns, "-o", "jsonpath={.spec.nodeName}")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := c.NodeExec(ctx, node, "hostname"); err != nil || strings.TrimSpace(got) != node {
		t.Errorf("hostname of %s: got %q, %v", node, got, err)
	}
	if got, err := c.NodeExec(ctx, node, "sh", "-c", "echo said; echo wrong >&2; exit 3"); err == nil || got != "said\n" || !strings.Contains(err.Error(), "wrong") {
		t.Errorf("a command that fails: got %q, %v", got, err)
	}

	before, err := c.PodNetns(ctx, ns, "x")
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(before["process"], "|"); got != "/pause|/echo" && got != "/echo|/pause" {
		t.Errorf("processes: got %s, want /echo and /pause", got)
	}
	pid, err := c.PodProcess(ctx, ns, "x")
	if err != nil {
		t.Fatal(err)
	}
	nft := func(args ...string) {
		if out, err := exec.Command("nsenter", append([]string{"--net=/proc/" + strconv.Itoa(pid) + "/ns/net", "nft"}, args...)...).CombinedOutput(); err != nil {
			t.Fatalf("nft: %v: %s", err, out)
		}
	}
	nft("add", "table", "inet", "left")
	short, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	if err := c.Unchanged(short, ns, "x", before); err == nil || !strings.Contains(err.Error(), "nft: + table inet left {") {
		t.Errorf("a table left: got %v", err)
	}
	nft("delete", "table", "inet", "left")
	if err := c.Unchanged(ctx, ns, "x", before); err != nil {
		t.Error(err)
	}

	config := c.KubeconfigFor(t, 1000, 1000)
	cmd := exec.Command("setpriv", "--reuid", "1000", "--regid", "1000", "--clear-groups", "cat", config)
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "client-key-data") {
		t.Errorf("kubeconfig for uid 1000: %v: %s", err, out)
	}
	t.Setenv("KUBECONFIG", c.Kubeconfig())
	if same, err := Start(ctx, 2, os.Stderr); err != nil || same.Kubeconfig() != c.Kubeconfig() || same.started {
		t.Errorf("Start with its KUBECONFIG: got %+v, %v", same, err)
	}
	t.Setenv("KUBECONFIG", "/nowhere/config")
	if same, err := Start(ctx, 2, t.Output()); err != nil || same.Kubeconfig() != c.Kubeconfig() {
		t.Errorf("Start with a foreign KUBECONFIG: got %+v, %v", same, err)
	}
}

func TestWaitReadyTellsWhy(t *testing.T) {
	c := start(t)
	ns := c.Namespace(t)
	if err := c.Apply(t.Context(), ns, strings.ReplaceAll(pod, "echo:1", "mirrord.invalid/nothing:1")); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	if err := c.WaitReady(ctx, ns, "pod/x"); err == nil || !strings.Contains(err.Error(), "mirrord.invalid/nothing") {
		t.Errorf("got %v, want the image that could not be pulled", err)
	}
}
