package config

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"

	"github.com/mirrord-go/mirrord/internal/config/document"
	"github.com/mirrord-go/mirrord/internal/event"
	"github.com/mirrord-go/mirrord/internal/failure"
)

// Sources are what a configuration is made from.
type Sources struct {
	Flags   map[string]Setting // by the variable that each stands for
	Environ []string           // "NAME=value"
	Dir     string             // working directory, absolute
	// Read reads a file; paths are absolute.
	Read func(path string) ([]byte, error)
	// Stdin reads all of standard input.
	Stdin func() ([]byte, error)
	// RandomKey makes a name for the session, where nobody gave it one.
	RandomKey func() string
	// DefaultImage names the agent's image of this build. It is asked only if the
	// configuration names a part of another.
	DefaultImage func() (string, error)
	// TargetLater: that there is no target is no mistake, one may still be chosen.
	TargetLater bool
}

// ownDir is the directory in which a configuration is found without being
// named.
const ownDir = ".mirrord"

// Load makes the configuration of the file, the variables and the flags, the
// later winning, and tells what a person should know about it. It changes
// nothing and reads only what s gives it. Every error is a *failure.Error:
// config-unreadable, config-invalid, steal-without-target, or one of
// s.DefaultImage.
func Load(s Sources) (Config, []event.Event, error) {
	b, err := load(s)
	if err != nil {
		return Config{}, nil, err
	}
	return b.cfg, b.notes.events, nil
}

// load makes all of it; see Load.
func load(s Sources) (*builder, error) {
	set := newSettings(s.Environ, s.Flags)
	d := &decoder{schema: newSchema(), values: map[string]value{}}
	b := &builder{decoder: d, src: &s, home: set.env["HOME"]}
	file, err := b.find(set)
	if err != nil {
		return nil, err
	}
	if file != nil {
		d.file = origin{name: file.name, file: true}
		root, err := file.parse(&s, set)
		if e, ok := errors.AsType[*document.Error](err); ok {
			d.add(d.file, e.Place, "", "%s", e.Text)
			return nil, d.failure()
		}
		d.section("", root)
	}
	if err := b.resolve(set); err != nil {
		return nil, err
	}
	if err := d.failure(); err != nil {
		return nil, err
	}
	const mode = incomingKey + "mode"
	if b.cfg.Targetless() && !s.TargetLater && b.cfg.Incoming.Mode == "steal" {
		return nil, failure.Usage("steal-without-target", "steal needs a target", "name one: mirrord exec -t pod/NAME --steal COMMAND",
			"without a target there is no traffic that could be taken; it is asked for by %s", d.values[mode].at(d.values[mode].node))
	}
	b.notes.ignored(d.values, set.env)
	return b, nil
}

// resolve lays variables and flags over what the file says and makes the Config.
func (b *builder) resolve(set settings) error {
	b.overlay(set)
	if err := b.build(); err != nil {
		return err
	}
	ports := b.debuggerPorts(set)
	b.cfg.Incoming.DebuggerPorts, b.cfg.Outgoing.DebuggerPorts = ports, ports
	b.cfg.Debuggers = b.decoder.debuggers(set)
	return nil
}

// file is a configuration file.
type file struct {
	name   string // as a person reads it
	format document.Format
	text   string
}

// find reads the file that is named, or the one that is simply there; nil if
// there is none.
func (b *builder) find(set settings) (*file, error) {
	name, _, ok := set.lookup(configFile)
	switch {
	case !ok:
		return b.findOwn()
	case name == "-":
		text, err := b.src.Stdin()
		if err != nil {
			return nil, unreadable("standard input cannot be read", err)
		}
		return &file{"standard input", document.JSON, string(text)}, nil
	}
	name = filepath.Clean(name)
	format, ok := document.FormatOf(name)
	if !ok {
		return nil, failure.Usage("config-unreadable", fmt.Sprintf("the configuration %s cannot be read", name), "rename it to what it is",
			"its name ends in %q; it can end in .json, .yaml, .yml or .toml, and without an ending it is JSON", filepath.Ext(name))
	}
	text, err := b.src.Read(b.absolute(name))
	if err != nil {
		return nil, unreadable(fmt.Sprintf("the configuration %s cannot be read", name), err)
	}
	return &file{name, format, string(text)}, nil
}

