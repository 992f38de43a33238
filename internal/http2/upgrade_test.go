package http2

import (
	"strings"
	"testing"

	xhttp2 "golang.org/x/net/http2"

	"github.com/mirrord-go/mirrord/internal/budget"
)

// upgraded is a stage whose client has asked for stream 1 in HTTP/1, and whose original
// has taken the offer to answer in HTTP/2; more are the client's settings.
func upgraded(t testing.TB, memory *budget.Share, more ...setting) *stage {
	t.Helper()
	st := emptyStage(t, memory)
	payload := appendSettings(nil, more...)[headSize:]
	if !Acceptable(payload) {
		t.Fatal("the settings are not acceptable")
	}
	p := st.hop.Upgraded(payload, false)
	st.made = append(st.made, newEnd(t, p))
	return st
}

// The first stream has been asked for in HTTP/1; further ones go where they belong.
func TestUpgraded(t *testing.T) {
	st := upgraded(t, budget.New(1<<20).Share(0, budget.All), setting{settingWindow, 3})
	defer st.end()
	orig := st.orig()
	orig.say(func(f *xhttp2.Framer) {
		_ = f.WriteSettings(xhttp2.Setting{ID: xhttp2.SettingMaxConcurrentStreams, Val: 7})
	})
	st.hop.Commit()
	orig.head(1, false, ":status", "200")
	orig.data(1, "hello", true)
	orig.tells("the original", "SETTINGS [ENABLE_PUSH = 0] [MAX_HEADER_LIST_SIZE = 262144]\nSETTINGS ACK")
	st.client.tells("the client", "SETTINGS [MAX_CONCURRENT_STREAMS = 7] [MAX_HEADER_LIST_SIZE = 262144]\nHEADERS 1 :status=200\nDATA 1 hel")
	st.client.raw(Preface)
	st.client.say(func(f *xhttp2.Framer) { _ = f.WriteSettings(); _ = f.WriteWindowUpdate(1, 100) })
	st.client.tells("the client", "SETTINGS ACK\nDATA 1 END lo")
	st.client.ask(3, "/a", true)
	st.client.ask(5, "/local", true)
	orig.tells("the original", asksAll(3, "/a", ""))
	st.server("local").greet()
	st.server("local").head(1, true, ":status", "200")
	orig.head(3, true, ":status", "201")
	st.client.tells("the client", "HEADERS 5 END :status=200\nHEADERS 3 END :status=201")
	if n := len(st.hop.client.streams); n != 0 || len(st.made) != 2 {
		t.Errorf("%d streams are open, and %d servers connected", n, len(st.made))
	}
}

func TestUpgradedAndThen(t *testing.T) {
	for _, c := range []struct {
		name string
		then func(*stage)
		want string
	}{
		{"the client says more on stream 1", func(st *stage) {
			st.client.raw(Preface)
			st.client.say(func(f *xhttp2.Framer) { _ = f.WriteSettings(); _ = f.WriteData(1, true, []byte("a")) })
		}, "SETTINGS ACK\nRST 1 STREAM_CLOSED"},
		{"the client says HTTP/1", func(st *stage) { st.client.raw("GET / HTTP/1.1\r\n") }, "GOAWAY 1 PROTOCOL_ERROR"},
		{"the client cancels", func(st *stage) {
			st.client.raw(Preface)
			st.client.say(func(f *xhttp2.Framer) { _ = f.WriteSettings(); _ = f.WriteRSTStream(1, xhttp2.ErrCodeCancel) })
			st.orig().tells("the original", "SETTINGS [ENABLE_PUSH = 0] [MAX_HEADER_LIST_SIZE = 262144]\nSETTINGS ACK\nRST 1 CANCEL")
		}, "SETTINGS ACK"},
		{"the original ends", func(st *stage) { st.orig().p.Ended(End{}) }, "GOAWAY 1 NO_ERROR\nRST 1 INTERNAL_ERROR"},
		{"the original speaks no HTTP/2", func(st *stage) {}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			st := upgraded(t, budget.New(0).Share(0, budget.All)) // it costs nothing where there is nothing
			defer st.end()
			if c.want == "" {
				if st.orig().raw("HTTP/1.1 200 OK\r\n") == nil {
					t.Error("that is HTTP/2")
				}
				st.hop.Commit()
				st.orig().p.Ended(End{})
				if got := st.client.told(); !strings.HasSuffix(got, "\nRST 1 INTERNAL_ERROR") || st.hop.Passes() {
					t.Errorf("the client is told %q", got)
				}
				return
			}
			st.orig().say(func(f *xhttp2.Framer) { _ = f.WriteSettings() })
			st.hop.Commit()
			if got := st.client.told(); !strings.HasPrefix(got, "SETTINGS [") {
				t.Errorf("the client is told %q at first", got)
			}
			c.then(st)
			st.client.tells("the client", c.want)
		})
	}
}

func TestAcceptable(t *testing.T) {
	for _, c := range []struct {
		name string
		in   string
		ok   bool
	}{
		{"nothing", "", true},
		{"curl's", "\x00\x03\x00\x00\x00\x64\x00\x04\x02\x00\x00\x00\x00\x02\x00\x00\x00\x00", true},
		{"pushes, a large table", "\x00\x01\x00\x00\x40\x00\x00\x02\x00\x00\x00\x01", true},
		{"half of one", "\x00\x03\x00", false},
		{"a window too large", "\x00\x04\x80\x00\x00\x00", false},
		{"too many", strings.Repeat("\x00\x03\x00\x00\x00\x64", maxSettings+1), false},
	} {
		if got := Acceptable([]byte(c.in)); got != c.ok {
			t.Errorf("%s: %v", c.name, got)
		}
	}
	if !Acceptable(Offer()) {
		t.Error("not even ours are")
	}
}

// FuzzUpgraded is FuzzHop of a connection that begins in HTTP/1, with these settings of
// the client's.
func FuzzUpgraded(f *testing.F) {
	settings := appendSettings(nil, setting{settingWindow, 3})
	client, original := string([]byte{0, byte(len(Preface) + len(settings))})+Preface+string(settings), string([]byte{1, byte(len(settings))})+string(settings)
	f.Add(settings[headSize:], []byte(original+client+"\x01\x0a\x00\x00\x01\x01\x05\x00\x00\x00\x01\x88"+"\x00\x0d\x00\x00\x04\x03\x00\x00\x00\x00\x01\x00\x00\x00\x08"))
	f.Add([]byte{}, []byte("\x01\x05HTTP/"+client))
	f.Fuzz(func(t *testing.T, settings, script []byte) {
		if !Acceptable(settings) {
			return
		}
		st := emptyStage(t, budget.New(1<<20).Share(0, budget.All))
		defer st.end()
		p := st.hop.Upgraded(settings, len(script)%2 == 0)
		st.made = append(st.made, newEnd(t, p))
		_ = p.Receive(nil)
		st.hop.Commit()
		st.play(script)
	})
}
