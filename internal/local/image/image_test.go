package image

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io/fs"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/mirrord-go/mirrord/internal/failure"
)

func TestReference(t *testing.T) {
	const hash = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	for _, c := range []struct{ name, version, hash, want string }{
		{"release", "1.2.3", hash, Repository + ":1.2.3"},
		{"release with v", "v1.2.3", hash, Repository + ":v1.2.3"},
		{"candidate", "v1.2.3-rc.1", hash, Repository + ":v1.2.3-rc.1-0123456789ab"},
		{"between releases", "v1.2.3-4-gabcdef0", hash, Repository + ":v1.2.3-4-gabcdef0-0123456789ab"},
		{"changed tree", "0.1.0-dev", hash, Repository + ":0.1.0-dev-0123456789ab"},
		{"letters no tag has", "1.2.3+build/7", hash, Repository + ":1.2.3-build-7-0123456789ab"},
		{"begins with a dot", ".x", hash, Repository + ":x-0123456789ab"},
		{"none", "", hash, Repository + ":0123456789ab"},
		{"too long", strings.Repeat("x", 200), hash, Repository + ":" + strings.Repeat("x", 115) + "-0123456789ab"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := reference(c.version, c.hash)
			if err != nil || got != c.want {
				t.Fatalf("reference(%q) = %q, %v; want %q", c.version, got, err, c.want)
			}
			if !imageName.MatchString(got) {
				t.Errorf("%q is no name of an image", got)
			}
		})
	}
	for _, hash := range []string{"", "0123", strings.ToUpper(hash)} {
		if got, err := reference("1.2.3", hash); code(err) != "no-agent-inside" {
			t.Errorf("reference with hash %q = %q, %v; want the failure no-agent-inside", hash, got, err)
		}
	}
}

// TestBuilt holds whether this build has an agent inside or not.
func TestBuilt(t *testing.T) {
	hash, err := built.ReadFile("agent.sha256")
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := Reference("1.2.3"); code(err) != "no-agent-inside" {
			t.Errorf("Reference without an agent: %v", err)
		}
		if _, err := Agent(); code(err) != "no-agent-inside" {
			t.Errorf("Agent without an agent: %v", err)
		}
		return
	}
	program, err := Agent()
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(program)
	if got, want := hex.EncodeToString(sum[:]), strings.TrimSpace(string(hash)); got != want {
		t.Errorf("the agent's hash is %s, agent.sha256 says %s", got, want)
	}
	if !bytes.HasPrefix(program, []byte("\x7fELF")) {
		t.Errorf("the agent begins with %q: no executable", program[:min(4, len(program))])
	}
	if ref, err := Reference("1.2.3-dev"); err != nil || !strings.HasSuffix(ref, string(hash[:12])) {
		t.Errorf("Reference = %q, %v; want it to end with %s", ref, err, hash[:12])
	}
}

// An agent for another architecture is one only if the build has it.
func TestArchitectures(t *testing.T) {
	if got := architectures(fstest.MapFS{"agent.gz": {}, "agent.sha256": {}, "agent.txt": {}}); !slices.Equal(got, []string{runtime.GOARCH}) {
		t.Errorf("got %q, want this one's alone", got)
	}
	if got := architectures(fstest.MapFS{"agent.gz": {}, "agent.riscv64.gz": {}}); !slices.Equal(got, []string{runtime.GOARCH, "riscv64"}) {
		t.Errorf("got %q, want this one's and riscv64", got)
	}
	if _, err := Programs([]string{"pdp11"}); code(err) != "no-agent-inside" {
		t.Errorf("an architecture that is not there: %v", err)
	}
}

func TestTagged(t *testing.T) {
	own, err := Reference("1.2.3")
	if err != nil {
		t.Fatal("this build holds no agent: make build makes one")
	}
	tag := strings.TrimPrefix(own, Repository)
	for ref, want := range map[string]string{
		"r.example/a:1": "r.example/a:1", "r.example:5000/a:1": "r.example:5000/a:1", "r.example:5000/a": "r.example:5000/a" + tag, "a": "a" + tag,
	} {
		if got, err := Tagged(ref, "1.2.3"); got != want || err != nil {
			t.Errorf("Tagged(%q) = %q, %v; want %q", ref, got, err, want)
		}
	}
}

func TestUnpack(t *testing.T) {
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	z.Write([]byte("program"))
	z.Close()
	if got, err := unpack(bytes.NewReader(packed.Bytes())); err != nil || string(got) != "program" {
		t.Errorf("unpack = %q, %v", got, err)
	}
	for name, b := range map[string][]byte{"not packed": []byte("program"), "cut": packed.Bytes()[:packed.Len()-3], "empty": nil} {
		if got, err := unpack(bytes.NewReader(b)); code(err) != "no-agent-inside" {
			t.Errorf("%s: unpack = %q, %v; want the failure no-agent-inside", name, got, err)
		}
	}
}

func code(err error) string {
	if f, ok := errors.AsType[*failure.Error](err); ok {
		return f.Code
	}
	return ""
}
