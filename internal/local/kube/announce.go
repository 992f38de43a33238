package kube

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/mirrord-go/mirrord/internal/protocol"
)

const (
	// maxLogLine bounds a line of the agent's log in bytes; what is longer is
	// no announcement.
	maxLogLine = 16 << 10
	// keptLines of an agent's log are shown if it ends instead of getting
	// ready: its last words.
	keptLines = 5
)

// announcement is what an agent's first line says.
type announcement struct {
	protocol.Announcement
	// As is who the agent must be for its target, instead of the rest: it has
	// ended then.
	As *ids `json:"as"`
}

// parseAnnouncement reads a line; ok is false for one that is none.
func parseAnnouncement(line []byte) (a announcement, ok bool) {
	if json.Unmarshal(line, &a) == nil && a.As != nil {
		return announcement{As: a.As}, true
	}
	said, ok := protocol.ParseAnnouncement(line)
	return announcement{Announcement: said}, ok && said.Port > 0 // on the loopback of its own pod
}

// unwatched is how a kubelet ends a log that it cannot follow, since its node has
// no inotify instances left: after what there is so far, instead of an error.
const unwatched = "failed to create fsnotify watcher"

// announced reads lines up to the announcement. Lines before it are log lines.
// Without one, it returns the last lines that it saw and the error that ended
// the reading, io.EOF at the end of the log.
func announced(r io.Reader) (announcement, []string, error) {
	var last []string
	br := bufio.NewReaderSize(r, maxLogLine)
	for {
		line, cut, err := br.ReadLine()
		if err == io.EOF && len(last) > 0 && strings.HasPrefix(last[len(last)-1], unwatched) {
			return announcement{}, last, fmt.Errorf("%w: %s", io.ErrUnexpectedEOF, last[len(last)-1])
		}
		if err != nil {
			return announcement{}, last, err
		}
		for cut && err == nil { // the rest of a line that is too long
			_, cut, err = br.ReadLine()
		}
		if a, ok := parseAnnouncement(line); ok {
			return a, nil, nil
		}
		if text := strings.TrimSpace(string(line)); text != "" {
			last = append(last, text)
			last = last[max(0, len(last)-keptLines):]
		}
	}
}

// readLog follows the agent's log up to its announcement. Where it is cut it
// is read again.
func (st *start) readLog(ctx context.Context, pod string) {
	away, cancel := context.WithTimeout(ctx, awayTime)
	defer cancel()
	var a announcement
	var last []string
	var cut error
	err := again(away, func(context.Context) error {
		cut = nil
		log, err := st.c.core.Get().Namespace(st.namespace).Resource("pods").Name(pod).SubResource("log").
			VersionedParams(&corev1.PodLogOptions{Container: st.container, Follow: true}, st.c.words.parameters).Stream(ctx)
		if err != nil {
			return err
		}
		defer log.Close()
		a, last, cut = announced(log)
		if cut == io.EOF { // its orderly end
			return nil
		}
		return cut
	})
	switch {
	case ctx.Err() != nil:
	case err != nil && cut == nil:
		st.failed <- st.c.explain(ctx, err, "get", "pods/log", st.namespace)
	case err != nil:
		st.ended <- append(last, fmt.Sprintf("(its log was cut: %v)", cut))
	case cut != nil:
		st.ended <- last
	default:
		st.ready <- a
	}
}
