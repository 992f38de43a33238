package files

import (
	"context"
	"errors"
	"path"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mirrord-go/mirrord/internal/link"
	"github.com/mirrord-go/mirrord/internal/protocol"
)

// Surveys. A program that looks up a directory mostly goes on to what is in it,
// one round trip for each name. So a question about a path that is not known
// goes together with one for what is likely to be asked next, whose answer no
// other answer waits for; and a question that this answer may bring is asked
// itself only when it does not come at once.
//
// What came so and is not used is bounded: see thrift.

const (
	// surveyBytes bounds what one survey brings, in bytes: 1,000 names with
	// attributes. firstSurvey bounds the first one of a directory, of which it is
	// not known whether it will be of use, a half of it contents: less than 10 ms
	// of a link of 100 Mbit/s.
	surveyBytes = 192 << 10
	firstSurvey = 96 << 10
	// leastSurvey is what is worth asking for, in bytes.
	leastSurvey = 8 << 10
	// nameBytes is what a name with its attributes takes on the wire, in bytes,
	// rather more than less.
	nameBytes = 160
	// surveyDepth is how many levels below a directory are surveyed.
	surveyDepth = 4
	// surveyTime bounds a survey that does not end.
	surveyTime = 10 * time.Second
	// maxSurveys bounds those that are under way.
	maxSurveys = 8
	// useful is how many questions the last survey of a directory must have saved
	// for the next to be asked for before it is clear that there is use for it. One
	// is enough where it brought no more than cheap names.
	useful = 2
	cheap  = 32
	// retry is how long a directory that could not be told of as a whole is not
	// surveyed again: it is too large, or changes all the time.
	retry = 10 * time.Second

	// maxSpare is how much may have come unasked and not been used, in bytes;
	// spareRate what becomes of it forgiven, in bytes a second; and worth what each
	// question that was saved makes up for besides the bytes it used.
	maxSpare  = 2 << 20
	spareRate = 64 << 10
	worth     = 16 << 10

	// longMoment bounds how long a question waits for an answer that may be about
	// to come unasked.
	longMoment = 25 * time.Millisecond
)

// thrift says how much may be asked for ahead. Who uses what comes gets more, up
// to maxSpare at a time; who does not gets spareRate.
type thrift struct {
	spent int // came, or was asked for, and was not used
	at    time.Time
}

// spare is how much there is.
func (t *thrift) spare() int {
	now := time.Now()
	if !t.at.IsZero() {
		t.give(int(min(now.Sub(t.at), time.Hour).Seconds() * spareRate))
	}
	t.at = now
	return maxSpare - t.spent
}

func (t *thrift) give(n int) { t.spent = max(0, t.spent-n) }

// habit is how the names in a directory are used.
type habit struct {
	surveyed time.Time // when a survey of it was asked for last
	part     time.Time // when one could not tell all names in it
	room     uint32    // with so many bytes
	saved    int       // questions since then
	names    int       // that came with it
	missed   time.Time // when a name in it was asked for last
	files    bool      // that was no directory

	// Contents: see follow.
	fetched, used int // bytes that came ahead, and of these were used
	opens         int
	all           bool // there are no more to be had
}

// inVain reports whether the last survey cost more than it saved.
func (h *habit) inVain() bool { return h.saved < useful && (h.saved == 0 || h.names > cheap) }

// asking is a survey under way.
type asking struct {
	*protocol.Survey
	root   *directory // at Path
	asked  time.Time
	budget int                  // bytes
	got    int                  // of these
	lists  map[string]*partList // by directory from Path
	files  map[string]*entry    // those of Names whose contents have not come
}

// partList is what of a directory was told until now.
type partList struct {
	names map[string]bool
	ended bool
	bad   bool // a name was left out
}

// below reports whether the survey is to tell of directory dir, and how it is
// called from its Path.
func (a *asking) below(dir string) (rel string, ok bool) {
	if dir == a.Path {
		return "", true
	}
	rel, ok = strings.CutPrefix(dir, strings.TrimSuffix(a.Path, "/")+"/")
	return rel, ok && uint32(strings.Count(rel, "/")) < a.Depth
}

// tells reports whether a survey under way is to tell the names in dir. mu is
// held.
func (r *remote) tells(dir string) bool {
	for _, a := range r.surveys {
		if rel, ok := a.below(dir); ok && a.files == nil && !a.lists[rel].hasEnded() {
			return true
		}
	}
	return false
}

func (l *partList) hasEnded() bool { return l != nil && l.ended }

// brings reports whether a survey under way may bring the content of p. mu is
// held.
func (r *remote) brings(p string) bool {
	dir, name := split(p)
	for _, a := range r.surveys {
		if a.files != nil && dir == a.Path && a.files[name] != nil {
			return true
		}
		if _, ok := a.below(dir); ok && a.files == nil && a.Content > 0 {
			return true
		}
	}
	return false
}

