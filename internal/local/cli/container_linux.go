package cli

import (
	"context"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/mirrord-go/mirrord/internal/config"
	"github.com/mirrord-go/mirrord/internal/local/container"
	"github.com/mirrord-go/mirrord/internal/local/engine"
	"github.com/mirrord-go/mirrord/internal/local/front"
	"github.com/mirrord-go/mirrord/internal/rules"
)

func (a *app) containerCommand() *cobra.Command {
	var f execFlags
	c := &cobra.Command{
		Use:   "container [flags] [--] podman run [OPTIONS] IMAGE [ARGS...]",
		Short: "Run a local container in the context of a pod",
		Long: `container runs a container of this machine in the context of a target, as exec runs
a program: it has the target's variables, network, names, hostname and volumes, and
traffic that reaches the pod is copied or handed to what it listens on. The rest of
its files are its image's. Any image will do.

Flags of mirrord end at the engine. The engine is podman. Its options hold as ever:
variables (-e, --env-file), mounts (-v) and hostname of yours win; -p says on which
port of this machine a port is published. The exit code is the container's.`,
		Example: `  mirrord container -t pod/shop-7d4b9 -- podman run --rm -it shop:dev
  mirrord container -t deployment/shop --steal -- podman run --rm -v $PWD:/app -p 8080:80 shop:dev`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return fmt.Errorf("container needs an engine's command to run, for example: mirrord container -t pod/NAME podman run --rm IMAGE")
			}
			return nil
		},
		RunE: func(_ *cobra.Command, args []string) (err error) {
			a.code, err = a.container(&f, args)
			return err
		},
	}
	fl := c.Flags()
	fl.SetInterspersed(false) // flags end at the first positional
	f.settings = sessionFlags(fl)
	f.lookFlags(fl)
	f.loudness(fl)
	return c
}

// container is the front of a session whose command runs a container.
func (a *app) container(f *execFlags, argv []string) (int, error) {
	if err := a.recognize(argv[0]); err != nil {
		return 0, err
	}
	r, err := container.Parse(argv)
	if err != nil {
		return 0, err
	}
	var adding error
	o, done, err := a.frontOptions(f, true, func(cfg *config.Config) {
		if adding = r.Add(cfg.Container); adding != nil {
			return
		}
		ports, _ := r.Published() // Parse and Add have looked at them
		for _, p := range ports {
			cfg.Incoming.ListenPorts = append(cfg.Incoming.ListenPorts, rules.PortPair{From: p[0], To: p[1]})
		}
	})
	if err != nil {
		return 0, err
	}
	if err = adding; err == nil {
		err = a.engine(f, r)
	}
	if err != nil {
		done(err)
		return 0, err
	}
	o.Argv, o.Container = argv, r
	code, err := front.Run(o)
	done(err)
	return code, err
}

// recognize refuses an engine that is not for sessions.
func (a *app) recognize(program string) error {
	ctx, stop := interruptible()
	defer stop()
	return a.interrupted(ctx, engine.Recognize(ctx, program))
}

// engine asks the engine what is to be known, and has it fetch the image, while
// nothing is started yet.
func (a *app) engine(f *execFlags, r *container.Run) error {
	ctx, stop := interruptible()
	defer stop()
	if err := engine.Look(ctx, r); err != nil {
		return a.interrupted(ctx, err)
	}
	return a.interrupted(ctx, engine.Fetch(ctx, r, os.Stderr))
}

// interrupted is err, or the end by a signal that has come meanwhile.
func (a *app) interrupted(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		a.code = 130
		return context.Canceled
	}
	return err
}
