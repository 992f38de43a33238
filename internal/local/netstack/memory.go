package netstack

import "github.com/mirrord-go/mirrord/internal/budget"

const (
	// leastReceive and leastSend are what every connection may keep, in bytes,
	// however many there are. Less than two segments of a TUN device would make
	// the program's kernel wait for its probe timer (Linux splits a segment that
	// does not fit the window only then).
	leastReceive, leastSend = 128 << 10, 16 << 10
	// ConnCost is what a connection is counted as: these, and what the stack and
	// the handler have of it, with their stacks.
	ConnCost = leastReceive + leastSend + 16<<10
	// udpCost is what a flow of datagrams is counted as: what the stack queues,
	// and one datagram each way, of any length.
	udpCost = 128 << 10
	// lendPart bounds what one connection gets of what is left for larger buffers:
	// the next ones get something too.
	lendPart = 16
)

// Memory is the shares that a Stack takes from. nil ones have no end.
type Memory struct {
	// Connections are TCP's. Without room a connection of the program's is not
	// answered, and its kernel asks again; one towards the program fails with
	// ENOBUFS.
	Connections *budget.Share
	// Datagrams are UDP's. Without room the flow that has been idle longest ends.
	Datagrams *budget.Share
	// Buffers is for larger buffers of connections.
	Buffers *budget.Share
}

// lend gives the size of a buffer of at least least and at most want bytes.
func lend(from *budget.Share, least, want int) int {
	size := max(least, min(want, from.Free()/lendPart))
	if !from.Take(size - least) {
		return least
	}
	return size
}
