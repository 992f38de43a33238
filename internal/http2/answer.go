package http2

import (
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/net/http2/hpack"
)

// This file is about answers in place of a server.

// unavailable is gRPC's status for a server that is not there; clients may try
// again.
const unavailable = "14"

// answer gives s a reply of ours, in the terms of gRPC if it is a call. mu is held.
func (h *Hop) answer(s *stream, code, text string) {
	s.request.drop()
	s.reply.ended = true
	switch {
	case s.calls:
		head := []hpack.HeaderField{{Name: ":status", Value: "200"}, {Name: "content-type", Value: "application/grpc"}}
		s.reply.put(part{end: true, fields: append(head, callEnd(text)...)})
	default:
		s.reply.put(part{end: s.isHead, fields: []hpack.HeaderField{{Name: ":status", Value: code}, {Name: "content-type", Value: "text/plain; charset=utf-8"},
			{Name: "content-length", Value: strconv.Itoa(len(text))}}})
		if !s.isHead {
			s.reply.put(part{data: []byte(text), ours: true, end: true})
		}
	}
	s.upload()
}

// callEnd is how gRPC ends a call that has no server any more.
func callEnd(text string) []hpack.HeaderField {
	return []hpack.HeaderField{{Name: "grpc-status", Value: unavailable}, {Name: "grpc-message", Value: percent(strings.TrimSpace(text))}}
}

// upload ends what the client still sends: nobody wants it (RFC 9113 §8.1).
func (s *stream) upload() {
	if !s.request.ended {
		s.reply.put(part{reset: true, code: NoError})
	}
}

// percent writes text as gRPC has it in a header (gRPC over HTTP/2, Status-Message).
func percent(text string) string {
	var b strings.Builder
	for i := range len(text) {
		if c := text[i]; c < ' ' || c > '~' || c == '%' {
			fmt.Fprintf(&b, "%%%02X", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}
