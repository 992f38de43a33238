package sandbox

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
)

// Watcher is a process of the sandbox that watches files by inotify(7).
type Watcher struct {
	PID    int
	Name   string   // of its program, as the process has it
	Inodes []uint64 // what it watches of its root file system
}

// Watchers looks for them. It costs a look at every descriptor of the sandbox's
// processes.
func (b *Box) Watchers() ([]Watcher, error) {
	pids, err := b.tree.Processes()
	if err != nil {
		return nil, err
	}
	var all []Watcher
	for _, pid := range pids {
		inodes, err := watched(pid)
		if err != nil {
			return all, err
		}
		if len(inodes) > 0 {
			name, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
			all = append(all, Watcher{pid, strings.TrimSpace(string(name)), inodes})
		}
	}
	return all, nil
}

// watched gives what a process watches; nothing of one that has ended, or may
// not be looked at.
func watched(pid int) (inodes []uint64, err error) {
	dir := fmt.Sprintf("/proc/%d/", pid)
	fds, err := os.ReadDir(dir + "fd")
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
			err = nil
		}
		return nil, err
	}
	root := "" // the device of its root file system
	for _, fd := range fds {
		if to, _ := os.Readlink(dir + "fd/" + fd.Name()); to != "anon_inode:inotify" {
			continue
		}
		if root == "" {
			table, _ := os.ReadFile(dir + "mountinfo") // it may have ended
			root = rootDevice(string(table))
		}
		info, err := os.ReadFile(dir + "fdinfo/" + fd.Name())
		if err == nil && root != "" { // it may have been closed
			inodes = append(inodes, parseWatches(string(info), root)...)
		}
	}
	return inodes, nil
}

// rootDevice gives the device of what is mounted at /, in the form of
// parseWatches, from a table of mounts (proc_pid_mountinfo(5)); empty: none is.
func rootDevice(table string) (device string) {
	for line := range strings.Lines(table) {
		f := strings.Fields(line)
		if len(f) < 5 || f[4] != "/" {
			continue
		}
		major, minor, _ := strings.Cut(f[2], ":")
		a, err := strconv.ParseUint(major, 10, 12)
		b, berr := strconv.ParseUint(minor, 10, 20)
		if err == nil && berr == nil {
			device = strconv.FormatUint(a<<20|b, 16) // the last one lies on top
		}
	}
	return device
}

// parseWatches reads the inode numbers of "inotify wd:1 ino:80000000000d7e0a
// sdev:2b mask:…" (proc_pid_fdinfo(5)), of one device.
func parseWatches(info, device string) (inodes []uint64) {
	for line := range strings.Lines(info) {
		fields := strings.Fields(line)
		if len(fields) == 0 || fields[0] != "inotify" || !slices.Contains(fields, "sdev:"+device) {
			continue
		}
		for _, f := range fields[1:] {
			if text, ok := strings.CutPrefix(f, "ino:"); ok {
				if ino, err := strconv.ParseUint(text, 16, 64); err == nil {
					inodes = append(inodes, ino)
				}
			}
		}
	}
	return inodes
}
