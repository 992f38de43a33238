package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/mirrord-go/mirrord/internal/testcluster"
)

// user is whom mirrord and all local references run as: no privileges.
const user = 1000

const (
	// setUpTime bounds the making of the cluster, which is built once on a machine,
	// and of the pods.
	setUpTime = 20 * time.Minute
	// tearDownTime bounds the removal of the namespace.
	tearDownTime = 90 * time.Second
)

// Pods of the bench. All run the same program on the same node.
const (
	podTarget   = "target"   // of the sessions; has the files
	podServer   = "server"   // what programs connect to
	podClient   = "client"   // makes requests
	podPlain    = "plain"    // is left alone
	podMirrored = "mirrored" // has a mirror session
	podStolen   = "stolen"   // has a stealing session
	podFiltered = "filtered" // has a stealing session whose filter matches nothing
	podProxied  = "proxied"  // has nginx in front of its server
)

// world is what all rows share.
type world struct {
	cluster    *testcluster.Cluster
	namespace  string
	node       string
	dir        string // the user's: home, work, bin, kubeconfig
	mirrord    string
	image      string // of the agent
	pairs      int
	addresses  map[string]string // of the pods
	containers map[string]string // their ids

	ends []func() error // of what the current area started
}

// setUp makes the world. What it made is removed again if it fails.
func setUp(ctx context.Context, pairs int) (_ *world, err error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("the bench makes a cluster and needs root; mirrord itself runs as uid 1000 in it")
	}
	w := &world{pairs: pairs, namespace: fmt.Sprintf("bench-%d", time.Now().Unix())}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.tearDown())
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, setUpTime)
	defer cancel()
	if err := w.makeHome(ctx); err != nil {
		return nil, err
	}
	if w.cluster, err = testcluster.Start(ctx, 2, os.Stderr); err != nil {
		return nil, err
	}
	if err := w.loadImages(ctx); err != nil {
		return nil, err
	}
	if err := w.makePods(ctx); err != nil {
		return nil, err
	}
	config, err := os.ReadFile(w.cluster.Kubeconfig())
	if err != nil {
		return nil, err
	}
	own := filepath.Join(w.dir, "kubeconfig")
	return w, errors.Join(os.WriteFile(own, config, 0o600), os.Chown(own, user, user))
}

// makeHome makes the user's directory, with the programs.
func (w *world) makeHome(ctx context.Context) (err error) {
	if w.dir, err = os.MkdirTemp("", "mirrord-bench-"); err != nil {
		return err
	}
	if err := os.Chmod(w.dir, 0o755); err != nil {
		return err
	}
	for _, d := range []string{"bin", "home", "work"} {
		if err := errors.Join(os.Mkdir(w.at(d), 0o755), os.Chown(w.at(d), user, user)); err != nil {
			return err
		}
	}
	w.mirrord = w.at("bin/mirrord")
	if err := command(ctx, "cp", "bin/mirrord", w.mirrord); err != nil {
		return err
	}
	// Static, as the sandbox and the pods have different C libraries.
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-o", w.at("bin/load"), "./test/bench/load")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	return finish(build)
}

func (w *world) at(path string) string { return filepath.Join(w.dir, path) }

// loadImages gives the nodes the agent of this build, as a user would.
func (w *world) loadImages(ctx context.Context) error {
	name, err := exec.CommandContext(ctx, w.mirrord, "agent", "image").Output()
	if err != nil {
		return fmt.Errorf("mirrord agent image: %w", err)
	}
	w.image = strings.TrimSpace(string(name))
	tar := w.at("agent.tar")
	if err := command(ctx, w.mirrord, "agent", "image", "--output", tar); err != nil {
		return err
	}
	if err := w.cluster.Load(ctx, tar); err != nil {
		return err
	}
	return w.cluster.LoadDebian(ctx, os.Stderr)
}

// podTemplate waits for the program, which no image has, and serves bytes and
// HTTP with it.
const podTemplate = `
apiVersion: v1
kind: Pod
metadata: {name: %s, labels: {bench: pod}}
spec:
  nodeName: %s
  terminationGracePeriodSeconds: 0
  automountServiceAccountToken: false
  volumes: [{name: load, emptyDir: {}}, {name: data, emptyDir: {}}]
  containers:
  - name: main
    image: debian:1
    command: [bash, -c, "until [ -e /load/ready ]; do sleep 0.1; done; exec /load/load serve"]
    volumeMounts: [{name: load, mountPath: /load}, {name: data, mountPath: /data}]
---
`

