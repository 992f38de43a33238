package protocol

// Numbers of the kinds of the file flow.
const (
	KindStat Kind = 32 + iota
	KindAttr
	KindOpen
	KindOpened
	KindReadAt
	KindData
	KindCloseHandle
	KindReadDir
	KindEntries
	KindReadlink
	KindStatfs
	KindFsinfo
	KindWriteAt
	KindResize
	KindSyncHandle
	KindMake
	KindRemove
	KindRename
	KindSetAttr
	KindAllocate
	KindSeek
	KindPosition
	KindCopyRange
	KindGetXattr
	KindListXattr
	KindSetXattr
	KindRemoveXattr
	KindSurvey
)

// Paths in the file flow are absolute and clean, as bytes, below the target's
// root, where symbolic links resolve as in the target. All requests may be
// answered by an Answer with the errno of the target's kernel, as the target's
// process would have got it.

// Stat asks for a path's attributes. The reply is Attr.
type Stat struct {
	Path     string
	Follow   bool   // resolve a symbolic link at the end
	Prefetch uint32 // regular file no larger than this: send its content too
	Handle   uint64 // of an open file, in place of Path
}

// Attr is what statx(2) tells about a file.
type Attr struct {
	Ino, Size, Blocks, Dev, Rdev uint64
	Mode                         uint32 // st_mode: type and permissions
	Nlink, UID, GID, Blksize     uint32
	Atime, Mtime, Ctime, Btime   int64 // nanoseconds since 1970; Btime 0: unknown

	Data []byte // answer to Stat: the whole content, if HasData
	// HasData distinguishes an empty file's content from no content.
	HasData bool
	Link    string // symbolic link, not followed: where it points
	// Mount tells mounts of one file system apart: a directory that is seen
	// through two of them is at two places. 0: unknown.
	Mount uint64
	// Settled says, of a file's content, that whatever changes it later also
	// changes its times: they are older than the smallest step of its clock.
	Settled bool
}

// Open opens a path; the reply is Opened. Flags are Linux's O_ constants of
// the generic table (x86-64, arm64 differ only in O_DIRECTORY, O_NOFOLLOW,
// O_DIRECT and O_LARGEFILE: those of x86-64 are sent).
type Open struct {
	Path     string
	Flags    uint32
	Mode     uint32 // of a file that is created
	Prefetch uint32 // send up to this many bytes from the beginning with the reply
}

// Opened answers Open. The handle is valid until CloseHandle or the session's
// end.
type Opened struct {
	Handle uint64
	Attr   Attr
	Data   []byte // the first bytes, as asked by Prefetch
	EOF    bool   // Data ends where the file ended
}

// ReadAt asks for up to N bytes at offset Off of a handle. The reply is Data,
// empty at the end of the file.
type ReadAt struct {
	Handle uint64
	Off    int64
	N      uint32 // at most MaxData
}

// Data carries bytes: of a file, or where a symbolic link points.
type Data struct{ Bytes []byte }

// CloseHandle ends a handle. The reply is an Answer.
type CloseHandle struct{ Handle uint64 }

// ReadDir asks for a directory's entries. The reply is any number of Entries,
// then the end of the stream; an Answer in between is an error. "." and ".."
// are left out.
type ReadDir struct{ Path string }

// Survey asks for what is likely to be asked next: what is in the directory
// Path, and in the directories below it, the nearest first. The reply is any
// number of Entries, then the end of the stream. The agent leaves out what it
// cannot do at once, and what does not fit.
type Survey struct {
	Path    string
	Names   []string // at most MaxSurveyNames: only these regular files in Path, with their contents
	Bytes   uint32   // of the reply, about, at most MaxSurvey
	Content uint32   // of these, at most so many are contents of small files
	Depth   uint32   // how many levels of directories below Path
	// Listed says that the names in Path itself are asked for otherwise: they
	// are left out.
	Listed bool
}

// Bounds of a Survey.
const (
	MaxSurvey      = 1 << 20 // bytes
	MaxSurveyNames = 512
)

// Entries is a part of a directory's listing.
type Entries struct {
	List []Entry
	Dir  string // answer to Survey: which directory, from its Path; empty: that itself
	End  uint8  // no more names of this directory follow, but perhaps contents
	Attr Attr   // with EndWhole: of the directory itself, all the time that it was read
}

// End of Entries.
const (
	// EndWhole says that the names told are all that there are, and that nobody
	// changed them meanwhile.
	EndWhole uint8 = 1
	// EndPart says that there may be others.
	EndPart uint8 = 2
)

// Entry is one name in a directory, with the attributes of lstat(2).
type Entry struct {
	Name string
	Attr Attr
}

// Readlink asks where a symbolic link points. The reply is Data.
type Readlink struct{ Path string }

// Statfs asks for the file system a path is on. The reply is Fsinfo.
type Statfs struct{ Path string }

