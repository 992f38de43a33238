package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"time"
)

// session is a session of mirrord whose command is a worker.
type session struct {
	*worker
	supervisor int // process ids
	agent      int
}

// session starts one with the pod as target, over a link; it ends with the
// area. flags are for mirrord exec.
func (w *world) session(ctx context.Context, l link, pod string, flags ...string) (*session, error) {
	// The nodes' processes are this machine's. An agent of a session before may
	// still be on its way out.
	agents := func() []int {
		return processes(func(_ int, args []string) bool {
			return args[0] == "/mirrord-agent" && slices.Contains(args, w.containers[pod])
		})
	}
	before := agents()
	argv := slices.Concat([]string{w.mirrord, "exec", "-n", w.namespace, "-t", "pod/" + pod, "--kubeconfig", l.kubeconfig}, flags,
		[]string{"--", w.at("bin/load"), "worker"})
	hired, err := hire(ctx, w.asUser(argv...))
	if err != nil {
		return nil, fmt.Errorf("a session with pod %s: %w", pod, err)
	}
	w.later(hired.close)
	front := fmt.Sprint(hired.cmd.Process.Pid)
	supervisors := processes(func(_ int, args []string) bool { return slices.Equal(args, []string{"mirrord-supervisor", front}) })
	now := slices.DeleteFunc(agents(), func(pid int) bool { return slices.Contains(before, pid) })
	if len(supervisors) != 1 || len(now) != 1 {
		return nil, fmt.Errorf("a session with pod %s has the supervisors %v and the agents %v, not one of each", pod, supervisors, now)
	}
	return &session{worker: hired, supervisor: supervisors[0], agent: now[0]}, nil
}

// native starts a worker of the user's without mirrord; it ends with the area.
func (w *world) native(ctx context.Context) (*worker, error) {
	hired, err := hire(ctx, w.asUser(w.at("bin/load"), "worker"))
	if err != nil {
		return nil, err
	}
	w.later(hired.close)
	return hired, nil
}

// inPod starts a worker in a pod; it ends with the area.
func (w *world) inPod(ctx context.Context, pod string) (*worker, error) {
	hired, err := hire(ctx, w.kubectlCommand("exec", "-i", pod, "--", "/load/load", "worker"))
	if err != nil {
		return nil, fmt.Errorf("a worker in pod %s: %w", pod, err)
	}
	w.later(hired.close)
	return hired, nil
}

// A forward is a running "kubectl port-forward".
type forward struct {
	*process
	addr string // on this machine
}

// forward forwards a local port to a pod's; it ends with the area. It is what
// one uses without mirrord, and client-go's own code: the raw transport.
func (w *world) forward(ctx context.Context, l link, pod string, port int) (*forward, error) {
	p, err := start(w.kubectlCommand("port-forward", "--kubeconfig="+l.kubeconfig, "--address=127.0.0.1", "pod/"+pod, fmt.Sprintf(":%d", port)))
	if err != nil {
		return nil, err
	}
	w.later(p.kill)
	text, err := p.line(ctx, 20*time.Second)
	if err != nil {
		return nil, err
	}
	_, rest, ok := strings.Cut(text, "Forwarding from ")
	addr, _, arrow := strings.Cut(rest, " -> ")
	if !ok || !arrow {
		return nil, fmt.Errorf("kubectl port-forward says %q", text)
	}
	p.ignore() // it says a line for each connection
	return &forward{p, addr}, nil
}

// stopLimit bounds how long a supervisor is kept stopped: what waits for it
// goes on then, and the row shows that time.
const stopLimit = 3 * time.Second

// stopped calls f while the supervisor stands still.
func (s *session) stopped(f func() (float64, error)) (v float64, err error) {
	if err := syscall.Kill(s.supervisor, syscall.SIGSTOP); err != nil {
		return 0, fmt.Errorf("stop the supervisor: %w", err)
	}
	goOn := func() error { return syscall.Kill(s.supervisor, syscall.SIGCONT) }
	timer := time.AfterFunc(stopLimit, func() { _ = goOn() })
	defer timer.Stop()
	defer func() { err = errors.Join(err, goOn()) }()
	return f()
}
