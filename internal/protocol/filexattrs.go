package protocol

// MaxXattr bounds the value of an extended attribute and the list of names, in
// bytes: XATTR_SIZE_MAX and XATTR_LIST_MAX of linux/limits.h.
const MaxXattr = 64 << 10

// Extended attributes are those of the file at a path, not followed, and of the
// name space "user." only: the others mean something to the target's kernel, and
// nothing or something else to the one here.

// GetXattr asks for the value of one. The reply is Data.
type GetXattr struct{ Path, Name string }

// ListXattr asks for their names. The reply is Data, each name with a 0 behind
// it, as from listxattr(2).
type ListXattr struct{ Path string }

// SetXattr sets one. The reply is an Answer.
type SetXattr struct {
	Path, Name string
	Value      []byte
	Flags      uint32 // of setxattr(2): XATTR_CREATE, XATTR_REPLACE
}

// RemoveXattr removes one. The reply is an Answer.
type RemoveXattr struct{ Path, Name string }

func (*GetXattr) Kind() Kind    { return KindGetXattr }
func (*ListXattr) Kind() Kind   { return KindListXattr }
func (*SetXattr) Kind() Kind    { return KindSetXattr }
func (*RemoveXattr) Kind() Kind { return KindRemoveXattr }

func (m *GetXattr) fields(c *codec) {
	c.text(1, &m.Path)
	c.text(2, &m.Name)
}

func (m *ListXattr) fields(c *codec) { c.text(1, &m.Path) }

func (m *SetXattr) fields(c *codec) {
	c.text(1, &m.Path)
	c.text(2, &m.Name)
	c.blob(3, &m.Value)
	number(c, 4, &m.Flags)
}

func (m *RemoveXattr) fields(c *codec) {
	c.text(1, &m.Path)
	c.text(2, &m.Name)
}
