package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// project makes a directory of the user's with files in it, and gives what
// starts a command there.
func project(t testing.TB, files map[string]string) func(*exec.Cmd) {
	t.Helper()
	dir := filepath.Join(w.dir, "work", strings.ReplaceAll(t.Name(), "/", "-"))
	for name, text := range files {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return func(c *exec.Cmd) { c.Dir = dir }
}

// lines runs a shell script in a session of the project and gives its lines.
func (p projectRun) lines(script string) []string {
	p.t.Helper()
	r := startCommand(p.t, append(append([]string{w.mirrord, "exec", "-n", w.namespace}, p.args...), "bash", "-c", script), p.prepare)
	if code := r.end(); code != 0 {
		p.t.Fatalf("exit code %d, stderr:\n%s", code, r.stderr)
	}
	return strings.Split(strings.TrimSpace(r.stdout.String()), "\n")
}

type projectRun struct {
	t       testing.TB
	prepare func(*exec.Cmd)
	args    []string
}

// The three formats, found without being named, and named.
func TestConfigurationFiles(t *testing.T) {
	for name, c := range map[string]struct {
		file, text string
		args       []string
	}{
		"json":     {".mirrord/mirrord.json", `{"target": "pod/app", "feature": {"env": {"override": {"COLOR": "red"}}}}`, nil},
		"yaml":     {".mirrord/mirrord.yaml", "target: {path: {pod: app, container: app}}\nfeature:\n  env:\n    override: {COLOR: red}\n", nil},
		"toml":     {".mirrord/mirrord.toml", "target = \"pod/app\"\n[feature.env.override]\nCOLOR = \"red\"\n", nil},
		"named":    {"conf/x.yml", "target: pod/app\nfeature: {env: {override: {COLOR: red}}}\n", []string{"-f", "conf/x.yml"}},
		"template": {".mirrord/mirrord.json", `{"target": "{{ get_env(name="SOME_POD", default="pod/app") }}", "feature": {"env": {"override": {"COLOR": "red"}}}}`, nil},
	} {
		t.Run(name, func(t *testing.T) {
			p := projectRun{t, project(t, map[string]string{c.file: c.text}), c.args}
			if got := p.lines("echo $COLOR; hostname"); got[0] != "red" || got[1] != "app" {
				t.Errorf("got %q", got)
			}
		})
	}
}

// Nothing is started for a configuration with a mistake, and the mistake is
// said with its place.
func TestWrongConfiguration(t *testing.T) {
	prepare := project(t, map[string]string{".mirrord/mirrord.yaml": "target: pod/app\nfeature:\n  network:\n    incomming: steal\n"})
	r := startCommand(t, []string{w.mirrord, "exec", "-n", w.namespace, "--", "touch", "ran"}, prepare)
	if code := r.end(); code != 2 {
		t.Errorf("exit code %d, want 2", code)
	}
	for _, want := range []string{".mirrord/mirrord.yaml:4:5", "feature.network.incomming", "incoming"} {
		if !strings.Contains(r.stderr.String(), want) {
			t.Errorf("the message has no %q:\n%s", want, r.stderr)
		}
	}
	if _, err := os.Stat(filepath.Join(r.cmd.Dir, "ran")); err == nil {
		t.Error("the command ran")
	}
}

func TestEnvironmentOptions(t *testing.T) {
	for name, c := range map[string]struct{ env, want string }{
		"default":  {`true`, "blue|yes|script|"},
		"off":      {`false`, "local|yes|script|"},
		"include":  {`{"include": ["COL*"]}`, "blue|yes|script|"},
		"excluded": {`{"exclude": "COLOR;X"}`, "local|yes|script|"},
		"override": {`{"override": {"COLOR": "red", "NEW": "new"}}`, "red|yes|script|new"},
		"unset":    {`{"unset": ["color", "ONLY_LOCAL"]}`, "||script|"},
		"mapping":  {`{"mapping": {"^COL": "mapped", "^ONLY": "not of the target"}}`, "mapped|yes|script|"},
		"file":     {`{"env_file": "vars.env", "override": {"NEW": "over the file"}}`, "from file|yes|script|over the file"},
	} {
		t.Run(name, func(t *testing.T) {
			p := projectRun{t, project(t, map[string]string{
				".mirrord/mirrord.json": `{"target": "pod/app", "feature": {"env": ` + c.env + `}}`,
				"vars.env":              "# of the team\nCOLOR=\"from file\"\nNEW=x\n",
			}), nil}
			if got := p.lines(`SCRIPT=script; echo "$COLOR|$ONLY_LOCAL|$SCRIPT|$NEW"`); got[0] != c.want {
				t.Errorf("got %q, want %q", got[0], c.want)
			}
		})
	}
}

func TestHostnameAndFamilies(t *testing.T) {
	here, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	socket6 := `python3 -c 'import socket; socket.socket(socket.AF_INET6)' 2>&1 | tail -1`
	for name, c := range map[string]struct{ feature, hostname, socket string }{
		"default":        {`{}`, "app", ""},
		"local hostname": {`{"hostname": false}`, here, ""},
		"no IPv6":        {`{"network": {"ipv6": false}}`, "app", "OSError: [Errno 97] Address family not supported by protocol"},
	} {
		t.Run(name, func(t *testing.T) {
			p := projectRun{t, project(t, map[string]string{".mirrord/mirrord.json": `{"target": "pod/app", "feature": ` + c.feature + `}`}), nil}
			got := append(p.lines("hostname; cat /etc/hostname; "+socket6), "")
			if got[0] != c.hostname || got[1] != c.hostname || got[2] != c.socket {
				t.Errorf("got %q, want %q twice, then %q", got, c.hostname, c.socket)
			}
		})
	}
}
