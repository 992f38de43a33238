package protocol_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/mirrord-go/mirrord/internal/protocol"
	"github.com/mirrord-go/mirrord/internal/protocol/protocoltest"
)

var update = flag.Bool("update", false, "write the golden files anew")

const vectorFile = "../../docs/protocol-vectors.txt"

// TestVectors holds the encoding to the published bytes: a change here is a
// change of the protocol.
func TestVectors(t *testing.T) {
	var got strings.Builder
	got.WriteString("# One example of every message: name, then its bytes in hexadecimal.\n# See protocol-messages.md. Written by: go test ./internal/protocol -update\n")
	for _, v := range protocoltest.Vectors() {
		fmt.Fprintf(&got, "%s\n\t%x\n", v.Name, protocol.Append(nil, v.Message))
	}
	if *update {
		if err := os.WriteFile(vectorFile, []byte(got.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(vectorFile)
	if err != nil {
		t.Fatal(err)
	}
	if got.String() != string(want) {
		t.Errorf("the encoding of messages has changed:\ngot\n%s\nwant\n%s", got.String(), want)
	}
}

func TestRoundTrip(t *testing.T) {
	for _, v := range protocoltest.Vectors() {
		t.Run(v.Name, func(t *testing.T) {
			b := protocol.Append(nil, v.Message)
			got, err := protocol.Read(iotest.OneByteReader(bytes.NewReader(b)))
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, v.Message) {
				t.Errorf("read %+v, want %+v", got, v.Message)
			}
			if got, err = protocol.Parse(b); err != nil || !reflect.DeepEqual(got, v.Message) {
				t.Errorf("parsed %+v, %v, want %+v", got, err, v.Message)
			}
		})
	}
}

// TestEveryKindHasAVector finds the kinds by trying all numbers of one byte.
func TestEveryKindHasAVector(t *testing.T) {
	seen := map[protocol.Kind]bool{}
	for _, v := range protocoltest.Vectors() {
		seen[v.Message.Kind()] = true
	}
	for k := range 128 {
		if m, err := protocol.Parse([]byte{byte(k), 0}); err == nil && !seen[m.Kind()] {
			t.Errorf("kind %d (%T) has no vector", m.Kind(), m)
		}
	}
}

func TestReadLeavesWhatFollows(t *testing.T) {
	b := protocol.Append(nil, &protocol.Readlink{Path: "/x"})
	r := bytes.NewReader(append(b, "rest"...))
	if _, err := protocol.Read(r); err != nil {
		t.Fatal(err)
	}
	if rest, _ := io.ReadAll(r); string(rest) != "rest" {
		t.Errorf("left %q, want %q", rest, "rest")
	}
}

func TestNewerPeer(t *testing.T) {
	t.Run("unknown fields are skipped", func(t *testing.T) {
		// Readlink{Path: "/x"}, then a varint, fixed64, bytes and fixed32 of number 31.
		body := []byte{0x0a, 2, '/', 'x', 0xf8, 1, 5, 0xf9, 1, 1, 2, 3, 4, 5, 6, 7, 8, 0xfa, 1, 1, 'z', 0xfd, 1, 1, 2, 3, 4}
		m, err := protocol.Parse(append([]byte{byte(protocol.KindReadlink), byte(len(body))}, body...))
		if err != nil {
			t.Fatal(err)
		}
		if got := m.(*protocol.Readlink).Path; got != "/x" {
			t.Errorf("path is %q, want /x", got)
		}
	})
	t.Run("an unknown kind leaves the stream intact", func(t *testing.T) {
		r := bytes.NewReader(append([]byte{0xff, 0x3f, 3, 1, 2, 3}, protocol.Append(nil, &protocol.EnvRequest{})...))
		_, err := protocol.Read(r)
		var unknown *protocol.UnknownKindError
		if !errors.As(err, &unknown) || unknown.Kind != 0x1fff {
			t.Fatalf("got %v, want an unknown kind 8191", err)
		}
		if m, err := protocol.Read(r); err != nil || m.Kind() != protocol.KindEnvRequest {
			t.Errorf("then got %v, %v, want EnvRequest", m, err)
		}
	})
}

func TestMalformed(t *testing.T) {
	for name, b := range map[string][]byte{
		"cut in the kind":           {0x80},
		"cut in the length":         {1, 0x80},
		"cut in the body":           {1, 2, 8},
		"too long":                  {1, 0xff, 0xff, 0xff, 0x7f},
		"bytes longer than body":    {byte(protocol.KindReadlink), 2, 0x0a, 9},
		"varint where text belongs": {byte(protocol.KindReadlink), 2, 0x08, 1},
		"group wire type":           {byte(protocol.KindReadlink), 1, 0x0b},
		"port that does not fit":    {byte(protocol.KindSubscribe), 4, 0x08, 0x80, 0x80, 4},
		"address of 5 bytes":        {byte(protocol.KindDial), 7, 0x12, 5, 1, 2, 3, 4, 5},
		"prefix length 33":          {byte(protocol.KindWelcome), 7, 0x22, 5, 10, 0, 0, 1, 33},
	} {
		t.Run(name, func(t *testing.T) {
			if m, err := protocol.Read(bytes.NewReader(b)); err == nil {
				t.Errorf("read %#v, want an error", m)
			} else if errors.Is(err, io.EOF) {
				t.Errorf("got %v: io.EOF is for the end between messages", err)
			}
		})
	}
	if _, err := protocol.Read(bytes.NewReader(nil)); err != io.EOF {
		t.Errorf("at the end: got %v, want io.EOF", err)
	}
}

func TestAnswerErr(t *testing.T) {
	if err := (&protocol.Answer{}).Err(); err != nil {
		t.Errorf("yes is %v, want nil", err)
	}
	for _, v := range protocoltest.Vectors() {
		a, ok := v.Message.(*protocol.Answer)
		if !ok || a.Errno == 0 {
			continue
		}
		if err := a.Err(); !errors.Is(err, a.Errno) {
			t.Errorf("%s: %v does not wrap %v", v.Name, err, a.Errno)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, v := range protocoltest.Vectors() {
		f.Add(protocol.Append(nil, v.Message))
	}
	f.Add([]byte{1, 2, 0x0a, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := protocol.Parse(b)
		if err != nil {
			return
		}
		// What was understood survives a second trip unchanged.
		again, err := protocol.Parse(protocol.Append(nil, m))
		if err != nil {
			t.Fatalf("%s: written again: %v", hex.EncodeToString(b), err)
		}
		if x, y := protocol.Append(nil, m), protocol.Append(nil, again); !bytes.Equal(x, y) {
			t.Errorf("%x becomes %x, then %x", b, x, y)
		}
	})
}
