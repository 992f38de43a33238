package http2

import "golang.org/x/net/http2/hpack"

// This file is about header blocks as they come (RFC 9113 §4.3, §6.10).

// list is a header block, decoded.
type list struct {
	fields []hpack.HeaderField
	size   int
	long   bool // more than maxList: there are no fields
	isHead bool // a request for HEAD
}

// blocks puts together what somebody says in header blocks.
type blocks struct {
	decode *hpack.Decoder
	list   list   // that is being decoded
	open   bool   // a header block has come in part
	block  []byte // that part
	pieces int    // frames of it
	at     uint32 // the stream of the block
	ends   bool   // END_STREAM came with it
}

// field takes one of a block that is being decoded.
func (p *blocks) field(f hpack.HeaderField) {
	p.list.isHead = p.list.isHead || f.Name == ":method" && f.Value == "HEAD"
	if p.list.size += int(f.Size()); p.list.size > maxList {
		p.list.long, p.list.fields = true, nil
		p.decode.SetEmitEnabled(false) // it is only kept in step
		return
	}
	p.list.fields = append(p.list.fields, f)
}

// interrupted reports whether f comes where only more of a header block may.
func (p *blocks) interrupted(f frame) error {
	if p.open && (f.kind != kindContinuation || f.stream != p.at) {
		return wrong(ProtocolError, "a header block is interrupted")
	}
	return nil
}

// fragment takes HEADERS or CONTINUATION; whole: the block is, of stream p.at.
func (p *blocks) fragment(f frame) (l list, whole bool, err error) {
	var b []byte
	if f.kind == kindHeaders {
		b, whole, err = p.headers(f)
	} else {
		b, whole, err = p.continuation(f)
	}
	if err == nil && whole {
		l, err = p.whole(b)
	}
	return l, whole && err == nil, err
}

// headers takes the beginning of a header block.
func (p *blocks) headers(f frame) (b []byte, whole bool, err error) {
	b, err = f.unpadded()
	switch {
	case f.stream == 0:
		return nil, false, wrong(ProtocolError, "HEADERS of no stream")
	case err != nil:
		return nil, false, err
	case f.has(flagPriority) && len(b) < 5:
		return nil, false, wrong(FrameSizeError, "HEADERS are too short")
	case f.has(flagPriority):
		b = b[5:]
	}
	p.at, p.ends = f.stream, f.has(flagEnd)
	if f.has(flagEndHeaders) {
		return b, true, nil
	}
	p.open, p.block, p.pieces = true, append(p.block[:0], b...), 1
	return nil, false, nil
}

func (p *blocks) continuation(f frame) (b []byte, whole bool, err error) {
	if !p.open {
		return nil, false, wrong(ProtocolError, "CONTINUATION of no header block")
	}
	p.block = append(p.block, f.payload...)
	if p.pieces++; p.pieces > maxPieces || len(p.block) > maxBlock {
		return nil, false, wrong(EnhanceYourCalm, "a header block is too long")
	}
	if !f.has(flagEndHeaders) {
		return nil, false, nil
	}
	b = p.block
	p.open, p.block = false, nil
	return b, true, nil
}

// whole decodes a whole header block.
func (p *blocks) whole(block []byte) (list, error) {
	p.list = list{}
	p.decode.SetEmitEnabled(true)
	_, err := p.decode.Write(block)
	if err == nil {
		err = p.decode.Close()
	}
	l := p.list
	p.list = list{}
	if err != nil {
		return list{}, wrong(CompressionError, err.Error())
	}
	return l, nil
}
