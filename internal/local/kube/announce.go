package kube

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

const (
	// maxLogLine bounds a line of the agent's log in bytes; what is longer is
	// no announcement.
	maxLogLine = 16 << 10
	// keptLines of an agent's log are shown if it ends instead of getting
	// ready: its last words.
	keptLines = 5
)

// announcement is the line by which an agent says that it listens, on the
// loopback of its own pod, and which key it has. docs/protocol.md has it too.
type announcement struct {
	Version string `json:"mirrord-agent"`
	Key     string `json:"key"`
	Port    int    `json:"port"`
	// As is who the agent must be for its target, instead of key and port: it
	// has ended then.
	As *ids `json:"as"`
}

// announced reads lines up to the announcement. Lines before it are log lines.
// Without one, it returns the last lines that it saw and the error that ended
// the reading, io.EOF at the end of the log.
func announced(r io.Reader) (announcement, []string, error) {
	var last []string
	br := bufio.NewReaderSize(r, maxLogLine)
	for {
		line, cut, err := br.ReadLine()
		if err != nil {
			return announcement{}, last, err
		}
		for cut && err == nil { // the rest of a line that is too long
			_, cut, err = br.ReadLine()
		}
		var a announcement
		if json.Unmarshal(line, &a) == nil && (a.As != nil || a.Key != "" && a.Port > 0 && a.Port < 1<<16) {
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
		VersionedParams(&corev1.PodLogOptions{Container: st.container, Follow: true}, st.c.words.parameters).Stream(ctx)
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
