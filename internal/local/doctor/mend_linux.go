package doctor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"

	"github.com/mirrord-go/mirrord/internal/failure"
	"github.com/mirrord-go/mirrord/internal/local/host"
	"github.com/mirrord-go/mirrord/internal/local/sandbox"
)

// Mend mends what this machine lacks, as far as commands of root's can: root
// runs them, each after it was written to out; others get them to run
// themselves, and a failure.Error. Where all is there nothing happens. Whether
// it has helped, Run tells.
func Mend(ctx context.Context, out io.Writer) error {
	return mend(ctx, out, host.Look(), sandbox.Probe, execute)
}

func mend(ctx context.Context, out io.Writer, f host.Facts, probe prober, run func(context.Context, io.Writer, host.Command) error) error {
	found, err := probe(ctx)
	if err != nil {
		return err
	}
	commands := plan(f, found)
	if len(commands) == 0 {
		return nil
	}
	if f.UID != 0 {
		var lines []string
		for _, c := range commands {
			lines = append(lines, c.Sudo())
		}
		return failure.New("needs-root", "only root can mend what this machine lacks", strings.Join(lines, "\n"), "you are no root; these commands do it, sudo asks for your password")
	}
	var failed []error
	for _, c := range commands {
		fmt.Fprintln(out, "+", c)
		if err := run(ctx, out, c); err != nil {
			failed = append(failed, fmt.Errorf("%s: %w", c, err))
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	if err := errors.Join(failed...); err != nil {
		return failure.Wrap(err, "not-mended", "not all of what this machine lacks could be mended", "see what the commands said above; what is missing is in docs/hosts.md")
	}
	return nil
}

// plan chooses the commands: for what is missing and, since root has rights
// that hide it, for what others would miss. In a container they would change
// another machine, or nothing.
func plan(f host.Facts, found []sandbox.Ability) []host.Command {
	if f.Container != "" {
		return nil
	}
	var cures []host.Cure
	for _, a := range found {
		cures = append(cures, a.Cure)
	}
	if f.UID == 0 {
		cures = append(cures, f.ForUsers()...)
	}
	return host.Commands(cures...)
}

// execute runs a command with what it says going to out.
func execute(ctx context.Context, out io.Writer, c host.Command) error {
	cmd := exec.CommandContext(ctx, program(c.Argv[0]), c.Argv[1:]...)
	cmd.Stdin = strings.NewReader(c.Input)
	cmd.Stderr = out
	return cmd.Run()
}

// program finds a command of root's also where PATH is that of a user.
func program(name string) string {
	if path, err := exec.LookPath(name); err == nil {
		return path
	}
	for _, dir := range []string{"/usr/sbin/", "/sbin/"} {
		if _, err := os.Stat(dir + name); err == nil {
			return dir + name
		}
	}
	return name
}
