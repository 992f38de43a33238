package files

import (
	"os"

	"github.com/mirrord-go/mirrord/internal/local/ids"
	"github.com/mirrord-go/mirrord/internal/protocol"
)

// The program runs with the caller's ids, and stands for the target's process:
// what that one owns is shown as the program's own. All other ids keep their
// numbers, but for one: the target may have another user with the caller's number,
// whose files are not the program's. No number is left that says whose they are.
// (That of the target's process is free, and would say the wrong thing; root's,
// which it mostly is, ssh and others would even trust.) So they are nobody's.

//
// In a container's sandbox nobody stands for the target's process: an image has
// its own users, most often those of the target's, by the same numbers. There
// the target's ids keep them all, and the caller is root.

// Owner implements fusefs.Tree.
func (t *Tree) Owner(k uint64, a *protocol.Attr) (uid, gid uint32) {
	switch sideOf(k) {
	case sideRemote, sideView:
		if t.o.Root {
			return a.UID, a.GID
		}
		return idHere(a.UID, os.Getuid(), t.o.UID), idHere(a.GID, os.Getgid(), t.o.GID)
	}
	if t.o.Root {
		return asRoot(a.UID, os.Getuid()), asRoot(a.GID, os.Getgid())
	}
	return a.UID, a.GID
}

// asRoot is the number in the sandbox of an id of this machine's, where the
// caller is root.
func asRoot(id uint32, own int) uint32 {
	switch id {
	case uint32(own):
		return 0
	case 0:
		return ids.Nobody
	}
	return id
}

// idHere is the number in the sandbox of an id of the target's, where own is the
// caller's and process that of the target's process.
func idHere(id uint32, own int, process uint32) uint32 {
	switch id {
	case process:
		return uint32(own)
	case uint32(own):
		return ids.Nobody
	}
	return id
}

// idThere is the opposite, for what a program gives to chown(2).
func idThere(id uint32, own int, process uint32) uint32 {
	if id == uint32(own) {
		return process
	}
	return id
}

// orNone is id if there is one, otherwise what chown(2) takes for none.
func orNone(id *uint32) int {
	if id == nil {
		return -1
	}
	return int(*id)
}
