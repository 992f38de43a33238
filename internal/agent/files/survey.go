package files

import (
	"context"
	"errors"
	"io"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mirrord-go/mirrord/internal/protocol"
	"github.com/mirrord-go/mirrord/internal/statx"
)

const (
	// surveyors is how many surveys use the disk at a time: fewer than there are
	// threads, so that a question always finds one.
	surveyors = 3
	// surveyTime bounds how long a survey keeps the disk busy with names, and as
	// long again with contents: what takes longer is not to be had at once. What
	// was asked for by name may take namesTime, since the program is on its way
	// there.
	surveyTime = 20 * time.Millisecond
	namesTime  = 250 * time.Millisecond
	// maxNames and maxPlaces bound the names and the directories that a survey
	// looks at, also those that do not fit.
	maxNames  = 8192
	maxPlaces = 512
	// few is how many names a directory has that is told of before larger ones,
	// however deep it is.
	few = 64
	// maxDepth bounds the levels of directories.
	maxDepth = 8
	// smallContent bounds a file's content that was not asked for by name, in
	// bytes: one file shall not take the room of many.
	smallContent = 16 << 10
	// perName is what an entry takes on the wire besides its name, in bytes, about.
	perName = 120
	// surveyCost is what a survey holds at a time, in bytes: what waits to be sent,
	// one message, and the content that makes it larger than meant.
	surveyCost = batchBytes + times*(batchBytes+maxPrefetch)
	// sayTime is how long on the disk what was found may wait for more of it to be
	// sent with: a small tree takes less, and is there with the answer to the
	// question that came with the survey.
	sayTime = time.Millisecond
)

// survey answers one Survey. It keeps a thread of the pool for all of it: to take
// one for each directory would cost more than the directory.
type survey struct {
	ctx  context.Context
	to   io.Writer
	m    *protocol.Survey
	open func(p string, flags uint64) (int, error) // Server.at

	base  int            // of the directory, O_PATH
	home  *protocol.Attr // its attributes
	left  int            // bytes that may still be sent, of names or of contents
	names int            // that may still be looked at
	spent time.Duration  // on the disk
	limit time.Duration  // of spent
	wait  time.Duration  // sayTime
	files []small        // in the order in which their contents are sent

	out  []byte        // messages that wait to be sent
	said time.Duration // spent, when out was empty last
}

// place is a directory that is to be told of.
type place struct {
	rel    string // from base
	names  []string
	before *protocol.Attr
	told   bool // it was looked at; otherwise there is no room
	large  bool // it has more than few names
}

// small is a file whose content may be sent.
type small struct {
	dir, name string
	size      uint64
}

// errFull ends a survey that has no time or room left.
var errFull = errors.New("the survey has used its time or room")

// survey answers m. It is no failure if there is nothing to say: who
// wants to know asks.
func (s *Server) survey(ctx context.Context, to io.Writer, m *protocol.Survey) {
	select {
	case s.surveyors <- struct{}{}:
		defer func() { <-s.surveyors }()
	case <-ctx.Done():
		return
	}
	if !s.memory.Reads.Take(surveyCost) {
		return
	}
	defer s.memory.Reads.Give(surveyCost)
	x := &survey{ctx: ctx, to: to, m: m, open: s.at, base: -1, names: maxNames, limit: s.surveyTime, wait: s.sayTime}
	_, err := do(ctx, s, func() (struct{}, error) { return struct{}{}, x.run(s.namesTime) })
	if err != nil {
		x.out = protocol.Append(x.out, &protocol.Answer{Errno: errnoOf(err)})
	}
	_ = x.flush()
}

// run says all there is to say. The error is that nothing can be said of the
// directory.
func (x *survey) run(namesTime time.Duration) error {
	err := x.do(x.begin)
	defer func() {
		if x.base >= 0 {
			unix.Close(x.base)
		}
	}()
	if err != nil {
		return err
	}
	bytes := min(x.m.Bytes, protocol.MaxSurvey)
	if len(x.m.Names) > 0 {
		x.limit, x.left = namesTime, int(bytes)
		for _, name := range x.m.Names[:min(len(x.m.Names), protocol.MaxSurveyNames)] {
			x.files = append(x.files, small{name: name})
		}
		_ = x.contents(maxPrefetch)
		return nil
	}
	content := min(x.m.Content, bytes)
	x.left = int(bytes - content)
	large, err := x.list()
	if err != nil && !errors.Is(err, errFull) {
		return nil
	}
	names, spent := x.left, x.spent
	x.left, x.spent, x.said = int(content), 0, 0
	if err := x.contents(smallContent); err == nil || errors.Is(err, errFull) {
		x.left, x.spent, x.said = names, spent, spent
		_ = x.listLarge(large)
	}
	return nil
}

