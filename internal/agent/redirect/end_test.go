package redirect_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/mirrord-go/mirrord/internal/agent/redirect"
	"github.com/mirrord-go/mirrord/internal/agent/target"
	"github.com/mirrord-go/mirrord/internal/leak"
	"github.com/mirrord-go/mirrord/internal/relay"
)

// What was accepted and not taken is served by the original, and so is what
// arrives meanwhile.
func TestUntakenGoToTheOriginal(t *testing.T) {
	for _, by := range []string{"Remove", "Close"} {
		t.Run(by, func(t *testing.T) {
			ways(t, func(t *testing.T, open func(*pod) (*redirect.Redirect, error)) {
				leak.Check(t)
				p, client := newNet(t)
				p.listen(t, "target", "tcp", ":80", nil)
				r := opened(t, p, open, 80)
				const conns = 200 // more than the queue
				var wg sync.WaitGroup
				var connected atomic.Int64
				for i := range conns {
					from, to, want := client, pod4+":80", client4
					if i%4 == 0 {
						from, to, want = p, "[::1]:80", "::1"
					}
					wg.Go(func() {
						c, err := from.t.Dial(t.Context(), "tcp", netip.MustParseAddrPort(to))
						connected.Add(1)
						if err != nil {
							t.Error(err)
							return
						}
						defer c.Close()
						c.SetDeadline(time.Now().Add(30 * time.Second)) // far above what a busy machine needs: none is lost
						b, err := io.ReadAll(c)
						if got, want := string(b), "target "+want+" "+to; err != nil || got != want {
							t.Errorf("got %q, %v, want %q", got, err, want)
						}
					})
				}
				for connected.Load() < conns-10 && !t.Failed() {
					time.Sleep(time.Millisecond)
				}
				if by == "Close" {
					if err := r.Close(); err != nil {
						t.Error(err)
					}
					wg.Wait()
					return
				}
				if err := r.Remove(80); err != nil {
					t.Error(err)
				}
				wg.Wait()
				r.Close()
			})
		})
	}
}

// What Accept gave out, and what goes to the original, outlives Close; and
// Close does not wait for ever for what it passes on itself.
func TestCloseAndLongConnections(t *testing.T) {
	ways(t, func(t *testing.T, open func(*pod) (*redirect.Redirect, error)) {
		leak.Check(t)
		p, client := newNet(t)
		held := make(chan net.Conn, 4)
		err := p.t.Do(func() error {
			ln, err := net.Listen("tcp", ":80")
			if err == nil {
				t.Cleanup(func() { ln.Close() })
				go func() {
					for {
						c, err := ln.Accept()
						if err != nil {
							return
						}
						held <- c
					}
				}()
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		r := opened(t, p, open, 80)
		redirect.PassTime(r, time.Second)
		dial := func() net.Conn {
			t.Helper()
			c, err := client.t.Dial(t.Context(), "tcp", netip.MustParseAddrPort(pod4+":80"))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { c.Close() })
			return c
		}
		accept := func() net.Conn {
			t.Helper()
			c, err := r.Accept(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			return c
		}
		a := dial()
		taken := accept()
		b := dial()
		stolen := accept()
		o, err := r.Original(t.Context(), stolen)
		if err != nil {
			t.Fatal(err)
		}
		far := <-held
		defer far.Close()
		untaken := dial()
		begin := time.Now()
		if err := r.Close(); err != nil {
			t.Error(err)
		}
		if d := time.Since(begin); d < time.Second || d > 4*time.Second {
			t.Errorf("Close waited %v for a connection that does not end, want 1s", d)
		}
		untaken.SetReadDeadline(time.Now().Add(3 * time.Second))
		if _, err := untaken.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the connection that nobody took ended with %v, want ECONNRESET", err)
		}
		(<-held).Close()
		ping(t, a, taken)
		ping(t, b, stolen)
		ping(t, o, far)
		for _, c := range []net.Conn{taken, stolen, o} {
			c.Close()
		}
		if err := p.t.Do(tablesAre(0)); err != nil {
			t.Error("after the last connection: ", err)
		}
	})
}

// A killed agent leaves nothing, and the next connection reaches the target.
// That one too has only the capabilities that an agent keeps.
func TestKilledAgent(t *testing.T) {
	for _, way := range []string{"bpf", "nftables"} {
		t.Run(way, func(t *testing.T) {
			p, client := newNet(t)
			p.listen(t, "target", "tcp", ":80", nil)
			kept := "-all,+net_raw,+net_admin,+bpf"
			self, err := os.Executable()
			if err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command("setpriv", "--bounding-set", kept, "--inh-caps", "-all", "--", self)
			cmd.Env = append(os.Environ(), "REDIRECT_AGENT="+way)
			var stderr bytes.Buffer
			cmd.Stderr = &stderr
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			// It is inside from the beginning: it may not enter.
			if err := p.t.Do(cmd.Start); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(out, make([]byte, len("ready\n"))); err != nil {
				_ = cmd.Wait()
				t.Fatal(err, stderr.String())
			}
			want := "target " + client4 + " " + pod4 + ":80"
			if got, err := client.ask(pod4 + ":80"); err != nil || got != want {
				t.Errorf("passed on: got %q, %v, want %q", got, err, want)
			}
			if err := p.t.Do(tablesAre(0)); err == nil {
				t.Error("the agent has no table: nothing is tried here")
			}
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
			if got, err := client.ask(pod4 + ":80"); err != nil || got != want {
				t.Errorf("after the kill: got %q, %v, want %q", got, err, want)
			}
			if err := p.t.Do(tablesAre(0)); err != nil {
				t.Error("after the kill: ", err)
			}
		})
	}
}

// agent steals port 80 of its own network and passes all on, until it is killed.
func agent(way string) error {
	tg, err := target.Self()
	if err != nil {
		return err
	}
	open := redirect.NewByLookup
	if way == "nftables" {
		open = redirect.NewByNAT
	}
	r, err := open(tg, "ann@laptop")
	if err != nil {
		return err
	}
	if err := r.Add(80); err != nil {
		return err
	}
	fmt.Println("ready")
	for {
		c, err := r.Accept(context.Background())
		if err != nil {
			return err
		}
		o, err := r.Original(context.Background(), c)
		if err != nil {
			return err
		}
		go relay.Join(context.Background(), nil, c.(relay.Conn), o.(relay.Conn))
	}
}

func TestMain(m *testing.M) {
	if way := os.Getenv("REDIRECT_AGENT"); way != "" {
		fmt.Fprintln(os.Stderr, agent(way))
		os.Exit(1)
	}
	os.Exit(leak.Main(m))
}
