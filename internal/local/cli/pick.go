package cli

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/term"

	"github.com/mirrord-go/mirrord/internal/config"
	"github.com/mirrord-go/mirrord/internal/failure"
	"github.com/mirrord-go/mirrord/internal/local/pick"
)

// pickTarget is the target of a configuration that has the user asked.
const pickTarget = "pick"

// chooseTarget asks for the target where cfg wants that.
func (a *app) chooseTarget(ctx context.Context, cfg *config.Config) error {
	if cfg.Target != pickTarget {
		return nil
	}
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return failure.Wrap(err, "pick-no-terminal", "the target is to be chosen, but there is no terminal to ask on", "name it: -t deployment/NAME; mirrord ls lists what there is")
	}
	defer tty.Close()
	items, where, err := a.targetItems(ctx, *cfg)
	if err != nil {
		return err
	}
	if len(items) == 0 {
		return &failure.Error{Code: "pick-nothing", What: "there is nothing to choose from: " + where + " has nothing with a ready pod", Do: "choose another namespace: -n NAMESPACE; mirrord ls --all lists what is not ready"}
	}
	list := pick.New("Which target, of "+where+"?", items)
	chosen, err := ask(tty, list)
	if err != nil {
		return err
	}
	if !chosen {
		return &failure.Error{Code: "pick-cancelled", What: "no target was chosen", Why: "the choice was cancelled", Do: "run it again, or name one: -t deployment/NAME", Exit: exitInterrupted}
	}
	cfg.Target, _ = list.Selected()
	return nil
}

// exitInterrupted is what a shell gives for a command that Ctrl-C has ended.
const exitInterrupted = 130

// targetItems are the targets that a session can begin with now.
func (a *app) targetItems(ctx context.Context, cfg config.Config) (items []pick.Item, where string, err error) {
	cluster, err := a.cluster(cfg)
	if err != nil {
		return nil, "", err
	}
	defer cluster.Close()
	all, _, err := cluster.Inventory(ctx, nil)
	for _, l := range all {
		if !l.Available {
			continue
		}
		ports := make([]string, 0, len(l.Ports))
		for _, p := range l.Ports {
			ports = append(ports, strconv.Itoa(int(p)))
		}
		items = append(items, pick.Item{Name: l.Path, Note: strings.TrimSpace(fmt.Sprintf("%d/%d  %s", l.Ready, l.Wanted, strings.Join(ports, ",")))})
	}
	return items, "namespace " + cluster.Namespace(), err
}

// ask shows list on a terminal until something is chosen, or not.
func ask(tty *os.File, list *pick.List) (chosen bool, err error) {
	var before *term.State
	onTerminal(tty, func(fd int) { before, err = term.MakeRaw(fd) })
	if err != nil {
		return false, err
	}
	defer onTerminal(tty, func(fd int) { _ = term.Restore(fd, before) })
	if _, err := tty.WriteString(enterScreen); err != nil {
		return false, err
	}
	defer tty.WriteString(leaveScreen)
	buf := make([]byte, 256)
	for {
		width, height := 80, 24
		onTerminal(tty, func(fd int) {
			if w, h, err := term.GetSize(fd); err == nil && w > 0 && h > 0 {
				width, height = w, h
			}
		})
		lines := list.Lines(width, height, os.Getenv("NO_COLOR") == "")
		if _, err := fmt.Fprintf(tty, "\x1b[H%s\x1b[J", strings.Join(lines, "\x1b[K\r\n")); err != nil {
			return false, err
		}
		n, err := tty.Read(buf)
		if err != nil {
			return false, err
		}
		for _, key := range pick.Keys(buf[:n]) {
			switch list.Key(key) {
			case pick.Chosen:
				return true, nil
			case pick.Cancelled:
				return false, nil
			}
		}
	}
}