// do runs f, if there is time left for it.
func (x *survey) do(f func() error) error {
	if err := x.ctx.Err(); err != nil {
		return context.Cause(x.ctx)
	}
	if x.spent > x.limit {
		return errFull
	}
	began := time.Now()
	defer func() { x.spent += time.Since(began) }()
	return f()
}

// say sends e, together with what follows at once: a write for each would go its
// own way through all that lies between here and there.
func (x *survey) say(e *protocol.Entries) error {
	x.out = protocol.Append(x.out, e)
	if len(x.out) < batchBytes && x.spent-x.said < x.wait {
		return nil
	}
	return x.flush()
}

func (x *survey) flush() error {
	_, err := x.to.Write(x.out)
	x.out, x.said = x.out[:0], x.spent
	return err
}

func (x *survey) begin() (err error) {
	if x.base, err = x.open(x.m.Path, unix.O_NOFOLLOW|unix.O_DIRECTORY); err != nil {
		return err
	}
	if x.home, err = statx.At(x.base, ""); err != nil {
		return err
	}
	if diskOf(x.base) == diskNone {
		return syscall.EOPNOTSUPP
	}
	return nil
}

// list tells of the directory and those below it, level by level, and gives
// those with many names: what is looked for is in any of them, and there is more
// room for small ones.
func (x *survey) list() (large []*place, err error) {
	level := []string{""}
	for depth := uint32(0); len(level) > 0 && depth <= min(x.m.Depth, maxDepth); depth++ {
		var places []*place
		for _, rel := range level {
			p := &place{rel: rel}
			err := x.do(func() error { return x.look(p, rel != "") })
			switch {
			case errors.Is(err, errFull):
				return nil, err
			case p.large:
				large = append(large, p)
			default:
				places = append(places, p)
			}
		}
		if level, err = x.tellAll(places); err != nil {
			return nil, err
		}
	}
	return large, nil
}

// listLarge tells of the directories with many names.
func (x *survey) listLarge(large []*place) error {
	for _, p := range large {
		if err := x.do(func() error { return x.look(p, false) }); errors.Is(err, errFull) {
			return err
		}
	}
	_, err := x.tellAll(large)
	return err
}

// tellAll tells of places, the smallest first, and gives the directories in
// them.
func (x *survey) tellAll(places []*place) (below []string, err error) {
	slices.SortStableFunc(places, func(a, b *place) int { return len(a.names) - len(b.names) })
	for _, p := range places {
		some, err := x.tell(p)
		if err != nil {
			return nil, err
		}
		below = append(below, some...)
	}
	slices.Sort(below)
	return below[:min(len(below), maxPlaces)], nil
}

// look reads the names in p, unless there are too many: for what there is room
// for, or to be told of among the first.
func (x *survey) look(p *place, first bool) error {
	dir, err := x.dir(p.rel)
	if err != nil {
		return err
	}
	defer dir.Close()
	if p.before, err = statx.At(int(dir.Fd()), ""); err != nil {
		return err
	}
	room := min(x.names, x.left/perName)
	if p.rel == "" && x.m.Listed { // they take no room
		room = x.names
	}
	if p.large = false; first && room > few {
		room = few
		defer func() { p.large = !p.told }()
	}
	for {
		names, err := dir.Readdirnames(min(256, room+1))
		p.names = append(p.names, names...)
		x.names -= len(names)
		switch {
		case errors.Is(err, io.EOF):
			slices.Sort(p.names)
			p.told = true
			return nil
		case err != nil:
			return err
		case len(p.names) > room:
			p.names = nil
			return nil
		}
	}
}

// dir opens the directory rel below base, if no link leads there, and none but a
// plain disk is mounted on the way.
func (x *survey) dir(rel string) (*os.File, error) {
	found, err := x.find(rel)
	if err != nil {
		return nil, err
	}
	defer unix.Close(found)
	fd, err := unnoticed(found, unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), rel), nil
}

