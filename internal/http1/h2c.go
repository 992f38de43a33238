package http1

import (
	"encoding/base64"
	"slices"
	"strings"
)

// This file is about a client's offer to go on in HTTP/2 on the same connection
// (RFC 7540 §3.2; RFC 9113 has dropped it, clients have not). It is the offer of one
// hop, made in three fields: "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c",
// and "HTTP2-Settings", which says what the client's end of HTTP/2 is like.

// settingsField is that of the client's settings.
const settingsField = "HTTP2-Settings"

// words are those of a list, without the white space around them.
func words(list string) []string {
	all := strings.Split(list, ",")
	for i, w := range all {
		all[i] = strings.Trim(w, " \t")
	}
	return all
}

func isH2C(word string) bool { return strings.EqualFold(word, "h2c") }

// Settings is the payload of the SETTINGS that come with an offer; false: there is
// none, or not one, and no server may take the offer (RFC 7540 §3.2.1).
func (q *Request) Settings() ([]byte, bool) {
	var values []string
	for name, value := range q.Headers() {
		if strings.EqualFold(name, settingsField) {
			values = append(values, value)
		}
	}
	if !q.Offers || len(values) != 1 {
		return nil, false
	}
	b, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(values[0], "="))
	return b, err == nil
}

// Adopt has Forward pass the offer on with other settings: those of who speaks HTTP/2
// with the server if that takes it.
func (q *Request) Adopt(settings []byte) {
	q.edit(func(name, line string) string {
		if strings.EqualFold(name, settingsField) {
			return name + ": " + base64.RawURLEncoding.EncodeToString(settings) + "\r\n"
		}
		return line
	})
}

// Decline has Forward leave the offer out. What else the client offers stays.
func (q *Request) Decline() {
	q.Upgrades = q.Method == "CONNECT"
	q.edit(func(name, line string) string {
		if !strings.EqualFold(name, "Upgrade") {
			return line
		}
		var all []string
		_ = eachField(line+"\r\n", func(f field) bool {
			all = words(f.unfolded())
			return true
		})
		rest := slices.DeleteFunc(slices.Clone(all), isH2C)
		switch {
		case len(rest) == 0:
			return ""
		case len(rest) < len(all):
			line = name + ": " + strings.Join(rest, ", ") + "\r\n"
		}
		q.Upgrades = true
		return line
	})
	q.Offers = false
}

// edit changes what is forwarded in place of the head, a field's line at a time.
func (q *Request) edit(change func(name, line string) string) {
	b := []byte(q.text[:q.fields])
	for rest := q.text[q.fields:]; rest != "\r\n"; {
		end, _ := fieldEnd(rest)
		name, _, _ := strings.Cut(rest, ":")
		b = append(b, change(name, rest[:end+2])...)
		rest = rest[end+2:]
	}
	q.instead = append(b, "\r\n"...)
}
