package config

import (
	"path/filepath"
	"strings"

	"github.com/mirrord-go/mirrord/internal/config/document"
	"github.com/mirrord-go/mirrord/internal/rules"
)

// builder makes a Config of the values.
type builder struct {
	*decoder
	src   *Sources
	home  string
	notes notes
	cfg   Config
}

// build fills in the Config. What contradicts itself becomes a problem.
func (b *builder) build() error {
	c := &b.cfg
	c.Target, c.Namespace = b.text("target.path"), b.text("target.namespace")
	c.Kubeconfig, c.Context = b.path("kubeconfig"), b.text("kube_context")
	c.Key = b.text("key")
	c.NoProxy = !b.yes("use_proxy", true)
	if b.has("accept_invalid_certificates") {
		yes := b.yes("accept_invalid_certificates", false)
		c.InsecureTLS = &yes
		if yes {
			b.notes.warn("the API server's certificate is not checked (%s)", b.about("accept_invalid_certificates"))
		}
	}
	if err := b.agent(); err != nil {
		return err
	}
	b.env()
	b.files()
	b.network()
	c.HostnameLocal = !b.yes("feature.hostname", true)
	for _, p := range b.patterns("container.cli_extra_args") {
		c.Container = append(c.Container, p.Text)
	}
	if platform := b.text("container.platform"); platform != "" {
		c.Container = append([]string{"--platform=" + platform}, c.Container...)
	}
	c.Files.HostnameLocal, c.Files.DNSLocal = c.HostnameLocal, c.DNS.Local
	return nil
}

// path makes a path absolute: the supervisor works in another directory.
func (b *builder) path(name string) string {
	p := b.text(name)
	if p == "" {
		return ""
	}
	return b.onDisk(p)
}

// onDisk is a path of this machine, as somebody wrote it.
func (b *builder) onDisk(p string) string {
	switch {
	case p == "~" || strings.HasPrefix(p, "~/"):
		if b.home != "" {
			return filepath.Join(b.home, p[1:])
		}
	case filepath.IsAbs(p):
		return filepath.Clean(p)
	}
	return filepath.Join(b.src.Dir, p)
}

func (b *builder) agent() error {
	a := &b.cfg.Agent
	a.Namespace = b.text("agent.namespace")
	a.PullPolicy = b.text("agent.image_pull_policy")
	a.Ephemeral = b.yes("agent.ephemeral", false)
	switch _, process := b.cfg.Process(); {
	case !a.Ephemeral:
	case b.cfg.Targetless() && !b.src.TargetLater, process:
		b.refuse("agent.ephemeral", "the agent runs in the target's pod, and there is no pod for a target; name one, or leave the key out")
	case a.Namespace != "":
		b.notes.warn("agent.namespace does nothing: the agent runs in the target's pod (%s)", b.about("agent.ephemeral"))
		a.Namespace = ""
	}
	b.pod()
	if b.has("agent.startup_timeout") {
		if a.StartupTimeout = int(b.values["agent.startup_timeout"].node.Int); a.StartupTimeout == 0 {
			b.refuse("agent.startup_timeout", "found 0, expected the seconds to wait, 1 at least")
		}
	}
	if b.has("agent.ttl") {
		ttl := int(b.values["agent.ttl"].node.Int)
		a.TTL = &ttl
	}
	if b.has("agent.resume_window") {
		if a.ResumeWindow = int(b.values["agent.resume_window"].node.Int); a.ResumeWindow < minResumeWindow {
			b.refuse("agent.resume_window", "found %d, expected the seconds to wait, %d at least", a.ResumeWindow, minResumeWindow)
		}
	}
	a.Image = b.text("agent.image")
	registry, tag := b.text("agent.image.registry"), b.text("agent.image.tag")
	if a.Image != "" || registry == "" && tag == "" {
		return nil
	}
	if registry == "" || tag == "" {
		whole, err := b.src.DefaultImage()
		if err != nil {
			return err
		}
		// A colon before the last slash is a registry's port.
		if i := strings.LastIndexByte(whole, ':'); i > strings.LastIndexByte(whole, '/') {
			if registry == "" {
				registry = whole[:i]
			}
			if tag == "" {
				tag = whole[i+1:]
			}
		}
	}
	a.Image = registry + ":" + tag
	return nil
}

