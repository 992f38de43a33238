package host

import (
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/mirrord-go/mirrord/internal/local/ids"
	"github.com/mirrord-go/mirrord/internal/shell"
)

// Owners is what a user has for showing files with their owners: subordinate
// ids (subuid(5)), and the programs that map them for him.
type Owners struct {
	User          string // his name; his number if he has none
	Users, Groups ids.Set
	// UIDMap and GIDMap are newuidmap(1) and newgidmap(1); empty: not there.
	UIDMap, GIDMap string
	free           ids.Range // that nobody has
}

// Files that set ids aside.
const (
	subUID = "/etc/subuid"
	subGID = "/etc/subgid"
	// manyOwners is how many ids are proposed, as useradd(8) does.
	manyOwners = 1 << 16
)

// LookOwners sees what there is for the user of this process. It runs nothing.
func LookOwners() Owners {
	number := strconv.Itoa(os.Getuid())
	o := Owners{User: number}
	if u, err := user.LookupId(number); err == nil && u.Username != "" {
		o.User = u.Username
	}
	users, groups := read(subUID), read(subGID)
	o.Users, o.Groups = ids.Subordinate(users, o.User, number), ids.Subordinate(groups, o.User, number)
	o.UIDMap, o.GIDMap = mapper("newuidmap"), mapper("newgidmap")
	o.free = ids.Free(manyOwners, users, groups)
	return o
}

// mapper finds one of the two programs, also where PATH is odd.
func mapper(name string) string {
	for _, dir := range append(filepath.SplitList(os.Getenv("PATH")), "/usr/bin") {
		path := filepath.Join(dir, name)
		if fi, err := os.Stat(path); err == nil && filepath.IsAbs(path) && fi.Mode().IsRegular() && fi.Mode()&0o111 != 0 {
			return path
		}
	}
	return ""
}

// Missing says what is not there; empty: nothing.
func (o Owners) Missing() string {
	var all []string
	if o.UIDMap == "" || o.GIDMap == "" {
		all = append(all, "newuidmap and newgidmap are not installed")
	}
	for _, x := range []struct {
		file string
		set  ids.Set
	}{{subUID, o.Users}, {subGID, o.Groups}} {
		if len(x.set) == 0 {
			all = append(all, fmt.Sprintf("%s has no ids for %s", x.file, o.User))
		}
	}
	return strings.Join(all, ", ")
}

// cure says how to have it.
func (o Owners) cure() Cure {
	var do []string
	if o.UIDMap == "" || o.GIDMap == "" {
		do = append(do, "sudo apt install uidmap # elsewhere shadow, shadow-utils or shadow-uidmap")
	}
	if len(o.Users) == 0 || len(o.Groups) == 0 {
		last := o.free.First + o.free.Count - 1
		args := ""
		if len(o.Users) == 0 {
			args += fmt.Sprintf(" --add-subuids %d-%d", o.free.First, last)
		}
		if len(o.Groups) == 0 {
			args += fmt.Sprintf(" --add-subgids %d-%d", o.free.First, last)
		}
		do = append(do, "sudo usermod"+args+" "+shell.Quote(o.User))
	}
	if len(do) == 0 {
		return Cure{Else: "see docs/hosts.md: owners of files"}
	}
	return Cure{Else: strings.Join(do, "\n")}
}