// foresee asks for what is likely to be asked for after p, which is not known.
func (r *remote) foresee(p string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.surveying() {
		return
	}
	dir, name := split(p)
	d := r.directory(dir)
	again := r.fresh(d.habit.missed)
	d.habit.missed = time.Now()
	// The names around it: one is asked for after another, or was the last time.
	if dir != "" && (again || d.habit.saved >= useful) && !r.tells(dir) {
		r.survey(d, &protocol.Survey{Path: dir, Bytes: surveyBytes})
	}
	// What is in it, if it is a directory.
	if e := d.names[name]; e == nil && !d.habit.files || e != nil && e.attr.Mode&unix.S_IFMT == unix.S_IFDIR {
		r.surveyOf(p, false)
	}
}

// foreseeList is foresee for a directory whose names are asked for now.
func (r *remote) foreseeList(p string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.surveying() {
		r.surveyOf(p, true)
	}
}

// surveying reports whether surveys make sense: what takes most of its life to
// come is too old then.
func (r *remote) surveying() bool { return r.life > 0 && !r.old && r.trip < r.life/2 }

// surveyOf asks for what is in p, unless that was in vain the last time. mu is
// held.
func (r *remote) surveyOf(p string, listed bool) {
	d := r.directory(p)
	if !d.habit.surveyed.IsZero() && d.habit.inVain() {
		return
	}
	m := &protocol.Survey{Path: p, Depth: surveyDepth, Listed: listed, Bytes: surveyBytes}
	if d.habit.surveyed.IsZero() { // otherwise what there was is here, or fetched when it is wanted
		m.Bytes, m.Content = firstSurvey, firstSurvey/2
	}
	r.survey(d, m)
}

// survey asks m about d, if that can be afforded. As many names as are known are
// expected again. mu is held.
func (r *remote) survey(d *directory, m *protocol.Survey) {
	for _, a := range r.surveys {
		if a.Path == m.Path && a.files == nil {
			return
		}
	}
	most := uint32(max(0, r.thrift.spare()/4))
	least := uint32(min(maxNamed, len(d.names)*nameBytes))
	if m.Listed {
		least = 0
	}
	m.Bytes = min(most, max(m.Bytes, least+m.Content))
	m.Content = min(m.Content, m.Bytes/2)
	if m.Bytes < max(leastSurvey, least) || !d.habit.part.IsZero() && time.Since(d.habit.part) < retry && m.Bytes <= d.habit.room {
		return
	}
	a := &asking{Survey: m, root: d, lists: map[string]*partList{}}
	if m.Listed {
		a.lists[""] = &partList{ended: true}
	}
	if r.begin(a) {
		d.habit.surveyed, d.habit.part, d.habit.saved, d.habit.names = a.asked, time.Time{}, 0, 0
	}
}

// begin asks a. mu is held.
func (r *remote) begin(a *asking) bool {
	a.budget = int(a.Bytes)
	if len(r.surveys) >= maxSurveys || r.ctx.Err() != nil || !r.memory.Take(a.budget) {
		return false
	}
	r.thrift.spent += a.budget
	a.asked = time.Now()
	r.surveys = append(r.surveys, a)
	r.wg.Go(func() { r.receive(a) })
	return true
}

// receive asks a and learns what comes, until its end.
func (r *remote) receive(a *asking) {
	defer r.ended(a)
	ctx, cancel := context.WithTimeout(r.ctx, surveyTime)
	defer cancel()
	s, err := r.peer.Open(ctx, link.Bulk, a.Survey)
	if err != nil {
		return
	}
	defer s.Close()
	stop := context.AfterFunc(ctx, func() { _ = s.Reset(syscall.ECANCELED) })
	defer stop()
	for {
		m, err := s.Receive()
		if err != nil {
			var reset *link.ResetError
			if errors.As(err, &reset) && errors.Is(err, syscall.ENOSYS) {
				r.mu.Lock()
				r.old = true // an agent that does not know the question
				r.mu.Unlock()
			}
			return
		}
		part, ok := m.(*protocol.Entries)
		if !ok || !r.take(a, part) {
			return
		}
	}
}

// ended ends a: whoever waits for it asks.
func (r *remote) ended(a *asking) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range r.surveys {
		if r.surveys[i] == a {
			r.surveys = append(r.surveys[:i], r.surveys[i+1:]...)
			break
		}
	}
	for _, e := range a.files {
		e.coming, e.barren = false, true
		a.root.habit.fetched -= contentCost(e.attr.Size)
	}
	r.memory.Give(a.budget)
	r.thrift.give(a.budget - a.got)
	r.arrive()
}

// arrive wakes who waits for something to come unasked. mu is held.
func (r *remote) arrive() {
	close(r.arrived)
	r.arrived = make(chan struct{})
}