func (b *builder) env() {
	e := &b.cfg.Env
	e.Include, e.Exclude = b.patterns("feature.env.include"), b.patterns("feature.env.exclude")
	switch {
	case b.has("feature.env.include") && b.has("feature.env.exclude") && len(e.Exclude) > 0:
		b.refuse("feature.env.include", "variables can be included or excluded, not both; the other is %s", b.about("feature.env.exclude"))
	case b.has("feature.env.include") && len(e.Include) == 0:
		b.refuse("feature.env.include", `found an empty list, which takes no variable at all; write "env": false for that`)
	}
	if b.has("feature.env.override") {
		e.Override = map[string]rules.Pattern{}
		v := b.values["feature.env.override"]
		for _, p := range v.node.Keys {
			e.Override[p.Key] = rules.Pattern{Text: p.Value.Text, Origin: v.at(&document.Node{Place: p.Place})}
			if strings.ContainsAny(p.Key, "=\x00") || strings.Contains(p.Value.Text, "\x00") {
				b.add(b.file, p.Place, "feature.env.override", "%q is no variable's name, or its value is none", p.Key)
			}
		}
	}
	if b.has("feature.env.mapping") {
		v := b.values["feature.env.mapping"]
		for _, p := range v.node.Keys {
			e.Mapping = append(e.Mapping, rules.EnvMapping{Name: rules.Pattern{Text: p.Key, Origin: v.at(&document.Node{Place: p.Place})}, Value: p.Value.Text})
			if strings.Contains(p.Value.Text, "\x00") {
				b.add(b.file, p.Value.Place, "feature.env.mapping", "a variable cannot hold the character NUL")
			}
		}
	}
	e.Unset = b.patterns("feature.env.unset")
	_, own := e.Override["AWS_PROFILE"]
	if b.yes("feature.magic.aws", true) && !own {
		e.Unset = append(e.Unset, rules.Pattern{Text: "AWS_PROFILE", Origin: "feature.magic.aws"})
	}
	if e.File = b.path("feature.env.env_file"); e.File == "" {
		return
	}
	// It is read again when the session starts: a Config holds no secret.
	text, err := b.src.Read(e.File)
	if err == nil {
		_, err = rules.ParseEnvFile(b.text("feature.env.env_file"), text)
	}
	if err != nil {
		b.refuse("feature.env.env_file", "%v", err)
	}
}

func (b *builder) files() {
	f := &b.cfg.Files
	f.Mode = b.text("feature.fs.mode")
	f.ReadWrite, f.ReadOnly = b.patterns("feature.fs.read_write"), b.patterns("feature.fs.read_only")
	f.Local, f.NotFound = b.patterns("feature.fs.local"), b.patterns("feature.fs.not_found")
	if b.has("feature.fs.mapping") {
		v := b.values["feature.fs.mapping"]
		for _, p := range v.node.Keys {
			f.Mapping = append(f.Mapping, rules.FileMapping{Path: rules.Pattern{Text: p.Key, Origin: v.at(&document.Node{Place: p.Place})}, To: p.Value.Text})
		}
	}
	if b.has("feature.fs.cache") {
		seconds := int(b.values["feature.fs.cache"].node.Int)
		b.cfg.FilesCache = &seconds
	}
	f.ShowAWS = !b.yes("feature.magic.aws", true)
}

// patterns gives a list of texts, each with its origin.
func (b *builder) patterns(name string) []rules.Pattern {
	if !b.has(name) {
		return nil
	}
	v := b.values[name]
	list := []rules.Pattern{}
	for _, item := range items(v.node) {
		texts := []string{item.Text}
		if v.key.Type == Names {
			texts = strings.Split(item.Text, ";")
		}
		for _, t := range texts {
			if t = strings.TrimSpace(t); t != "" {
				list = append(list, rules.Pattern{Text: t, Origin: v.at(item)})
			}
		}
	}
	return list
}
