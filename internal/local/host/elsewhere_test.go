package host

import (
	"os"
	"strings"
	"testing"
)

// TestElsewhere: on another system one reads what to type instead, with the very
// arguments, and a page that has the rest.
func TestElsewhere(t *testing.T) {
	b, err := os.ReadFile("../../../docs/hosts.md")
	if err != nil {
		t.Fatal(err)
	}
	for goos, want := range map[string][]string{
		"darwin": {"this is macOS", "lima mirrord exec -t pod/x -- sh -c 'echo $A'\n", "docker run -it --rm --device=/dev/net/tun ",
			`-v "$PWD:/work" -w /work IMAGE mirrord exec -t pod/x`, "docs/hosts.md, macOS"},
		"windows": {"this is Windows", "wsl mirrord exec -t pod/x -- sh -c 'echo $A'\n", "wsl --install\n", `-v "${PWD}:/work"`, "docs/hosts.md, Windows"},
		"freebsd": {"this is freebsd", "virtual machine with Linux: mirrord exec -t pod/x -- sh -c 'echo $A'\n", "docker run "},
	} {
		f := Elsewhere(goos, "exec", "-t", "pod/x", "--", "sh", "-c", "echo $A")
		text := f.What + "\n" + f.Why + "\n" + f.Do
		if f.Code != "needs-linux" || f.Exit != 0 {
			t.Errorf("%s: code %q, exit %d", goos, f.Code, f.Exit)
		}
		for _, w := range want {
			if !strings.Contains(text, w) {
				t.Errorf("%s: no %q in:\n%s", goos, w, text)
			}
		}
	}
	for goos, system := range systems {
		_, section, ok := strings.Cut(string(b), "\n## "+system+"\n")
		section, _, _ = strings.Cut(section, "\n## ")
		if !ok || !strings.Contains(section, DockerRun(goos)) {
			t.Errorf("docs/hosts.md has no section %q with %q", system, DockerRun(goos))
		}
	}
}
