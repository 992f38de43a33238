package kube

import (
	"bufio"
	"context"
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

// announced reads lines up to the announcement. Lines before it are log lines.
// Without one, it returns the last lines that it saw and the error that ended
// the reading, io.EOF at the end of the log.
func announced(r io.Reader) (protocol.Announcement, []string, error) {
	var last []string
	br := bufio.NewReaderSize(r, maxLogLine)
	for {
		line, cut, err := br.ReadLine()
		if err != nil {
			return protocol.Announcement{}, last, err
		}
		for cut && err == nil { // the rest of a line that is too long
			_, cut, err = br.ReadLine()
		}
		if a, ok := protocol.ParseAnnouncement(line); ok && a.Port > 0 { // on the loopback of its own pod
			return a, nil, nil
		}
		if text := strings.TrimSpace(string(line)); text != "" {
			last = append(last, text)
			last = last[max(0, len(last)-keptLines):]
		}
	}
}

// readLog follows the agent's log up to its announcement.
func (st *start) readLog(ctx context.Context, pod string) {
	log, err := st.c.core.Get().Namespace(st.namespace).Resource("pods").Name(pod).SubResource("log").
		VersionedParams(&corev1.PodLogOptions{Container: agentContainer, Follow: true}, st.c.words.parameters).Stream(ctx)
	if err != nil {
		if ctx.Err() == nil {
			st.failed <- st.c.explain(ctx, err, "get", "pods/log", st.namespace)
		}
		return
	}
	defer log.Close()
	a, last, err := announced(log)
	switch {
	case err == nil:
		st.ready <- a
	case ctx.Err() != nil:
	default:
		if err != io.EOF {
			last = append(last, fmt.Sprintf("(its log was cut: %v)", err))
		}
		st.ended <- last
	}
}