// take learns a part of the answer to a. It reports whether that is one: an
// agent that says anything about other places, or much more than was asked for,
// is not listened to.
func (r *remote) take(a *asking, part *protocol.Entries) bool {
	dir, ok := a.dir(part.Dir)
	if !ok {
		return false
	}
	a.got += 64 + len(part.Dir)
	for i := range part.List {
		e := &part.List[i]
		a.got += entryCost/2 + len(e.Name) + len(e.Attr.Link) + len(e.Attr.Data)
		if e.Attr.HasData && (len(e.Attr.Data) > prefetch || uint64(len(e.Attr.Data)) != e.Attr.Size) {
			return false
		}
	}
	if a.got > 4*a.budget {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	defer r.arrive()
	l := a.lists[part.Dir]
	if l == nil {
		l = &partList{names: map[string]bool{}}
		a.lists[part.Dir] = l
	}
	d := r.directory(dir)
	if a.files == nil {
		a.root.habit.names += len(part.List)
	}
	stale := r.stale(dir, a.asked)
	for i := range part.List {
		r.takeEntry(a, l, d, &part.List[i], stale)
	}
	if part.End == 0 || l.ended || a.files != nil {
		return true
	}
	l.ended = true
	switch {
	case part.End == protocol.EndWhole && !l.bad && !stale:
		own := part.Attr
		own.Data = nil
		r.settleNames(d, l.names, &own, a.asked, a.asked, a.root)
	case part.Dir == "":
		d.habit.part, d.habit.room = time.Now(), a.Bytes
	}
	l.names = nil
	return true
}

// dir is the directory that the agent calls rel; false: it was not asked about.
func (a *asking) dir(rel string) (p string, ok bool) {
	if rel == "" {
		return a.Path, true
	}
	for name := range strings.SplitSeq(rel, "/") {
		if !validName(name) {
			return "", false
		}
	}
	p = path.Join(a.Path, rel)
	_, ok = a.below(p)
	return p, ok && a.files == nil
}

// takeEntry learns what the answer to a says of a name in d. mu is held.
func (r *remote) takeEntry(a *asking, l *partList, d *directory, e *protocol.Entry, stale bool) {
	asked := a.files[e.Name] // nil unless it was asked for by name
	if !validName(e.Name) || a.files != nil && asked == nil {
		l.bad = true
		return
	}
	if asked != nil && e.Attr.HasData {
		asked.coming = false
		delete(a.files, e.Name)
	}
	if !l.ended && a.files == nil {
		l.names[e.Name] = true
	}
	if stale {
		return
	}
	if e.Attr.HasData && a.files == nil {
		d.habit.fetched += contentCost(e.Attr.Size)
	}
	r.put(d, e.Name, &e.Attr, a.asked, a.asked, a.root)
}

// saved counts a question that was saved by a survey of d. mu is held.
func (r *remote) saved(d *directory) {
	d.habit.saved++
	r.thrift.give(worth)
}

// use counts e as used: by a question that need not be asked. mu is held.
func (r *remote) use(e *entry) {
	if e.by != nil {
		r.saved(e.by)
		e.by = nil
	}
}

// expected is an answer that may come unasked.
type expected[T any] struct {
	may   func() bool      // whether it may; called with the lock
	found func() (T, bool) // gives it when it is there
	alone func()           // asks ahead, when the question is asked and nothing was on its way
	ask   func(ctx context.Context) (T, error)
	drop  func(T) // undoes ask; nil: there is nothing to undo
}

// soon gives an answer that is here, or on its way unasked or, when it does not
// come at once, whichever comes first, that or the answer to the question. So
// nobody waits longer than a moment more than for the question alone.
func soon[T any](ctx context.Context, r *remote, c expected[T]) (T, error) {
	type answer struct {
		v   T
		err error
	}
	var answers chan answer
	var moment <-chan time.Time
	for first := true; ; first = false {
		r.mu.Lock()
		may, arrived := c.may(), r.arrived // before it is looked for: it may come in between
		r.mu.Unlock()
		if v, ok := c.found(); ok {
			if answers != nil && c.drop != nil {
				late := func() {
					if a := <-answers; a.err == nil {
						c.drop(a.v)
					}
				}
				if !r.run(late) {
					late()
				}
			}
			return v, nil
		}
		if !may && answers == nil {
			if first {
				c.alone()
			}
			return c.ask(ctx)
		}
		if answers != nil { // whose question heeds ctx
			select {
			case <-arrived:
				continue
			case a := <-answers:
				return a.v, a.err
			}
		}
		if first {
			moment = time.After(r.moment())
		}
		select {
		case <-arrived:
			continue
		case <-moment:
		case <-ctx.Done():
		}
		answers = make(chan answer, 1)
		if !r.run(func() {
			v, err := c.ask(ctx)
			answers <- answer{v, err}
		}) {
			return c.ask(ctx)
		}
	}
}

// moment is how long an answer that is on its way unasked is waited for before
// the question is asked: a small part of what that takes.
func (r *remote) moment() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	return min(r.trip/4, longMoment)
}

// timed notes how long a small question took: the least of late.
func (r *remote) timed(took time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.trip == 0 || took < r.trip {
		r.trip = took
	} else {
		r.trip += (took - r.trip) / 16
	}
}
