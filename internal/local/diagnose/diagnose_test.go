package diagnose

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"testing"
	"time"
)

func TestHider(t *testing.T) {
	hide := Hider([]string{"hunter", "hunter22", "a\"b<c>\n-- second line --", "x"})
	for text, want := range map[string]string{
		"hunter, hunter22, x":                  "(hidden), (hidden), x",
		`{"a":"a\"b<c>\n-- second line --"}`:   `{"a":"(hidden)"}`,
		`a\"b\u003cc\u003e\n-- second line --`: "(hidden)",
		"only the -- second line --":           "only the (hidden)",
		"nothing":                              "nothing",
	} {
		if got := hide(text); got != want {
			t.Errorf("%s: got %s, want %s", text, got, want)
		}
	}
	if got := Hider(nil)("text"); got != "text" {
		t.Errorf("without secrets: %q", got)
	}
}

func TestWrite(t *testing.T) {
	b := &Bundle{}
	b.Add("log", "a log", []byte("password hunter2 "))
	b.AddJSON("sub/x.json", "an object", map[string]string{"a": "hunter2", "b": "<b>"})
	b.AddJSON("bad.json", "cannot be", func() {})
	b.Leave("agent", "hunter2 is wrong")
	b.Hide("hunter2")
	var out bytes.Buffer
	if err := b.Write(&out, "dir", time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	z, err := gzip.NewReader(&out)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		text, _ := io.ReadAll(r)
		got[h.Name] = string(text)
	}
	want := map[string]string{"dir/log": "password (hidden) ", "dir/sub/x.json": "{\n  \"a\": \"(hidden)\",\n  \"b\": \"<b>\"\n}\n"}
	for name, text := range want {
		if got[name] != text {
			t.Errorf("%s is %q, want %q", name, got[name], text)
		}
	}
	files, left := b.List()
	if len(got) != len(want) || len(files) != len(want) || files[0].Bytes != len(want["dir/log"]) {
		t.Errorf("packed %q, listed %+v", got, files)
	}
	if len(left) != 2 || left[1].Why != "(hidden) is wrong" {
		t.Errorf("left out: %+v", left)
	}
	if m := Machine(); m["kernel"] == "" || m["machine"] == "" {
		t.Errorf("this machine is %q", m)
	}
}