// findOwn looks for a file in ownDir.
func (b *builder) findOwn() (*file, error) {
	var found *file
	for _, ending := range []string{"json", "yaml", "yml", "toml"} {
		name := filepath.Join(ownDir, "mirrord."+ending)
		text, err := b.src.Read(b.absolute(name))
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue
		case err != nil:
			return nil, unreadable(fmt.Sprintf("the configuration %s cannot be read", name), err)
		case found != nil:
			return nil, failure.Usage("config-unreadable", "there are two configurations", fmt.Sprintf("name the one that is meant: mirrord exec -f %s COMMAND", found.name),
				"%s and %s", found.name, name)
		}
		format, _ := document.FormatOf(name)
		found = &file{name, format, string(text)}
	}
	if found != nil {
		b.notes.events = append(b.notes.events, event.Event{Level: event.Step, Code: "config-file", Text: "the configuration is " + found.name,
			Facts: map[string]string{"file": found.name}})
	}
	return found, nil
}

func (b *builder) absolute(name string) string {
	if filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(b.src.Dir, name)
}

func unreadable(what string, cause error) error {
	f := failure.Wrap(cause, "config-unreadable", what, "name another file, or none: mirrord exec -f FILE COMMAND")
	f.Exit = failure.ExitUsage
	return f
}

// unknownKey stands for the session's key while the file is asked for it.
const unknownKey = "mirrord-session-key"

// parse fills in the file's templates and reads it.
func (f *file) parse(s *Sources, set settings) (*document.Node, error) {
	values := document.Values{
		Env: func(name string) (string, bool) { v, ok := set.env[name]; return v, ok },
		Branch: func() (string, error) {
			if name := set.env["MIRRORD_BRANCH_NAME"]; name != "" {
				return name, nil
			}
			return branch(s.Read, s.Dir)
		},
	}
	key, _, given := set.lookup("MIRRORD_KEY")
	if values.Key = key; !given {
		values.Key = unknownKey
	}
	text, usesKey, err := document.Fill(f.text, values)
	if err != nil {
		return nil, err
	}
	root, err := document.Parse(f.format, text)
	if err != nil || !usesKey || given {
		return root, err
	}
	if own := root.Value("key"); own == nil || own.Kind != document.String {
		values.Key = s.RandomKey()
	} else if values.Key = own.Text; strings.Contains(own.Text, unknownKey) {
		return nil, &document.Error{Place: own.Place, Text: "key: the key cannot be made of itself"}
	}
	if text, _, err = document.Fill(f.text, values); err != nil {
		return nil, err
	}
	return document.Parse(f.format, text)
}

// branch reads which branch the repository around dir is on.
func branch(read func(string) ([]byte, error), dir string) (string, error) {
	for ; ; dir = filepath.Dir(dir) {
		git := filepath.Join(dir, ".git")
		// In a worktree or a submodule it is a file that says where (gitrepository-layout(5)).
		if text, err := read(git); err == nil {
			if to, ok := strings.CutPrefix(strings.TrimSpace(string(text)), "gitdir: "); ok {
				if git = to; !filepath.IsAbs(git) {
					git = filepath.Join(dir, git)
				}
			}
		}
		if head, err := read(filepath.Join(git, "HEAD")); err == nil {
			if name, ok := strings.CutPrefix(strings.TrimSpace(string(head)), "ref: refs/heads/"); ok {
				return name, nil
			}
			return "", errors.New("no branch is checked out")
		}
		if dir == filepath.Dir(dir) {
			return "", errors.New("this is no git repository")
		}
	}
}
