// Package profiles shows the profiles of a session's processes to go tool pprof:
// over HTTP, on this machine only, and to nobody without the secret that stands in
// the path.
package profiles

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/mirrord-go/mirrord/internal/profile"
)

// defaultTime is how long a profile of the processors' time looks where nothing
// else is asked for, as net/http/pprof does.
const defaultTime = 30 * time.Second

// patience bounds how long a client may take to ask.
const patience = 5 * time.Second

// Source takes a profile of one process, as profile.Take does.
type Source func(ctx context.Context, kind string, d time.Duration) ([]byte, error)

// Server serves the profiles of some processes.
type Server struct {
	ln     net.Listener
	server *http.Server
	wg     sync.WaitGroup
}

// Serve serves them until Close, by the names of the processes, to whoever knows
// the secret. What is under way ends with ctx.
func Serve(ctx context.Context, secret string, of map[string]Source) (*Server, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &Server{ln: ln, server: &http.Server{Handler: handler(secret, of), ReadHeaderTimeout: patience, BaseContext: func(net.Listener) context.Context { return ctx }}}
	s.wg.Go(func() { _ = s.server.Serve(ln) })
	return s, nil
}

// Port is where it listens, on 127.0.0.1.
func (s *Server) Port() int { return s.ln.Addr().(*net.TCPAddr).Port }

// Close ends it; the context of Serve must have ended.
func (s *Server) Close() {
	_ = s.server.Close()
	s.wg.Wait()
}

// URL is where go tool pprof finds a profile of a process.
func URL(port int, secret, process, kind string) string {
	return fmt.Sprintf("http://127.0.0.1:%d/%s/%s/debug/pprof/%s", port, secret, process, kind)
}

func handler(secret string, of map[string]Source) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		// /SECRET/PROCESS/debug/pprof/KIND
		parts := strings.Split(r.URL.Path, "/")
		if len(parts) != 6 || subtle.ConstantTimeCompare([]byte(parts[1]), []byte(secret)) != 1 {
			http.NotFound(w, r)
			return
		}
		source, kind := of[parts[2]], parts[5]
		if source == nil || parts[3] != "debug" || parts[4] != "pprof" || !slices.Contains(profile.Kinds(), kind) {
			http.NotFound(w, r)
			return
		}
		d := defaultTime
		if text := r.URL.Query().Get("seconds"); text != "" {
			n, err := strconv.Atoi(text)
			if most := int(profile.MaxTime / time.Second); err != nil || n <= 0 || n > most {
				http.Error(w, fmt.Sprintf("seconds are from 1 to %d", most), http.StatusBadRequest)
				return
			}
			d = time.Duration(n) * time.Second
		}
		taken, err := source(r.Context(), kind, d)
		switch {
		case errors.Is(err, syscall.EBUSY):
			http.Error(w, err.Error(), http.StatusConflict)
		case err != nil:
			http.Error(w, err.Error(), http.StatusBadGateway)
		default:
			w.Header().Set("Content-Type", "application/octet-stream")
			_, _ = w.Write(taken)
		}
	}
}
