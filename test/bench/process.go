package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"sync"
	"time"
)

const (
	// taskTime bounds one task of a worker.
	taskTime = 3 * time.Minute
	// endTime is what a process may take to end when it was told to.
	endTime = 20 * time.Second
	// keptErrors is how many bytes of a process's last words are kept.
	keptErrors = 4 << 10
)

// A process is a program that runs beside the bench: it is spoken to on stdin
// and read line by line. close ends it.
type process struct {
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	lines  chan string // of stdout; closed at its end
	stderr *lastWords
	ended  chan struct{} // closed when it has ended
	wg     sync.WaitGroup
}

func start(cmd *exec.Cmd) (*process, error) {
	p := &process{cmd: cmd, stderr: &lastWords{}, lines: make(chan string, 1), ended: make(chan struct{})}
	cmd.Stderr = p.stderr
	cmd.WaitDelay = time.Second
	var err error
	if p.stdin, err = cmd.StdinPipe(); err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p.wg.Go(func() {
		defer close(p.ended)
		in := bufio.NewScanner(stdout)
		for in.Scan() {
			p.lines <- in.Text()
		}
		close(p.lines)
		_ = cmd.Wait() // how it ended is told by who misses it
	})
	return p, nil
}

// line waits for the next line of stdout.
func (p *process) line(ctx context.Context, limit time.Duration) (string, error) {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case text, ok := <-p.lines:
		if !ok {
			return "", fmt.Errorf("%s has ended: %s", p.cmd, p.stderr)
		}
		return text, nil
	case <-timer.C:
		return "", fmt.Errorf("%s has said nothing for %v: %s", p.cmd, limit, p.stderr)
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
}

// ignore throws away what else it says.
func (p *process) ignore() {
	p.wg.Go(func() {
		for range p.lines {
		}
	})
}

// close tells the process to end, by the end of its stdin, and makes it if it
// does not. Programs that do not read stdin are ended with kill before.
func (p *process) close() error {
	p.stdin.Close()
	p.ignore()
	timer := time.AfterFunc(endTime, func() { _ = p.cmd.Process.Kill() })
	p.wg.Wait()
	if !timer.Stop() {
		return fmt.Errorf("%s did not end and was killed: %s", p.cmd, p.stderr)
	}
	return nil
}

// kill ends a process that does not read stdin.
func (p *process) kill() error {
	_ = p.cmd.Process.Kill() // it may have ended
	return p.close()
}

// A worker is "load worker" somewhere.
type worker struct{ *process }

// values are the figures of a task.
type values map[string]float64

// hire starts a worker and waits until it answers.
func hire(ctx context.Context, cmd *exec.Cmd) (*worker, error) {
	p, err := start(cmd)
	if err != nil {
		return nil, err
	}
	w := &worker{p}
	if _, err := w.do(ctx, "hello"); err != nil {
		return nil, errors.Join(err, p.kill())
	}
	return w, nil
}

// do has the worker do a task and gives its figures. It is not to be called
// concurrently.
func (w *worker) do(ctx context.Context, task ...string) (values, error) {
	b, err := json.Marshal(task)
	if err != nil {
		return nil, err
	}
	if _, err := w.stdin.Write(append(b, '\n')); err != nil {
		return nil, fmt.Errorf("%s: %w: %s", w.cmd, err, w.stderr)
	}
	text, err := w.line(ctx, taskTime)
	if err != nil {
		return nil, err
	}
	var a struct {
		Values values
		Error  string
	}
	if err := json.Unmarshal([]byte(text), &a); err != nil {
		return nil, fmt.Errorf("the worker's answer %q: %w", text, err)
	}
	if a.Error != "" {
		return nil, fmt.Errorf("%s: %s", strings.Join(task, " "), a.Error)
	}
	return a.Values, nil
}

// lastWords keeps the end of what was written.
type lastWords struct {
	mu  sync.Mutex
	buf []byte
}

func (l *lastWords) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.buf = append(l.buf, p...)
	l.buf = l.buf[max(0, len(l.buf)-keptErrors):]
	return len(p), nil
}

func (l *lastWords) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return string(bytes.TrimSpace(l.buf))
}
