package kube

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// Credentials are found in whole and in broken kubeconfigs.
func TestSecrets(t *testing.T) {
	t.Setenv("HTTPS_PROXY", "http://ana:in-proxy@proxy.example:3128")
	for name, c := range map[string]struct {
		text string
		want []string
	}{
		"yaml": {`
clusters: [{name: a, cluster: {server: "https://ana:in-url@a.example"}}]
users:
- name: a
  user:
    token: one
    password: 'two two'
    "client-key-data": "three"
    exec:
      env:
      - name: X
        value: four
- user: {token: five, username: ana}
- user:
    token: |-
      six
`, []string{"in-proxy", "one", "two two", "three", "four", "five", "six", "in-url"}},
		"json":   {`{"users":[{"user":{"token":"one","auth-provider":{"config":{"id-token":"two"}}}}]}`, []string{"in-proxy", "one", "two"}},
		"files":  {"users: [{user: {tokenFile: login}}, {user: {\"tokenFile\": 'none'}}, {user: {tokenFile: .}}]", []string{"in-proxy", "seven"}},
		"broken": {"users: [[[\n  token: one\n", []string{"in-proxy", "one"}},
		"none":   {"", []string{"in-proxy"}},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "config")
			if err := errors.Join(os.WriteFile(file, []byte(c.text), 0o600), os.WriteFile(filepath.Join(filepath.Dir(file), "login"), []byte("seven\n"), 0o600)); err != nil {
				t.Fatal(err)
			}
			if got := Secrets(Options{Kubeconfig: file}); !slices.Equal(got, c.want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}
