package protocol

// WriteAt writes Data at offset Off of a handle; at the end of the file if that
// was opened with O_APPEND and this is not InPlace. The reply is an Answer: all of it is written, or
// the errno of what is not.
//
// WriteAt, Resize, Allocate and SyncHandle may be sent one after the other on one stream
// without waiting. They are done and answered in this order; after one that
// failed the stream does nothing more and gives every other the same errno.
type WriteAt struct {
	Handle  uint64
	Off     int64
	Data    []byte // at most MaxData
	InPlace bool   // it is of a page that a program has mapped
}

// Resize sets the length of a handle's file in bytes. The reply is an Answer.
type Resize struct{ Handle, Size uint64 }

// SyncHandle is fsync(2). The reply is an Answer.
type SyncHandle struct{ Handle uint64 }

// Make makes a name: by Mode's type a directory, a symbolic link with the text
// Text, a FIFO, a socket's name or an empty file; or, if Old is set, another
// name for that file, or if Handle is set for what that has open. It fails where
// the name is taken. The target's umask applies. The reply is Attr.
type Make struct {
	Path   string
	Mode   uint32 // st_mode
	Text   string
	Old    string
	Handle uint64
}

// Remove removes a name: of an empty directory if Dir is set, of anything else
// if not. The reply is an Answer.
type Remove struct {
	Path string
	Dir  bool
}

// Rename is renameat2(2) with its flags. The reply is an Answer.
type Rename struct {
	Old, New string
	Flags    uint32
}

// Bits of SetAttr.What.
const (
	SetMode uint32 = 1 << iota
	SetSize
	SetAtime
	SetMtime
	SetAtimeNow // by the target's clock, in place of Atime
	SetMtimeNow
	SetUID
	SetGID
)

// SetAttr changes attributes of what is at a path, a symbolic link's own if it
// is one; or of what a handle has open, if that is set. The reply is Attr.
type SetAttr struct {
	Path         string
	What         uint32
	Mode         uint32 // permissions
	Size         uint64 // of a regular file
	Atime, Mtime int64  // nanoseconds since 1970
	Handle       uint64
	UID, GID     uint32 // the target's
}

func (*WriteAt) Kind() Kind    { return KindWriteAt }
func (*Resize) Kind() Kind     { return KindResize }
func (*SyncHandle) Kind() Kind { return KindSyncHandle }
func (*Make) Kind() Kind       { return KindMake }
func (*Remove) Kind() Kind     { return KindRemove }
func (*Rename) Kind() Kind     { return KindRename }
func (*SetAttr) Kind() Kind    { return KindSetAttr }

func (m *WriteAt) fields(c *codec) {
	number(c, 1, &m.Handle)
	number(c, 2, &m.Off)
	c.blob(3, &m.Data)
	c.boolean(4, &m.InPlace)
}

func (m *Resize) fields(c *codec) {
	number(c, 1, &m.Handle)
	number(c, 2, &m.Size)
}

func (m *SyncHandle) fields(c *codec) { number(c, 1, &m.Handle) }

func (m *Make) fields(c *codec) {
	c.text(1, &m.Path)
	number(c, 2, &m.Mode)
	c.text(3, &m.Text)
	c.text(4, &m.Old)
	number(c, 5, &m.Handle)
}

func (m *Remove) fields(c *codec) {
	c.text(1, &m.Path)
	c.boolean(2, &m.Dir)
}

func (m *Rename) fields(c *codec) {
	c.text(1, &m.Old)
	c.text(2, &m.New)
	number(c, 3, &m.Flags)
}

func (m *SetAttr) fields(c *codec) {
	c.text(1, &m.Path)
	number(c, 2, &m.What)
	number(c, 3, &m.Mode)
	number(c, 4, &m.Size)
	number(c, 5, &m.Atime)
	number(c, 6, &m.Mtime)
	number(c, 7, &m.Handle)
	number(c, 8, &m.UID)
	number(c, 9, &m.GID)
}
