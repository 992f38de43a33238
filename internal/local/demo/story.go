package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/mirrord-go/mirrord/internal/failure"
	"github.com/mirrord-go/mirrord/internal/shell"
)

const (
	// stepTimeout bounds one command of the story; each takes some 200 ms, on an
	// emulated machine that is very busy half a minute.
	stepTimeout = 90 * time.Second
	// backTimeout is how long the pod may take to be as before when a session
	// has ended: twice what a session promises.
	backTimeout = 20 * time.Second
	// exitInterrupted is what a shell gives for Ctrl-C.
	exitInterrupted = 130
)

// Options are those of `mirrord demo`.
type Options struct {
	Keep   bool // leave the pod running after the story, until ctx ends
	Colour bool // out is a terminal that shows colours
}

// Run is `mirrord demo`: it makes a pod and runs real sessions against it, step
// by step, writing to out what each shows, the command that did it, what came
// out and whether that was right. self is the path of the mirrord command. The
// error is a failure.Error if a step failed or ctx ended before the last.
func Run(ctx context.Context, out io.Writer, self string, o Options) error {
	s := &story{page: page{out, o.Colour}, self: self, shown: shown(self)}
	pod, err := Start(ctx)
	if err != nil {
		return interrupted(ctx, err)
	}
	defer pod.Close()
	s.pod, s.target = pod, fmt.Sprintf("process/%d", pod.PID())
	if s.before, err = pod.Inventory(ctx); err != nil {
		return interrupted(ctx, refused(err))
	}
	s.write("A small pod runs on this machine, made of namespaces: no cluster, no root.\n")
	s.write("It is %s, addresses %s, main process %d.\n", Hostname, list(pod), pod.PID())
	for i, step := range s.steps() {
		s.heading(i+1, step.title)
		ok, evidence := step.do(ctx)
		if err := interrupted(ctx, nil); err != nil {
			return err
		}
		s.verdict(ok, evidence)
		if !ok {
			s.failed++
		}
	}
	total := len(s.steps())
	s.write("\n%d of %d steps are as they should be.\n", total-s.failed, total)
	if o.Keep {
		if err := s.keep(ctx); err != nil {
			return err
		}
	}
	if s.failed > 0 {
		return failure.New("demo-failed", "the demo shows a fault", "see the steps above; and docs/errors.md, demo-failed", "%d of %d steps failed", s.failed, total)
	}
	return nil
}

// interrupted is err, or that the user has called the demo off.
func interrupted(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return &failure.Error{Code: "demo-interrupted", What: "the demo was interrupted", Exit: exitInterrupted, Cause: ctx.Err()}
	}
	return err
}

type story struct {
	page
	self   string // the mirrord command
	shown  string // as a person would type it
	pod    *Pod
	target string   // of the sessions
	before []string // the pod's inventory without any session
	failed int      // steps
}

// A step does something real and says what it proves.
type step struct {
	title string
	do    func(context.Context) (ok bool, evidence string)
}

// shown is how self is typed here: by name if it is found so, else by its path.
func shown(self string) string {
	name := filepath.Base(self)
	if found, err := exec.LookPath(name); err == nil {
		if a, err := os.Stat(found); err == nil {
			if b, err := os.Stat(self); err == nil && os.SameFile(a, b) {
				return name
			}
		}
	}
	if dir, err := os.Getwd(); err == nil && dir != "/" {
		if rel, err := filepath.Rel(dir, self); err == nil && filepath.IsLocal(rel) {
			if !strings.Contains(rel, "/") {
				rel = "./" + rel
			}
			return rel
		}
	}
	return self
}

func list(p *Pod) string {
	var all []string
	for _, a := range p.Addresses() {
		all = append(all, a.String())
	}
	return strings.Join(all, " and ")
}

// session is the arguments of an exec against the pod.
func (s *story) session(flags []string, argv ...string) []string {
	return append(append([]string{"exec", "-t", s.target}, flags...), argv...)
}

// show writes a command line as it is typed.
func (s *story) show(args []string) {
	typed := append([]string{s.shown}, args...)
	for i, a := range typed {
		if a == s.self {
			typed[i] = s.shown
		}
	}
	s.command(shell.Line(typed...))
}

// program starts mirrord. The caller waits for it.
func (s *story) program(ctx context.Context, args []string, out, said io.Writer) *exec.Cmd {
	cmd := exec.CommandContext(ctx, s.self, args...)
	cmd.Env = unconfigured(os.Environ())
	cmd.Stdout, cmd.Stderr = out, said
	// It has a session to end in order; kill -9 is for when it does not.
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = backTimeout
	return cmd
}

// unconfigured is an environment without mirrord's own settings: the demo is
// the same for everybody.
func unconfigured(env []string) []string {
	return slices.DeleteFunc(env, func(v string) bool {
		return strings.HasPrefix(v, "MIRRORD_") && !strings.HasPrefix(v, "MIRRORD_SUPERVISOR_LOG=")
	})
}

// runs is a step that runs a program in the pod's context and compares what
// it prints with a pattern.
func (s *story) runs(title, pattern, proves string, argv ...string) step {
	return step{title, func(ctx context.Context) (bool, string) {
		ctx, cancel := context.WithTimeout(ctx, stepTimeout)
		defer cancel()
		args := s.session(nil, argv...)
		s.show(args)
		var out, said tail
		err := s.program(ctx, args, &out, &said).Run()
		s.output(out.String())
		switch {
		case err != nil:
			s.output(said.String())
			return false, describe(ctx, err)
		case !regexp.MustCompile(pattern).MatchString(out.String()):
			s.output(said.String())
			return false, "expected: " + pattern
		}
		return true, proves
	}}
}

// describe says how a command failed.
func describe(ctx context.Context, err error) string {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return fmt.Sprintf("it did not end within %v", stepTimeout)
	}
	return "it failed: " + err.Error()
}

// keep leaves the pod to the user.
func (s *story) keep(ctx context.Context) error {
	neighbour := fmt.Sprintf("process/%d", s.pod.NeighbourPID())
	url := fmt.Sprintf("http://%s/hello", podHost.v4())
	s.write("\nThe pod stays until Ctrl-C. To try, in another terminal:\n")
	for _, args := range [][]string{
		s.session(nil, "bash"),
		s.session(nil, s.ask("http://catalog/items")...),
		s.session([]string{"--steal"}, s.self, "demo", "serve", "80"),
	} {
		s.show(args)
	}
	s.write("and meanwhile, as a client of the pod:\n")
	s.show(append([]string{"exec", "-t", neighbour}, s.ask(url)...))
	select {
	case <-ctx.Done():
		return nil
	case <-s.pod.Done():
		return failure.New("demo-pod", "the demo pod has ended", "start it again: mirrord demo --keep", "somebody ended its process %d", s.pod.PID())
	}
}
