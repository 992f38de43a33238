// Command mirrord-agent serves the target's side of one session.
//
// It is started beside the target by mirrord and speaks to nobody without the
// session's key. Its first line on stdout is its announcement, or, where it must
// be another user for its target, who; logs go to stderr.
package main

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/mirrord-go/mirrord/internal/agent/confine"
	"github.com/mirrord-go/mirrord/internal/agent/gear"
	"github.com/mirrord-go/mirrord/internal/agent/server"
	"github.com/mirrord-go/mirrord/internal/agent/target"
	"github.com/mirrord-go/mirrord/internal/link/resume"
	"github.com/mirrord-go/mirrord/internal/link/seal"
	"github.com/mirrord-go/mirrord/internal/vitals"
)

// version is set by the linker.
var version = "0.1.0-dev"

// init keeps the main thread to main: a thread that has entered a namespace of
// the target ends with its goroutine, which the main thread cannot, and
// /proc/self shows the main thread's namespaces.
func init() { runtime.LockOSThread() }

// main only waits: what is bound to a thread costs two changes of threads each
// time that it is woken.
func main() {
	failed := make(chan bool)
	go func() { failed <- work() }()
	if <-failed {
		os.Exit(1)
	}
}

// work serves the session.
func work() (failed bool) {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	// No core dump on the node, with the agent's key and the target's variables: not
	// in a file, and by one byte instead of none not for the node's handler either
	// (do_coredump in the kernel's fs/coredump.c).
	_ = syscall.Setrlimit(syscall.RLIMIT_CORE, &syscall.Rlimit{Cur: 1, Max: 1})
	vitals.Tell(os.Stderr)
	var wg sync.WaitGroup
	wg.Go(func() { gear.Run(ctx) })
	err := run(ctx, log, os.Args[1:])
	stop()
	wg.Wait()
	if err != nil {
		log.Error("agent ends", "error", err)
	}
	return err != nil
}

func run(ctx context.Context, log *slog.Logger, args []string) error {
	fl := flag.NewFlagSet("mirrord-agent", flag.ContinueOnError)
	key := fl.String("key", "", "public key of the session that may connect")
	session := fl.String("session", "", "id of the session")
	container := fl.String("container", "", "target: the id of a container on this node")
	pid := fl.Int("pid", 0, "target: a process")
	self := fl.Bool("self", false, "target: this container itself")
	inPod := fl.Bool("in-pod", false, "this container is one of the target's pod and sees its processes: become the target's user")
	hostNetwork := fl.Bool("host-network", false, "with -in-pod: the pod uses its node's network")
	wanted := fl.String("features", allFeatures, "what the session wants; what only others need is given up")
	listen := fl.String("listen", "127.0.0.1:0", "address to listen on")
	listenFD := fl.Int("listen-fd", 0, "descriptor of a listening socket to use instead")
	window := fl.Duration("resume-window", resume.DefaultWindow, "how long a lost link may take to come back")
	lostReply := fl.Duration("lost-reply", 0, "how long stolen requests wait for a lost link before they are answered here; 0: as long as it may come back")
	args, ignored := known(fl, args)
	if len(ignored) > 0 {
		log.Warn("options of a newer mirrord are ignored", "options", ignored)
	}
	if err := fl.Parse(args); err != nil {
		return err
	}
	client, err := seal.ParsePublicKey(*key)
	if err != nil {
		return fmt.Errorf("-key: %w", err)
	}
	if err := confine.Undumpable(); err != nil {
		return err
	}
	if *inPod {
		var other *target.OtherUserError
		if err := become(*container, *pid); errors.As(err, &other) {
			return json.NewEncoder(os.Stdout).Encode(announcedUser{version, other})
		} else if err != nil {
			return err
		}
	}
	ln, err := listener(*listen, *listenFD)
	if err != nil {
		return err
	}
	return server.Run(ctx, server.Options{
		Version: version, ClientKey: ed25519.PublicKey(client), Session: *session, Listener: ln, Announce: os.Stdout, Ignored: ignored, Log: log,
		Window: *window, LostReply: *lostReply,
		Ready: func(t *target.Target) (server.Lacks, error) { return confined(t, strings.Split(*wanted, ","), *inPod) },
		Target: func() (t *target.Target, err error) {
			switch {
			case *container != "":
				t, err = target.OpenContainer(proc, *container)
			case *pid != 0:
				t, err = target.Open(*pid)
			case *self:
				t, err = target.Self()
			default:
				err = errors.New("no target: one of -container, -pid and -self is needed")
			}
			if err == nil && *inPod {
				t.SayHostNetwork(*hostNetwork)
			}
			if err == nil && slices.Contains(strings.Split(*wanted, ","), "unix") {
				if err := t.Personate(); err != nil { // the session says what is missing, if it wants that
					log.Warn("no unix sockets", "error", err)
				}
			}
			return t, err
		},
	})
}

// known leaves out the arguments of the form -name=value whose name fl does not
// have: by that form a newer mirrord says that an agent may do without. An
// option that an agent must not miss has its value in the next argument, and
// ends an older one (docs/protocol.md, part 4).
func known(fl *flag.FlagSet, args []string) (kept, ignored []string) {
	for _, arg := range args {
		name, _, optional := strings.Cut(arg, "=")
		name, dashed := strings.CutPrefix(name, "-")
		if optional && dashed && fl.Lookup(strings.TrimPrefix(name, "-")) == nil {
			ignored = append(ignored, strings.TrimPrefix(name, "-"))
			continue
		}
		kept = append(kept, arg)
	}
	return kept, ignored
}

const proc = "/proc"

// announcedUser is what an agent prints, and ends, that must be started anew
// as another user.
type announcedUser struct {
	Version string                 `json:"mirrord-agent"`
	As      *target.OtherUserError `json:"as"`
}

// become makes the agent the user of its target, which it shares a process list
// with.
func become(container string, pid int) (err error) {
	if container != "" {
		if pid, err = target.Find(proc, container); err != nil {
			return err
		}
	}
	return target.Become(pid)
}

func listener(address string, fd int) (net.Listener, error) {
	if fd == 0 {
		return net.Listen("tcp", address)
	}
	f := os.NewFile(uintptr(fd), "listener")
	defer f.Close()
	return net.FileListener(f)
}
