package cli

import (
	"archive/tar"
	"compress/gzip"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mirrord-go/mirrord/internal/config"
	"github.com/mirrord-go/mirrord/internal/event"
	"github.com/mirrord-go/mirrord/internal/rules"
)

// diagnosed runs mirrord diagnose and gives what it prints and what it packs,
// by the names in the archive.
func diagnosed(t *testing.T, args ...string) (printed string, files map[string]string) {
	t.Helper()
	out, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	archive := filepath.Join(t.TempDir(), "x.tar.gz")
	stdout := os.Stdout
	os.Stdout = out
	code := Main("test", append([]string{"mirrord", "diagnose", "-o", archive}, args...))
	os.Stdout = stdout
	text, err := os.ReadFile(out.Name())
	if err != nil || code != 0 {
		t.Fatalf("exit code %d, %v, printed %s", code, err, text)
	}
	if fi, err := os.Stat(archive); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("archive: %v, %v", fi, err)
	}
	f, err := os.Open(archive)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	files = map[string]string{}
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return string(text), files
		}
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		_, name, _ := strings.Cut(h.Name, "/")
		files[name] = string(b)
	}
}

// marker is in every secret of the test.
const marker = "s3cr3t-"

// plant puts secrets wherever a session may have some, with a cluster that
// repeats what it is told.
func plant(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	t.Setenv("HOME", dir)
	t.Setenv("XDG_STATE_HOME", filepath.Join(dir, "state"))
	t.Setenv("DATABASE_PASSWORD", marker+"env")
	chatty := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusUnauthorized)
		_, _ = io.WriteString(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","message":"who is `+r.Header.Get("Authorization")+`?","code":401}`)
	}))
	t.Cleanup(chatty.Close)
	write := func(name, text string) {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("kubeconfig", `{"apiVersion":"v1","kind":"Config","current-context":"c","clusters":[{"name":"c","cluster":{"server":"`+chatty.URL+`"}}],
		"contexts":[{"name":"c","context":{"cluster":"c","user":"u","namespace":"staging"}}],"users":[{"name":"u","user":{"token":"`+marker+`token"}}]}`)
	t.Setenv("KUBECONFIG", filepath.Join(dir, "kubeconfig"))
	write("mirrord.json", `{"target":"pod/shop-1","feature":{
		"env":{"override":{"API_KEY":"`+marker+`override"},"mapping":{"^X$":"`+marker+`mapping"}},
		"network":{"incoming":{"mode":"steal","http_filter":{"all_of":[{"header":"x-session: `+marker+`header"},{"path":"^/api"},{"query":". == \"x-key: `+marker+`jq\""},{"body":"text","matches":"`+marker+`body"}]}}}}}`)
}

// None of the secrets is in the archive, nor in what is printed; their names are.
func TestDiagnoseHidesSecrets(t *testing.T) {
	plant(t)
	j := (&app{version: "test"}).keepJournal(config.Config{Target: "pod/shop-1",
		Env: rules.EnvOptions{Override: map[string]rules.Pattern{"API_KEY": {Text: marker + "override"}}}})
	j.Note(event.Event{Level: event.Warning, Code: "w", Text: "it said " + marker + "override"})
	j.Note(event.Event{Level: event.Warning, Code: "w", Text: "it said " + marker + "header"}) // by diagnose, if not before
	j.Note(event.Event{Level: event.Warning, Code: "w", Text: "it said " + marker + "token"})
	j.Close()
	renewed, err := os.ReadFile("kubeconfig") // a login that is renewed stands in journals no more
	if err == nil {
		err = os.WriteFile("kubeconfig", []byte(strings.ReplaceAll(string(renewed), marker+"token", marker+"renewed")), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"-f", "mirrord.json"}, {"-f", "mirrord.json", "--json"}} {
		printed, files := diagnosed(t, args...)
		all := printed
		for name, text := range files {
			all += "== " + name + "\n" + text
		}
		if i := strings.Index(all, marker); i >= 0 {
			t.Errorf("a secret is in there: …%s…", all[max(0, i-200):min(len(all), i+40)])
		}
		for _, want := range []string{"API_KEY", "x-session:", "^/api", "pod/shop-1", "staging", `"mirrord": "test"`, "user namespaces", "it said (hidden)", `"kernel"`} {
			if !strings.Contains(all, want) {
				t.Errorf("%q is missing in\n%s", want, all)
			}
		}
		for _, name := range []string{"config.json", "doctor.json", "versions.json"} {
			if !json.Valid([]byte(files[name])) {
				t.Errorf("%s is no JSON: %s", name, files[name])
			}
		}
	}
}

// Mistakes of a configuration quote it: they are left out, with the reason.
func TestDiagnoseOfAWrongConfiguration(t *testing.T) {
	plant(t)
	if err := os.WriteFile("wrong.json", []byte(`{"feature":{"network":{"incoming":{"http_filter":{"header_filter":"x: `+marker+`("}}}}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	printed, files := diagnosed(t, "-f", "wrong.json")
	if !strings.Contains(printed, "left out: config.json: the configuration cannot be used (") || strings.Contains(printed, marker) {
		t.Errorf("printed %s", printed)
	}
	for name, text := range files {
		if strings.Contains(text, marker) {
			t.Errorf("%s holds %s", name, text)
		}
	}
	if files["doctor.json"] == "" || files["config.json"] != "" {
		t.Errorf("packed %v", files)
	}
}

// Where there is nothing, what is on this machine is packed all the same.
func TestDiagnoseWithoutACluster(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	t.Setenv("HOME", dir)
	t.Setenv("XDG_STATE_HOME", "")
	t.Setenv("KUBECONFIG", filepath.Join(dir, "none"))
	printed, files := diagnosed(t)
	for _, want := range []string{"left out: sessions: no session has left a journal", "left out: agent: there is no kubeconfig", "doctor.json", "look through it before you give it away"} {
		if !strings.Contains(printed, want) {
			t.Errorf("%q is missing in\n%s", want, printed)
		}
	}
	if !strings.Contains(files["doctor.json"], `"code": "no-kubeconfig"`) {
		t.Errorf("doctor says %s", files["doctor.json"])
	}
}

func TestJournalCanBeSwitchedOff(t *testing.T) {
	plant(t)
	t.Setenv("MIRRORD_JOURNAL", "off")
	if j := (&app{}).keepJournal(config.Config{}); j != nil {
		t.Error("there is a journal")
	}
	if _, err := os.Stat(os.Getenv("XDG_STATE_HOME")); !os.IsNotExist(err) {
		t.Errorf("the directory of state: %v", err)
	}
}
