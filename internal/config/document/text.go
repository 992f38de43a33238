package document

import (
	"sort"
	"unicode/utf8"
)

// Text is a document's text, filled in, that remembers where each part of it
// stands in what the user wrote.
type Text struct {
	source, filled string
	spans          []span // sorted; empty if nothing was filled in
	sourceLines    []int  // offset of each line
	filledLines    []int
}

// span says that the text from offset filled on is the source from offset
// source on. A fixed one stands for a template: all of it is at one place.
type span struct {
	filled, source int
	fixed          bool
}

// Plain is a text with no templates in it.
func Plain(source string) *Text { return newText(source, source, nil) }

func newText(source, filled string, spans []span) *Text {
	return &Text{source, filled, spans, lines(source), lines(filled)}
}

// with gives the same text with other bytes at the same offsets.
func (t *Text) with(filled string) *Text {
	return &Text{t.source, filled, t.spans, t.sourceLines, t.filledLines}
}

func lines(s string) []int {
	starts := []int{0}
	for i := range len(s) {
		if s[i] == '\n' {
			starts = append(starts, i+1)
		}
	}
	return starts
}

// String is the text to parse.
func (t *Text) String() string { return t.filled }

// Place gives the place in the user's text of an offset in String.
func (t *Text) Place(offset int) Place {
	offset = min(max(offset, 0), len(t.filled))
	if i := sort.Search(len(t.spans), func(i int) bool { return t.spans[i].filled > offset }); i > 0 {
		s := t.spans[i-1]
		if offset = s.source + offset - s.filled; s.fixed {
			offset = s.source
		}
	}
	offset = min(offset, len(t.source))
	line := sort.SearchInts(t.sourceLines, offset+1) // the number of lines that begin at or before it
	return Place{line, 1 + utf8.RuneCountInString(t.source[t.sourceLines[line-1]:offset])}
}

// offset gives the offset in String of a line and a column, both from 1.
func (t *Text) offset(line, column int) int {
	if line < 1 {
		return 0
	}
	if line > len(t.filledLines) {
		return len(t.filled)
	}
	at := t.filledLines[line-1]
	for ; column > 1 && at < len(t.filled); column-- {
		_, size := utf8.DecodeRuneInString(t.filled[at:])
		at += size
	}
	return at
}
