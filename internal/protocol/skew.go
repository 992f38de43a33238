package protocol

import (
	"encoding/json"
	"fmt"
)

// Versions are those that one end speaks, both included.
type Versions struct {
	Min uint32 `json:"min"`
	Max uint32 `json:"max"`
}

// Spoken gives the versions of the messages that this build speaks.
func Spoken() Versions { return Versions{MinVersion, Version} }

// Common is the version that the owners of v and o speak with each other: the
// lower of their newest. 0: there is none, and older says that v's owner is
// the one to update.
func (v Versions) Common(o Versions) (version uint32, older bool) {
	newest := min(v.Max, o.Max)
	if newest < v.Min || newest < o.Min {
		return 0, v.Max < o.Min
	}
	return newest, false
}

// String is "1", or "1 to 3".
func (v Versions) String() string {
	if v.Min == v.Max {
		return fmt.Sprint(v.Max)
	}
	return fmt.Sprintf("%d to %d", v.Min, v.Max)
}

// Announcement is the first line that an agent prints, as JSON. Whoever starts
// one reads it before anything is said on a link. Like messages it is only
// added to: a reader ignores members that it does not know.
type Announcement struct {
	Software string `json:"mirrord-agent"` // its version, for people
	Key      string `json:"key"`           // its public key, as text
	Port     int    `json:"port,omitempty"`
	// Messages are the versions of the messages that it speaks, Link that of
	// what carries them. An agent that does not say speaks 1.
	Messages Versions `json:"messages,omitzero"`
	Link     int      `json:"link,omitempty"`
	// Ignored are options that it was started with and does not know, without
	// their values.
	Ignored []string `json:"ignored,omitempty"`
}

// ParseAnnouncement reads a line; ok is false for one that is none.
func ParseAnnouncement(line []byte) (a Announcement, ok bool) {
	if json.Unmarshal(line, &a) != nil || a.Software == "" || a.Key == "" || a.Port < 0 || a.Port >= 1<<16 {
		return Announcement{}, false
	}
	if a.Messages == (Versions{}) {
		a.Messages = Versions{1, 1}
	}
	if a.Link == 0 {
		a.Link = 1
	}
	return a, true
}
