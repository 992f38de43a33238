package testcluster

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// maxPrograms is how many BPF programs of one kind a network namespace can have
// (netns_bpf_max_progs in the kernel's kernel/bpf/net_namespace.c).
const maxPrograms = 64

// againEvery is how often Unchanged looks: the kernel announces no change of a
// network namespace as a whole.
const againEvery = 200 * time.Millisecond

// A Snapshot is what a session could leave behind in a network namespace:
// lines, sorted, by section.
//
//	nft        the rule set, without counters      listen     sockets that wait for others, and packet sockets
//	iptables   the legacy tables                   unix       abstract unix sockets
//	rule       routing rules                       bpf        programs attached to the namespace
//	route      all routing tables                  process    processes with a thread in it
//	link       devices                             sysctl     everything below net
//	addr       addresses                           qdisc      queueing disciplines
type Snapshot map[string][]string

// PodNetns takes a snapshot of a pod's network namespace. It fails for a pod
// that runs no container, or uses its node's network.
func (c *Cluster) PodNetns(ctx context.Context, namespace, pod string) (Snapshot, error) {
	pid, err := c.PodProcess(ctx, namespace, pod)
	if err != nil {
		return nil, err
	}
	return NetnsOf(ctx, pid)
}

// Unchanged waits until the pod's network namespace is again as it was before,
// or the context ends: then the error lists the differences.
func (c *Cluster) Unchanged(ctx context.Context, namespace, pod string, before Snapshot) error {
	pid, err := c.PodProcess(ctx, namespace, pod)
	if err != nil {
		return err
	}
	return NetnsUnchanged(ctx, pid, before)
}

// NetnsUnchanged is Unchanged for the network namespace of a process of this
// machine.
func NetnsUnchanged(ctx context.Context, pid int, before Snapshot) error {
	tick := time.NewTicker(againEvery)
	defer tick.Stop()
	left := "no snapshot was taken"
	for {
		now, err := NetnsOf(ctx, pid)
		switch {
		case err == nil:
			if left = before.Diff(now); left == "" {
				return nil
			}
		case ctx.Err() == nil:
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("network namespace of process %d: %w, still different:\n%s", pid, ctx.Err(), left)
		}
	}
}

// PodProcess is the number, on this machine, of a process of the pod's first
// container: its first, unless numbers have wrapped around.
func (c *Cluster) PodProcess(ctx context.Context, namespace, pod string) (int, error) {
	said, err := c.Kubectl(ctx, "get", "pod", pod, "-n", namespace,
		"-o", "jsonpath={.spec.hostNetwork} {.status.containerStatuses[0].containerID}")
	if err != nil {
		return 0, err
	}
	if strings.HasPrefix(said, "true") {
		return 0, fmt.Errorf("pod %s uses the network of its node", pod)
	}
	_, id, ok := strings.Cut(said, "://")
	if !ok {
		return 0, fmt.Errorf("pod %s runs no container", pod)
	}
	first := 0
	files, _ := filepath.Glob("/proc/[0-9]*/cgroup") // the pattern is well-formed
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil || !bytes.Contains(content, []byte(id)) { // it may have ended
			continue
		}
		if pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(file))); first == 0 || pid < first {
			first = pid
		}
	}
	if first == 0 {
		return 0, fmt.Errorf("pod %s: no process of container %s on this machine", pod, id)
	}
	return first, nil
}

// volatile are parts of lines that change by themselves.
var volatile = regexp.MustCompile(`(?m) expires \S+|^.*nf_conntrack_count:.*$`)

// NetnsOf takes a snapshot of the network namespace of a process of this
// machine. It needs root and the packages nftables, iptables and iproute2.
func NetnsOf(ctx context.Context, pid int) (Snapshot, error) {
	s := Snapshot{}
	for section, command := range map[string]string{
		"nft": "nft -s list ruleset",
		// Asking would load the modules, so only where there are tables already.
		"iptables": `for v in "" 6; do ! grep -qs . /proc/net/ip${v}_tables_names || ip${v}tables-legacy-save | sed 's/^#.*//; s/\[.*\]//'; done`,
		"rule":     "ip -4 rule && ip -6 rule",
		"route":    "ip -4 route show table all && ip -6 route show table all",
		"link":     "ip -o link",
		"addr":     "ip -o addr | sed 's/valid_lft.*//'",
		"listen":   "ss -Hnltuw0 | awk '{print $1, $5, $6}'",
		"qdisc":    "tc qdisc",
		// Some can be written only, some answer with an error.
		"sysctl": "grep -rs . /proc/sys/net || :",
	} {
		cmd := exec.CommandContext(ctx, "nsenter", "-t", strconv.Itoa(pid), "--net", "sh", "-c", command)
		cmd.Env = append(os.Environ(), "LC_ALL=C", "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin")
		said, err := run(cmd, nil)
		if err != nil {
			return nil, fmt.Errorf("snapshot of %s: %w", section, err)
		}
		s[section] = lines(volatile.ReplaceAllString(said, ""))
	}
	proc := "/proc/" + strconv.Itoa(pid)
	sockets, err := os.ReadFile(proc + "/net/unix")
	if err != nil {
		return nil, err
	}
	s["unix"] = abstract(string(sockets))
	if s["bpf"], err = programs(proc + "/ns/net"); err != nil {
		return nil, err
	}
	if s["process"], err = processes(proc + "/ns/net"); err != nil {
		return nil, err
	}
	return s, nil
}

