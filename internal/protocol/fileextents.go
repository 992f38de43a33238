package protocol

// Allocate is fallocate(2) of a handle with its mode. It is one of the changes
// that follow each other on a stream (see WriteAt). The reply is an Answer.
type Allocate struct {
	Handle   uint64
	Off, Len uint64 // bytes
	Mode     uint32
}

// Seek asks for the next data (SEEK_DATA) or hole (SEEK_HOLE) of a handle from
// offset Off on, lseek(2). The reply is Position.
type Seek struct {
	Handle uint64
	Off    int64
	Whence uint32
}

// Position answers Seek with an offset in bytes, and CopyRange with a number of
// bytes.
type Position struct{ Off int64 }

// CopyRange copies up to Len bytes within the target, copy_file_range(2). The
// reply is Position: fewer were copied at the end of the source only, or where a
// single call of the target's kernel ended.
type CopyRange struct {
	From, To       uint64 // handles
	FromOff, ToOff int64
	Len            uint64
}

func (*Allocate) Kind() Kind  { return KindAllocate }
func (*Seek) Kind() Kind      { return KindSeek }
func (*Position) Kind() Kind  { return KindPosition }
func (*CopyRange) Kind() Kind { return KindCopyRange }

func (m *Allocate) fields(c *codec) {
	number(c, 1, &m.Handle)
	number(c, 2, &m.Off)
	number(c, 3, &m.Len)
	number(c, 4, &m.Mode)
}

func (m *Seek) fields(c *codec) {
	number(c, 1, &m.Handle)
	number(c, 2, &m.Off)
	number(c, 3, &m.Whence)
}

func (m *Position) fields(c *codec) { number(c, 1, &m.Off) }

func (m *CopyRange) fields(c *codec) {
	number(c, 1, &m.From)
	number(c, 2, &m.To)
	number(c, 3, &m.FromOff)
	number(c, 4, &m.ToOff)
	number(c, 5, &m.Len)
}