// find opens rel below base with O_PATH. Without O_DIRECTORY: that would mount
// what mounts itself (path_resolution in fs/namei.c, follow_automount).
func (x *survey) find(rel string) (int, error) {
	if rel == "" {
		rel = "."
	}
	fd, err := unix.Openat2(x.base, rel, &unix.OpenHow{Flags: unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS})
	if err != nil || rel == "." {
		return fd, err
	}
	a, err := statx.At(fd, "")
	if err == nil && (a.Mount != x.home.Mount || a.Dev != x.home.Dev) && diskOf(fd) != diskPlain {
		err = syscall.EXDEV
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// tell says what is in p, and gives the directories there.
func (x *survey) tell(p *place) (below []string, err error) {
	if p.rel == "" && x.m.Listed {
		below, _, err = x.send(p, func(*protocol.Entries) error { return nil })
		return below, err
	}
	end := &protocol.Entries{Dir: p.rel, End: protocol.EndPart}
	if p.told {
		whole := false
		if below, whole, err = x.send(p, x.say); err != nil {
			return nil, err
		}
		if whole {
			end.End, end.Attr = protocol.EndWhole, *p.before
		}
	}
	return below, x.say(end)
}

// send gives the entries of p to use, about batchBytes at a time. whole: nobody
// has changed p meanwhile, and nothing of it is unknown.
func (x *survey) send(p *place, use func(*protocol.Entries) error) (below []string, whole bool, err error) {
	whole = true
	for names := p.names; len(names) > 0; {
		batch := &protocol.Entries{Dir: p.rel}
		err := x.do(func() error {
			dir, err := x.dir(p.rel)
			if err != nil {
				return err
			}
			defer dir.Close()
			size := 0
			for ; len(names) > 0 && size < batchBytes; names = names[1:] {
				e := protocol.Entry{Name: names[0]}
				a, err := lstatAt(int(dir.Fd()), e.Name)
				if errors.Is(err, syscall.ENOENT) {
					whole = false
					continue
				}
				if err != nil {
					whole = false
					a = &protocol.Attr{}
				}
				e.Attr = *a
				batch.List = append(batch.List, e)
				size += len(e.Name) + len(a.Link) + perName
			}
			if p.rel != "" || !x.m.Listed {
				x.left -= size
			}
			if len(names) == 0 {
				whole = whole && unchanged(int(dir.Fd()), p.before)
			}
			return nil
		})
		switch {
		case errors.Is(err, errFull):
			return below, false, err
		case err != nil: // it is gone, or not to be read
			return below, false, nil
		}
		x.note(p.rel, batch.List, &below)
		if err := use(batch); err != nil {
			return below, false, err
		}
		if x.left <= 0 {
			return below, false, errFull
		}
	}
	if len(p.names) == 0 {
		err = x.do(func() error {
			dir, err := x.dir(p.rel)
			if err != nil {
				whole = false
				return nil
			}
			defer dir.Close()
			whole = unchanged(int(dir.Fd()), p.before)
			return nil
		})
	}
	return below, whole, err
}

// note keeps what may be told of later.
func (x *survey) note(dir string, list []protocol.Entry, below *[]string) {
	for _, e := range list {
		switch {
		case e.Attr.Mode&unix.S_IFMT == unix.S_IFDIR && len(*below) < maxPlaces:
			*below = append(*below, path.Join(dir, e.Name))
		case e.Attr.Mode&unix.S_IFMT == unix.S_IFREG && e.Attr.Size <= smallContent:
			x.files = append(x.files, small{dir, e.Name, e.Attr.Size})
		}
	}
}

// contents says the contents of small files, the first ones as far as there is
// room.
func (x *survey) contents(limit uint64) error {
	for files := x.files; len(files) > 0; {
		batch := &protocol.Entries{Dir: files[0].dir}
		err := x.do(func() error {
			size := 0
			for ; len(files) > 0 && files[0].dir == batch.Dir && size < batchBytes; files = files[1:] {
				room := min(limit, uint64(max(x.left-perName, 0)))
				if files[0].size > room {
					return errFull
				}
				e, ok := x.withContent(files[0], room)
				if !ok {
					continue
				}
				batch.List = append(batch.List, e)
				n := len(e.Name) + len(e.Attr.Data) + perName
				size += n
				x.left -= n
			}
			return nil
		})
		if len(batch.List) > 0 {
			if err := x.say(batch); err != nil {
				return err
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// withContent gives a file with its content of at most limit bytes; without, if
// it has more.
func (x *survey) withContent(f small, limit uint64) (e protocol.Entry, ok bool) {
	if f.name == "" || f.name == "." || f.name == ".." || strings.ContainsAny(f.name, "/\x00") {
		return e, false
	}
	fd, err := x.find(path.Join(f.dir, f.name))
	if err != nil {
		return e, false
	}
	defer unix.Close(fd)
	a, err := statx.At(fd, "")
	if err != nil || a.Mode&unix.S_IFMT != unix.S_IFREG {
		return e, false
	}
	if a.Size <= limit {
		if open, err := unnoticed(fd, 0); err == nil {
			defer unix.Close(open)
			addContentOf(open, a, limit)
		}
	}
	return protocol.Entry{Name: f.name, Attr: *a}, true
}

// unnoticed opens what an O_PATH descriptor stands for to be read, without a
// trace in its times if the target's process may do that (O_NOATIME, open(2)):
// nobody has asked for it yet.
func unnoticed(path, flags int) (int, error) {
	fd, err := reopen(path, unix.O_RDONLY|unix.O_NOATIME|flags)
	if errors.Is(err, unix.EPERM) {
		return reopen(path, unix.O_RDONLY|flags)
	}
	return fd, err
}
