package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/term"

	"github.com/mirrord-go/mirrord/internal/local/activity"
	"github.com/mirrord-go/mirrord/internal/local/control"
	"github.com/mirrord-go/mirrord/internal/local/status"
)

// terminal is a view on a terminal's screen.
type terminal struct {
	quit    context.CancelFunc
	screen  *status.Screen
	colours bool
	dirty   bool

	tty    *os.File    // for keys; nil: there are none
	before *term.State // of tty
	keys   chan []rune
	sizes  chan os.Signal
	over   chan struct{}
	wg     sync.WaitGroup // the reader of keys
}

// openTerminal takes the terminal of stdout until close. quit is called when its
// user wants the end.
func openTerminal(quit context.CancelFunc, f status.Filter) (*terminal, error) {
	t := &terminal{quit: quit, screen: status.NewScreen(f), colours: os.Getenv("NO_COLOR") == "", dirty: true,
		keys: make(chan []rune), sizes: make(chan os.Signal, 1), over: make(chan struct{})}
	signal.Notify(t.sizes, syscall.SIGWINCH)
	// A description of its own: what others have of the terminal stays as it is,
	// and reading from it can be ended.
	if tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0); err == nil {
		t.tty = tty
		onTerminal(tty, func(fd int) { t.before, _ = term.MakeRaw(fd) })
		t.wg.Go(t.read)
	}
	_, err := io.WriteString(os.Stdout, enterScreen)
	return t, err
}

// read passes keys on.
func (t *terminal) read() {
	buf := make([]byte, 256)
	for {
		n, err := t.tty.Read(buf)
		if err != nil {
			return
		}
		select {
		case t.keys <- status.Keys(buf[:n]):
		case <-t.over:
			return
		}
	}
}

func (t *terminal) session(st *control.Status) { t.screen.Session(st); t.dirty = true }

func (t *terminal) event(e activity.Event) { t.screen.Event(e); t.dirty = true }

func (t *terminal) ended(id string) { t.screen.Ended(id); t.dirty = true }

// tick follows keys and draws what is new.
func (t *terminal) tick() error {
	for more := true; more; {
		select {
		case keys := <-t.keys:
			for _, k := range keys {
				if t.screen.Key(k) {
					t.quit()
				}
			}
			t.dirty = true
		case <-t.sizes:
			t.dirty = true
		default:
			more = false
		}
	}
	if !t.dirty {
		return nil
	}
	t.dirty = false
	width, height, err := term.GetSize(int(os.Stdout.Fd()))
	if err != nil || width < 1 || height < 1 {
		width, height = 80, 24
	}
	lines := t.screen.Lines(width, height, time.Now(), t.colours)
	_, err = fmt.Fprintf(os.Stdout, "\x1b[H%s\x1b[K", strings.Join(lines, "\x1b[K\r\n"))
	return err
}

// close gives the terminal back.
func (t *terminal) close() {
	signal.Stop(t.sizes)
	_, _ = io.WriteString(os.Stdout, leaveScreen)
	if t.tty == nil {
		return
	}
	close(t.over)
	if t.before != nil {
		onTerminal(t.tty, func(fd int) { _ = term.Restore(fd, t.before) })
	}
	_ = t.tty.SetReadDeadline(time.Now())
	t.wg.Wait()
	t.tty.Close()
}
