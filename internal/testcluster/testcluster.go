// Package testcluster is how end-to-end tests meet the cluster that
// test/cluster/cluster makes on this machine: it finds or starts one, runs
// kubectl in it, gives each test a namespace, runs commands inside nodes, and
// takes snapshots of everything that a session could leave behind in a pod's
// network namespace.
//
// Only tests use it. It needs root, and the repository around the working
// directory: the cluster's own scripts and kubectl do the work, there is no
// Kubernetes client in here. Starting a cluster for the first time builds
// Kubernetes, which takes minutes.
//
// Errors carry the command and what it printed on standard error. All methods
// may be called concurrently.
//
// Hazards: a Snapshot reads /proc of the machine, so it works only where the
// nodes run as processes of this machine (they do). Objects outside of
// namespaces are the caller's to delete; all tests share the cluster.
package testcluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// quitTimeout is what the clean-up after a test may take: it must not use the
// test's context, which may have ended.
const quitTimeout = 30 * time.Second

// waitDelay is how long a command that was told to end may keep its output
// open, through a grandchild for instance.
const waitDelay = 2 * time.Second

// A Cluster is a running cluster. Make one with Start.
type Cluster struct {
	script  string   // test/cluster/cluster
	state   string   // directory of the running cluster
	env     []string // names the cluster to the script
	started bool     // by Start: Close stops it
}

// Start finds the cluster whose kubeconfig KUBECONFIG names, if that variable
// names one that the script made on this machine; another kubeconfig is left
// alone, since tests have no business in somebody's cluster. Otherwise it runs
// "cluster up" for as many nodes, which is done in a second when they run
// already. Progress goes to log. Load the images you need after it.
func Start(ctx context.Context, nodes int, log io.Writer) (*Cluster, error) {
	root, err := repository()
	if err != nil {
		return nil, err
	}
	c := &Cluster{script: filepath.Join(root, "test/cluster/cluster")}
	if state := filepath.Dir(os.Getenv("KUBECONFIG")); os.Getenv("KUBECONFIG") != "" {
		id, err := os.ReadFile(filepath.Join(state, "id"))
		if err == nil {
			c.state, c.env = state, []string{"CLUSTER_STATE=" + state, "CLUSTER_ID=" + strings.TrimSpace(string(id))}
			return c, c.answers(ctx)
		}
		fmt.Fprintf(log, "testcluster: KUBECONFIG=%s is no cluster of these tests, they use their own\n", os.Getenv("KUBECONFIG"))
	}
	path, err := c.cluster(ctx, nil, "kubeconfig")
	if err != nil {
		return nil, err
	}
	c.state = filepath.Dir(strings.TrimSpace(path))
	c.started = c.answers(ctx) != nil
	if _, err := c.cluster(ctx, log, "up", fmt.Sprint(nodes)); err != nil {
		return nil, err
	}
	return c, nil
}

// Close stops the cluster if Start started it, and leaves it running if it ran
// before.
func (c *Cluster) Close(ctx context.Context) error {
	if !c.started {
		return nil
	}
	_, err := c.cluster(ctx, nil, "down")
	return err
}

// repository is the root of the checkout that the working directory is in.
func repository() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; dir != "/"; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "test/cluster/cluster")); err == nil {
			return dir, nil
		}
	}
	return "", errors.New("no test/cluster/cluster above the working directory")
}

// answers says why the cluster cannot be used.
func (c *Cluster) answers(ctx context.Context) error {
	_, err := c.Kubectl(ctx, "get", "--raw", "/readyz")
	return err
}

// Kubeconfig is the path of the administrator's kubeconfig. It belongs to root
// and has mode 0600.
func (c *Cluster) Kubeconfig() string { return filepath.Join(c.state, "kubeconfig") }

// KubeconfigFor gives a copy of it, in a directory of its own, to another user
// of this machine, until the test ends.
func (c *Cluster) KubeconfigFor(t testing.TB, uid, gid int) string {
	t.Helper()
	content, err := os.ReadFile(c.Kubeconfig())
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "mirrord-kubeconfig-") // t.TempDir lies in a directory that only root may enter
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "config")
	if err := errors.Join(os.WriteFile(path, content, 0o600), os.Chown(path, uid, gid), os.Chown(dir, uid, gid)); err != nil {
		t.Fatal(err)
	}
	return path
}

// Load gives an image tar (OCI layout or docker-archive) to all nodes. What
// they have already is not given again; a newer image of the same name takes
// the older's place for pods to come.
func (c *Cluster) Load(ctx context.Context, tar string) error {
	path, err := filepath.Abs(tar)
	if err != nil {
		return err
	}
	_, err = c.cluster(ctx, nil, "load", path)
	return err
}

// LoadDebian loads the image debian:1, which holds nginx, redis, PostgreSQL,
// Python, curl, dig, nc and the tools to look at a network. Made the first
// time, it takes a minute or two, with progress going to log.
func (c *Cluster) LoadDebian(ctx context.Context, log io.Writer) error {
	_, err := c.cluster(ctx, log, "load", "debian")
	return err
}

// NodeExec runs a command inside a node ("node-1"), in all its namespaces: its
// processes, network and files. It returns what the command printed on
// standard output, also when it failed.
func (c *Cluster) NodeExec(ctx context.Context, node string, args ...string) (stdout string, err error) {
	number, ok := strings.CutPrefix(node, "node-")
	if !ok {
		return "", fmt.Errorf("nodes are called node-1, node-2 …, not %q", node)
	}
	return c.cluster(ctx, nil, append([]string{"sh", number}, args...)...)
}

// cluster runs the script. Its standard error goes to log as well, if there is one.
func (c *Cluster) cluster(ctx context.Context, log io.Writer, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, c.script, args...)
	cmd.Env = append(os.Environ(), c.env...)
	return run(cmd, log)
}

// run returns the command's standard output. The error wraps the
// *exec.ExitError and tells what was on standard error.
func run(cmd *exec.Cmd, log io.Writer) (string, error) {
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if log != nil {
		cmd.Stderr = io.MultiWriter(&stderr, log)
	}
	cmd.WaitDelay = waitDelay
	err := cmd.Run()
	if err != nil {
		err = fmt.Errorf("%s %s: %w: %s", filepath.Base(cmd.Path), strings.Join(cmd.Args[1:], " "), err, strings.TrimSpace(stderr.String()))
	}
	return stdout.String(), err
}
