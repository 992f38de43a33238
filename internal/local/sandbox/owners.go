package sandbox

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"time"

	"github.com/mirrord-go/mirrord/internal/local/host"
	"github.com/mirrord-go/mirrord/internal/local/ids"
	"github.com/mirrord-go/mirrord/internal/local/sandbox/handoff"
)

// mapTime bounds newuidmap and newgidmap, which take milliseconds; where users
// are in a directory service that does not answer, they would take for ever.
const mapTime = 3 * time.Second

// mapOwners has ids mapped into the sandbox beside the caller's own, so that
// files can be shown with their owners: only somebody outside may do that, and of
// ids that are not his own only a program of root's. Where that cannot be had init
// maps the caller alone, and the error says why. It returns before init goes on.
func (p *Process) mapOwners() *handoff.Error {
	lack := func(format string, args ...any) *handoff.Error {
		return &handoff.Error{Step: handoff.StepOwners, Text: fmt.Sprintf(format, args...)}
	}
	o := host.LookOwners()
	if p.as.Root {
		return p.mapAsEngine(o)
	}
	if missing := o.Missing(); missing != "" {
		return lack("%s", missing)
	}
	users, groups := ids.Map(uint32(os.Geteuid()), o.Users), ids.Map(uint32(os.Getegid()), o.Groups)
	if users == nil || groups == nil {
		return lack("the ids that are set aside for %s are the user's own", o.User)
	}
	// The map of groups would allow setgroups(2), by which a program can leave a
	// group that is denied something (user_namespaces(7)). Root may anyway.
	if os.Geteuid() != 0 {
		if err := os.WriteFile(fmt.Sprintf("/proc/%d/setgroups", p.pid), []byte("deny"), 0); err != nil {
			return lack("%v", err)
		}
	}
	return p.writeMaps(o, users, groups)
}

// mapAsEngine has the ids mapped as an engine of containers maps them, so that
// the files in its store are the same users'. Its containers become other users,
// with groups (setgroups(2)).
func (p *Process) mapAsEngine(o host.Owners) *handoff.Error {
	if len(p.as.Users) < 2 || len(p.as.Groups) < 2 {
		return nil // init maps the caller
	}
	return p.writeMaps(o, p.as.Users, p.as.Groups)
}

// writeMaps has maps written by the programs that may.
func (p *Process) writeMaps(o host.Owners, users, groups []ids.Extent) *handoff.Error {
	ctx, cancel := context.WithTimeout(context.Background(), mapTime)
	defer cancel()
	for _, m := range []struct {
		program string
		all     []ids.Extent
	}{{o.UIDMap, users}, {o.GIDMap, groups}} {
		cmd := exec.CommandContext(ctx, m.program, append([]string{strconv.Itoa(p.pid)}, ids.Arguments(m.all)...)...)
		cmd.Env, cmd.WaitDelay = []string{"LC_ALL=C"}, time.Second // for what it leaves behind
		if said, err := cmd.CombinedOutput(); err != nil {
			line, _, _ := bytes.Cut(bytes.TrimSpace(said), []byte("\n"))
			return &handoff.Error{Step: handoff.StepOwners, Text: fmt.Sprintf("%s: %s (%v)", m.program, line, err)}
		}
	}
	return nil
}

// known reads what ids there are where the helper lives; where that cannot be
// told, there is the caller's alone.
func (b *Box) known() ids.Known {
	read := func(name string, own int) (ids.Set, uint32) {
		text, err := readAt(b.proc, strconv.Itoa(b.helper.pid)+"/"+name, 16<<10)
		if err != nil {
			return nil, uint32(own)
		}
		return ids.Parse(string(text)), ids.Inside(string(text), uint32(own))
	}
	var known ids.Known
	known.Users, known.UID = read("uid_map", os.Getuid())
	known.Groups, known.GID = read("gid_map", os.Getgid())
	return known
}
