package files

import (
	"golang.org/x/sys/unix"

	"github.com/mirrord-go/mirrord/internal/protocol"
)

// Reading ahead over a directory. A program that opens one small file after
// another gets those that follow by name before it asks, more at a time the
// more of them it uses.

const (
	// firstBatch is what is fetched of a directory before any of it is used, in
	// bytes.
	firstBatch = 64 << 10
	// maxBatch bounds one request, in bytes; batchText its names, so that the
	// request needs no window beyond the first.
	maxBatch  = 256 << 10
	batchText = 4 << 10
	// dense is how many files of a directory must be opened for all of them to be
	// fetched, whatever the order, if they are no more than denseBytes: a package
	// whose modules are imported.
	dense      = 3
	denseBytes = 1 << 20
)

// contentCost is what a small file's content counts, in bytes: an empty one
// saves a question as well.
func contentCost(size uint64) int { return int(size) + 512 }

// follow notes that p is opened, and fetches contents that are likely to be
// wanted next: of what came of a directory never more than firstBatch and as
// much again as was used remains unused. Who opens files here and there gets one
// batch in vain.
func (r *remote) follow(p string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	dir, name := split(p)
	d := r.dirs[dir]
	if d == nil || !r.surveying() {
		return
	}
	h := &d.habit
	h.opens++
	if h.all || len(d.names) < 2 {
		return
	}
	room := firstBatch + 2*h.used - h.fetched
	if h.opens == dense && smallBytes(d) <= denseBytes {
		room = max(room, denseBytes)
	}
	// The more is used, the fewer and larger requests.
	least := max(firstBatch/2, min(h.used/4, maxBatch))
	for room = min(room, r.thrift.spare()); room >= least; {
		a, size := r.batch(d, name, min(room, maxBatch))
		if a == nil {
			h.all = true
			return
		}
		if !r.begin(a) {
			return
		}
		h.fetched += size
		for _, e := range a.files {
			e.coming = true
		}
		room -= size
	}
}

// smallBytes is the sum of the contents in d that may be fetched.
func smallBytes(d *directory) (sum int) {
	for _, e := range d.names {
		if e.fetchable() {
			sum += contentCost(e.attr.Size)
		}
	}
	return sum
}

// fetchable reports whether e's content may come ahead.
func (e *entry) fetchable() bool {
	return e.attr.Mode&unix.S_IFMT == unix.S_IFREG && e.attr.Size <= prefetch && !e.barren
}

// batch asks for the contents of the files in d that follow name, up to room
// bytes; nil if there are none. mu is held.
func (r *remote) batch(d *directory, name string, room int) (a *asking, size int) {
	sorted := d.sort()
	at := 0
	for at < len(sorted) && sorted[at] <= name {
		at++
	}
	m := &protocol.Survey{Path: d.path}
	files := map[string]*entry{}
	text := 0
	for i := range sorted {
		e := d.names[sorted[(at+i)%len(sorted)]]
		if c := e.content; !e.fetchable() || e.coming || c != nil && sameFile(c.attr, e.attr) && same(c.attr, e.attr) {
			continue
		}
		n := contentCost(e.attr.Size)
		text += len(e.name) + 2
		if len(files) > 0 && (size+n > room || text > batchText) || len(files) == protocol.MaxSurveyNames {
			break
		}
		size += n
		files[e.name] = e
		m.Names = append(m.Names, e.name)
	}
	if len(files) == 0 {
		return nil, 0
	}
	m.Bytes, m.Content = uint32(size), uint32(size)
	return &asking{Survey: m, root: d, files: files, lists: map[string]*partList{}}, size
}

// opened gives the content of p if it may be used, and counts that.
func (r *remote) opened(p string) (f fact, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.entry(p)
	f, ok = r.rememberedOf(p, e)
	if !ok || f.data == nil {
		return fact{}, false
	}
	r.use(e)
	r.contents.MoveToBack(f.data.place)
	if by := f.data.by; by != nil {
		f.data.by = nil
		e.dir.habit.used += contentCost(f.attr.Size)
		r.thrift.give(contentCost(f.attr.Size))
		r.saved(by)
	}
	return f, true
}