// lines are the lines of a text that are not empty, sorted.
func lines(text string) []string {
	var all []string
	for line := range strings.Lines(text) {
		if line = strings.TrimRight(line, " \n"); line != "" {
			all = append(all, line)
		}
	}
	slices.Sort(all)
	return all
}

// abstract picks the abstract names out of /proc/net/unix (proc_net(5)): the
// eighth column, with @ for the first byte, which is zero. Connections accepted
// from such a socket carry its name too; how many there are means nothing.
func abstract(table string) []string {
	var names []string
	for line := range strings.Lines(table) {
		if f := strings.Fields(line); len(f) > 7 && strings.HasPrefix(f[7], "@") {
			names = append(names, strings.Join(f[7:], " "))
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// programs names what is attached to the network namespace itself, by a link
// or without. Programs on devices show in their "link" and "qdisc" lines.
func programs(netns string) ([]string, error) {
	f, err := os.Open(netns)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var all []string
	for attach, name := range map[uint32]string{unix.BPF_SK_LOOKUP: "sk_lookup", unix.BPF_FLOW_DISSECTOR: "flow_dissector"} {
		var ids [maxPrograms]uint32
		// The part of union bpf_attr (linux/bpf.h) that BPF_PROG_QUERY uses.
		query := struct {
			fd, attach, queryFlags, attachFlags uint32
			ids                                 unsafe.Pointer
			count                               uint32
		}{fd: uint32(f.Fd()), attach: attach, ids: unsafe.Pointer(&ids), count: maxPrograms}
		_, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_QUERY, uintptr(unsafe.Pointer(&query)), unsafe.Sizeof(query))
		switch errno {
		case 0:
		case unix.EINVAL, unix.ENOSYS: // a kernel without such programs, so there are none
			continue
		default:
			return nil, fmt.Errorf("bpf programs of kind %s: %w", name, errno)
		}
		for _, id := range ids[:query.count] {
			all = append(all, fmt.Sprintf("%s program %d", name, id))
		}
	}
	slices.Sort(all)
	return all, nil
}

// processes names those that have a thread in the network namespace: an agent
// enters it with some of its threads only.
func processes(netns string) ([]string, error) {
	want, err := os.Readlink(netns)
	if err != nil {
		return nil, err
	}
	found := map[string]bool{}
	threads, _ := filepath.Glob("/proc/[0-9]*/task/[0-9]*/ns/net") // the pattern is well-formed
	for _, thread := range threads {
		if now, err := os.Readlink(thread); err == nil && now == want {
			found[strings.Join(strings.Split(thread, "/")[:3], "/")] = true
		}
	}
	var all []string
	for process := range found {
		words, err := os.ReadFile(process + "/cmdline")
		if err != nil {
			continue // it ended
		}
		all = append(all, strings.TrimSpace(strings.ReplaceAll(string(words), "\x00", " ")))
	}
	slices.Sort(all)
	return all, nil
}

// Diff lists what the later snapshot lacks ("route: - …") and has in addition
// ("route: + …"), a line each. It is empty when both are alike.
func (s Snapshot) Diff(later Snapshot) string {
	var out []string
	for section := range s {
		out = append(out, missing(section+": - ", s[section], later[section])...)
	}
	for section := range later {
		out = append(out, missing(section+": + ", later[section], s[section])...)
	}
	slices.Sort(out)
	return strings.Join(out, "\n")
}

// missing are the lines that one has more often than the other.
func missing(prefix string, has, other []string) []string {
	count := map[string]int{}
	for _, line := range other {
		count[line]++
	}
	var out []string
	for _, line := range has {
		if count[line]--; count[line] < 0 {
			out = append(out, prefix+line)
		}
	}
	return out
}