// Fsinfo is what statfs(2) tells.
type Fsinfo struct {
	Type, Bsize, Blocks, Bfree, Bavail, Files, Ffree, Namelen, Frsize, Flags uint64
}

func (*Stat) Kind() Kind        { return KindStat }
func (*Attr) Kind() Kind        { return KindAttr }
func (*Open) Kind() Kind        { return KindOpen }
func (*Opened) Kind() Kind      { return KindOpened }
func (*ReadAt) Kind() Kind      { return KindReadAt }
func (*Data) Kind() Kind        { return KindData }
func (*CloseHandle) Kind() Kind { return KindCloseHandle }
func (*ReadDir) Kind() Kind     { return KindReadDir }
func (*Survey) Kind() Kind      { return KindSurvey }
func (*Entries) Kind() Kind     { return KindEntries }
func (*Readlink) Kind() Kind    { return KindReadlink }
func (*Statfs) Kind() Kind      { return KindStatfs }
func (*Fsinfo) Kind() Kind      { return KindFsinfo }

func (m *Stat) fields(c *codec) {
	c.text(1, &m.Path)
	c.boolean(2, &m.Follow)
	number(c, 3, &m.Prefetch)
	number(c, 4, &m.Handle)
}

func (m *Attr) fields(c *codec) {
	number(c, 1, &m.Ino)
	number(c, 2, &m.Size)
	number(c, 3, &m.Blocks)
	number(c, 4, &m.Dev)
	number(c, 5, &m.Rdev)
	number(c, 6, &m.Mode)
	number(c, 7, &m.Nlink)
	number(c, 8, &m.UID)
	number(c, 9, &m.GID)
	number(c, 10, &m.Blksize)
	number(c, 11, &m.Atime)
	number(c, 12, &m.Mtime)
	number(c, 13, &m.Ctime)
	number(c, 14, &m.Btime)
	c.blob(15, &m.Data)
	c.boolean(16, &m.HasData)
	c.text(17, &m.Link)
	number(c, 18, &m.Mount)
	c.boolean(19, &m.Settled)
}

func (m *Open) fields(c *codec) {
	c.text(1, &m.Path)
	number(c, 2, &m.Flags)
	number(c, 3, &m.Mode)
	number(c, 4, &m.Prefetch)
}

func (m *Opened) fields(c *codec) {
	number(c, 1, &m.Handle)
	attr := []Attr{m.Attr}
	if c.reading {
		attr = nil
	}
	submessage(c, 2, &attr, (*Attr).fields)
	if c.reading && len(attr) > 0 {
		m.Attr = attr[0]
	}
	c.blob(3, &m.Data)
	c.boolean(4, &m.EOF)
}

func (m *ReadAt) fields(c *codec) {
	number(c, 1, &m.Handle)
	number(c, 2, &m.Off)
	number(c, 3, &m.N)
}

func (m *Data) fields(c *codec) { c.blob(1, &m.Bytes) }

func (m *CloseHandle) fields(c *codec) { number(c, 1, &m.Handle) }

func (m *ReadDir) fields(c *codec) { c.text(1, &m.Path) }

func (m *Survey) fields(c *codec) {
	c.text(1, &m.Path)
	c.texts(2, &m.Names)
	number(c, 3, &m.Bytes)
	number(c, 4, &m.Content)
	number(c, 5, &m.Depth)
	c.boolean(6, &m.Listed)
}

func (m *Entries) fields(c *codec) {
	submessage(c, 1, &m.List, func(e *Entry, c *codec) {
		c.text(1, &e.Name)
		attr := []Attr{e.Attr}
		if c.reading {
			attr = nil
		}
		submessage(c, 2, &attr, (*Attr).fields)
		if c.reading && len(attr) > 0 {
			e.Attr = attr[0]
		}
	})
	c.text(2, &m.Dir)
	number(c, 3, &m.End)
	if m.Attr.Mode == 0 && !c.reading {
		return
	}
	attr := []Attr{m.Attr}
	if c.reading {
		attr = nil
	}
	submessage(c, 4, &attr, (*Attr).fields)
	if c.reading && len(attr) > 0 {
		m.Attr = attr[0]
	}
}

func (m *Readlink) fields(c *codec) { c.text(1, &m.Path) }

func (m *Statfs) fields(c *codec) { c.text(1, &m.Path) }

func (m *Fsinfo) fields(c *codec) {
	number(c, 1, &m.Type)
	number(c, 2, &m.Bsize)
	number(c, 3, &m.Blocks)
	number(c, 4, &m.Bfree)
	number(c, 5, &m.Bavail)
	number(c, 6, &m.Files)
	number(c, 7, &m.Ffree)
	number(c, 8, &m.Namelen)
	number(c, 9, &m.Frsize)
	number(c, 10, &m.Flags)
}