// makePods makes the namespace and the pods, and waits until they serve.
func (w *world) makePods(ctx context.Context) error {
	if _, err := w.cluster.Kubectl(ctx, "create", "namespace", w.namespace); err != nil {
		return err
	}
	nodes, err := w.cluster.Kubectl(ctx, "get", "nodes", "-o", "jsonpath={.items[*].metadata.name}")
	if err != nil {
		return err
	}
	names := strings.Fields(nodes)
	w.node = names[len(names)-1] // not the one with the API server, if there is another
	all := []string{podTarget, podServer, podClient, podPlain, podMirrored, podStolen, podFiltered, podProxied}
	var yaml strings.Builder
	for _, name := range all {
		fmt.Fprintf(&yaml, podTemplate, name, w.node)
	}
	if _, err := w.cluster.Kubectl(ctx, "wait", "-n", w.namespace, "--for=create", "serviceaccount/default", "--timeout=30s"); err != nil {
		return err
	}
	if err := w.cluster.Apply(ctx, w.namespace, yaml.String()); err != nil {
		return err
	}
	w.addresses, w.containers = map[string]string{}, map[string]string{}
	for _, name := range all {
		if err := w.cluster.WaitReady(ctx, w.namespace, "pod/"+name); err != nil {
			return err
		}
		if err := w.give(name, w.at("bin/load")); err != nil {
			return err
		}
		if _, err := w.kubectl(ctx, "exec", name, "--", "touch", "/load/ready"); err != nil {
			return err
		}
		out, err := w.kubectl(ctx, "get", "pod", name, "-o", "jsonpath={.status.podIP} {.status.containerStatuses[0].containerID}")
		if err != nil {
			return err
		}
		ip, id, _ := strings.Cut(out, " ")
		w.addresses[name], w.containers[name] = ip, strings.TrimPrefix(id, "containerd://")
	}
	return nil
}

// give copies a program of this machine to /load in a pod.
func (w *world) give(pod, path string) error {
	program, err := os.Open(path)
	if err != nil {
		return err
	}
	defer program.Close()
	to := "/load/" + filepath.Base(path)
	cmd := w.kubectlCommand("exec", "-i", pod, "--", "bash", "-c", `cat >"$0" && chmod +x "$0"`, to)
	cmd.Stdin = program
	return finish(cmd)
}

// kubectl runs kubectl in the bench's namespace and gives its output.
func (w *world) kubectl(ctx context.Context, args ...string) (string, error) {
	return w.cluster.Kubectl(ctx, append([]string{"-n", w.namespace}, args...)...)
}

// kubectlCommand is a kubectl that the caller runs.
func (w *world) kubectlCommand(args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(filepath.Dir(w.cluster.Kubeconfig()), "kubectl"), append([]string{"-n", w.namespace}, args...)...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+w.cluster.Kubeconfig())
	return cmd
}

// asUser is a command that the user runs in the working directory.
func (w *world) asUser(argv ...string) *exec.Cmd {
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Dir = w.at("work")
	cmd.Env = []string{
		"HOME=" + w.at("home"), "KUBECONFIG=" + w.at("kubeconfig"), "USER=dev", "SHELL=/bin/bash", "LANG=C.UTF-8",
		"PATH=" + w.at("bin") + ":/usr/local/bin:/usr/bin:/bin",
		"GIT_CONFIG_NOSYSTEM=1", // /etc is a mixed directory, and has rows of its own kind
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: user, Gid: user}}
	return cmd
}

// later has f called at the end of the area, the last one first.
func (w *world) later(f func() error) { w.ends = append(w.ends, f) }

// agents is the label of all pods of mirrord's.
const agents = "app.kubernetes.io/name=mirrord-agent"

// endArea ends what the area started, and waits until the agents are gone: the
// next area is not to feel them.
func (w *world) endArea() error {
	var errs []error
	for len(w.ends) > 0 {
		last := len(w.ends) - 1
		errs = append(errs, w.ends[last]())
		w.ends = w.ends[:last]
	}
	if w.cluster != nil {
		ctx, cancel := context.WithTimeout(context.Background(), tearDownTime)
		defer cancel()
		errs = append(errs, w.quiet(ctx, agents))
	}
	return errors.Join(errs...)
}

// quiet waits until no pod with the label is left.
func (w *world) quiet(ctx context.Context, label string) error {
	_, err := w.kubectl(ctx, "wait", "--for=delete", "pods", "-l", label, "--timeout=30s")
	return err
}

// tearDown removes everything and checks that nothing of mirrord is left. It
// works on a world that is not finished, too.
func (w *world) tearDown() error {
	errs := []error{w.endArea()}
	ctx, cancel := context.WithTimeout(context.Background(), tearDownTime)
	defer cancel()
	if w.cluster != nil {
		_, err := w.cluster.Kubectl(ctx, "delete", "namespace", w.namespace, "--ignore-not-found", "--timeout=80s")
		errs = append(errs, err, w.cluster.Close(ctx))
	}
	if w.dir != "" {
		if left := running(w.mirrord); len(left) > 0 {
			errs = append(errs, fmt.Errorf("processes of mirrord are left: %s", strings.Join(left, " ")))
		}
		errs = append(errs, os.RemoveAll(w.dir))
	}
	return errors.Join(errs...)
}

// command runs a program to its end.
func command(ctx context.Context, argv ...string) error {
	return finish(exec.CommandContext(ctx, argv[0], argv[1:]...))
}

// finish runs cmd to its end; its output is only for the error.
func finish(cmd *exec.Cmd) error {
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", cmd, err, strings.TrimSpace(string(out)))
	}
	return nil
}
