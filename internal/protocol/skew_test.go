package protocol_test

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/mirrord-go/mirrord/internal/protocol"
)

func TestCommon(t *testing.T) {
	type versions = protocol.Versions
	for _, c := range []struct {
		a, b    versions
		version uint32
		older   bool // a is
	}{
		{versions{1, 1}, versions{1, 1}, 1, false},
		{versions{1, 2}, versions{2, 3}, 2, false},
		{versions{2, 3}, versions{1, 2}, 2, false},
		{versions{1, 5}, versions{2, 3}, 3, false},
		{versions{1, 1}, versions{2, 3}, 0, true},
		{versions{4, 5}, versions{2, 3}, 0, false},
		{versions{}, versions{1, 1}, 0, true},
		{versions{9, 2}, versions{1, 1}, 0, false}, // makes no sense
	} {
		if version, older := c.a.Common(c.b); version != c.version || older != c.older {
			t.Errorf("%v with %v: got %d, %v, want %d, %v", c.a, c.b, version, older, c.version, c.older)
		}
	}
}

func TestParseAnnouncement(t *testing.T) {
	one := protocol.Versions{Min: 1, Max: 1}
	for _, c := range []struct {
		line string
		want protocol.Announcement
	}{
		{`{"mirrord-agent":"1","key":"K"}`, protocol.Announcement{Software: "1", Key: "K", Messages: one, Link: 1}},
		{`{"mirrord-agent":"1","key":"K","port":7,"messages":{"min":2,"max":3},"link":2,"ignored":["x"],"new":{}}`,
			protocol.Announcement{Software: "1", Key: "K", Port: 7, Messages: protocol.Versions{Min: 2, Max: 3}, Link: 2, Ignored: []string{"x"}}},
		{`{"mirrord-agent":"1"}`, protocol.Announcement{}},
		{`{"key":"K"}`, protocol.Announcement{}},
		{`{"mirrord-agent":"1","key":"K","port":65536}`, protocol.Announcement{}},
		{`hello`, protocol.Announcement{}},
	} {
		if got, ok := protocol.ParseAnnouncement([]byte(c.line)); ok != (c.want.Key != "") || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s:\ngot  %+v\nwant %+v", c.line, got, c.want)
		}
	}
}

func FuzzAnnouncement(f *testing.F) {
	f.Add([]byte(`{"mirrord-agent":"1.0","key":"K","port":7}` + "\n"))
	f.Add([]byte(`{"mirrord-agent":"","key":"K"}`))
	f.Add([]byte("hello\n"))
	f.Fuzz(func(t *testing.T, line []byte) {
		if a, ok := protocol.ParseAnnouncement(line); ok != (a.Key != "") || ok != (a.Software != "") || a.Port < 0 || a.Port > 65535 {
			t.Errorf("%q: got %+v, %v", line, a, ok)
		}
	})
}

// TestFrozen reads what releases of each version that is still spoken write.
// The files in testdata are never written again: where this fails, a neighbour
// would not understand this build. The change needs another way, or a number.
func TestFrozen(t *testing.T) {
	for version := protocol.MinVersion; version <= protocol.Version; version++ {
		text, err := os.ReadFile(fmt.Sprintf("testdata/version-%d.txt", version))
		if err != nil {
			t.Fatalf("version %d has no frozen messages: %v", version, err)
		}
		lines := strings.Split(strings.TrimSpace(string(text)), "\n")
		for len(lines) >= 3 {
			if strings.HasPrefix(lines[0], "#") {
				lines = lines[1:]
				continue
			}
			name, meaning := lines[0], strings.TrimSpace(lines[2])
			b, err := hex.DecodeString(strings.TrimSpace(lines[1]))
			if err != nil {
				t.Fatalf("version %d, %s: %v", version, name, err)
			}
			lines = lines[3:]
			m, err := protocol.Parse(b)
			if err != nil {
				t.Errorf("version %d, %s: %v", version, name, err)
				continue
			}
			if again := protocol.Append(nil, m); string(again) != string(b) {
				t.Errorf("version %d, %s: written again as\n%x\nwant\n%x", version, name, again, b)
			}
			var got, want any
			now, err := json.Marshal(m)
			if err != nil {
				t.Fatal(err)
			}
			if json.Unmarshal(now, &got) != nil || json.Unmarshal([]byte(meaning), &want) != nil {
				t.Fatalf("version %d, %s: %s is no JSON", version, name, meaning)
			}
			if !contains(got, want) {
				t.Errorf("version %d, %s means\n%s\nwant\n%s", version, name, now, meaning)
			}
		}
		if len(lines) > 0 {
			t.Errorf("version %d ends with %q", version, lines)
		}
	}
}

// contains reports whether got has all that want has; members may be added.
func contains(got, want any) bool {
	switch want := want.(type) {
	case map[string]any:
		got, ok := got.(map[string]any)
		for k, v := range want {
			ok = ok && contains(got[k], v)
		}
		return ok
	case []any:
		got, ok := got.([]any)
		ok = ok && len(got) == len(want)
		for i := 0; ok && i < len(want); i++ {
			ok = contains(got[i], want[i])
		}
		return ok
	}
	return reflect.DeepEqual(got, want)
}
