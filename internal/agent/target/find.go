package target

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// ErrNotFound is returned when no process of the container runs here.
var ErrNotFound = errors.New("no process of the container runs on this node")

// minID is the shortest container id that is looked for: runtimes' ids have 64
// hexadecimal digits, and a short string could match other directories.
const minID = 12

// Find gives the first process of the container id, by its control group, in
// the process list at proc ("/proc"). The first is the one that was started
// first; one that has ended and was not waited for is none.
func Find(proc, id string) (int, error) {
	if len(id) < minID {
		return 0, fmt.Errorf("container id %q is too short", id)
	}
	entries, err := os.ReadDir(proc)
	if err != nil {
		return 0, fmt.Errorf("list processes: %w", err)
	}
	best, began := 0, uint64(0)
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		groups, err := os.ReadFile(filepath.Join(proc, e.Name(), "cgroup"))
		if err != nil || !inContainer(string(groups), id) {
			continue // also: it has ended meanwhile
		}
		stat, err := os.ReadFile(filepath.Join(proc, e.Name(), "stat"))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		start, ok := startTime(string(stat))
		if ok && (best == 0 || start < began || start == began && pid < best) {
			best, began = pid, start
		}
	}
	if best == 0 {
		return 0, fmt.Errorf("container %s: %w", id, ErrNotFound)
	}
	return best, nil
}

// inContainer reports whether the control groups of a process, in the form of
// /proc/PID/cgroup (cgroups(7)), are those of the container id. Runtimes name
// a container's group, as one component of the path:
//
//	ID                   cgroupfs driver, any runtime
//	docker-ID.scope      systemd driver: docker, and with other prefixes
//	cri-containerd-ID.scope, crio-ID.scope, libpod-ID.scope
//
// crio-conmon-ID.scope is the monitor of a container, not the container.
// Processes may be in groups below the container's own.
func inContainer(groups, id string) bool {
	for line := range strings.Lines(groups) {
		// hierarchy:controllers:path
		parts := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(parts) != 3 {
			continue
		}
		for c := range strings.SplitSeq(parts[2], "/") {
			if i := strings.LastIndexByte(c, ':'); i >= 0 { // systemd driver without systemd: slice:prefix:id
				c = c[i+1:]
			}
			if c == id {
				return true
			}
			if prefix, ok := strings.CutSuffix(c, "-"+id+".scope"); ok && !strings.HasSuffix(prefix, "conmon") {
				return true
			}
		}
	}
	return false
}

// startTime gives the start time of a process from /proc/PID/stat
// (proc_pid_stat(5), field 22), in ticks since boot; ok is false for one that
// has ended.
func startTime(stat string) (ticks uint64, ok bool) {
	// The name, field 2, may hold anything, also parentheses.
	i := strings.LastIndexByte(stat, ')')
	if i < 0 {
		return 0, false
	}
	f := strings.Fields(stat[i+1:])
	const state, start = 3 - 3, 22 - 3
	if len(f) <= start || f[state] == "Z" || f[state] == "X" {
		return 0, false
	}
	ticks, err := strconv.ParseUint(f[start], 10, 64)
	return ticks, err == nil
}
