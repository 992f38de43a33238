// Package container reads the command line of a container engine ("podman run
// ...") and rewrites it so that the container is part of a session.
//
// The engine runs in the sandbox, as the command of a session: what it starts
// has the sandbox's network, hostname and resolver, and descends from it like
// any other process. What is left to say to the engine is said by options of
// run: that no network is to be made, which variables and files are the
// target's. Here is text only: package engine asks engines, session knows what
// the target has.
package container

import (
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/mirrord-go/mirrord/internal/failure"
	"github.com/mirrord-go/mirrord/internal/local/ids"
)

// Run is a command line that runs a container.
type Run struct {
	Engine  []string `json:"engine"` // the program and its own options
	Verb    []string `json:"verb"`   // run, or container run
	Options []Option `json:"options"`
	Image   string   `json:"image"` // with --rootfs a directory
	Args    []string `json:"args"`  // what follows

	// What package engine finds out.
	Rootless      bool         `json:"rootless"`
	Users, Groups []ids.Extent // that the engine maps: Inside is the container's
	Places        []string     `json:"places"` // directories of the engine's own
}

// Options that say something about the network that the container is to have
// instead of the session's.
var aboutNetwork = []string{"network", "net", "ip", "ip6", "mac-address", "network-alias", "link", "pod", "pod-id-file"}

// Options of an engine that lead to another machine.
var aboutPlace = []string{"remote", "connection", "context", "url", "host", "identity"}

// Parse reads a command line, which begins with the engine. What cannot be in a
// session is refused.
func Parse(argv []string) (*Run, error) {
	engine := path.Base(argv[0])
	options, rest, err := engineSyntax.read(argv[1:])
	if err != nil {
		return nil, failure.Usage("container-command", engine+" cannot be understood", "write: mirrord container -- "+engine+" run IMAGE", "%v", err)
	}
	for _, o := range options {
		if slices.Contains(aboutPlace, o.Name) && (!o.Bare || o.on()) {
			return nil, failure.Usage("container-remote", fmt.Sprintf("%s --%s runs containers elsewhere", engine, o.Name),
				"leave --"+o.Name+" away", "a session's network and files are on this machine, and so must be the container")
		}
	}
	r := &Run{Engine: append([]string{argv[0]}, texts(options)...)}
	if len(rest) > 0 && rest[0] == "container" {
		r.Verb, rest = rest[:1:1], rest[1:]
	}
	if len(rest) == 0 || rest[0] != "run" {
		did := "nothing"
		if len(rest) > 0 {
			did = rest[0]
		}
		return nil, failure.Usage("container-command", "only run can be in a session", "write: mirrord container -- "+engine+" run IMAGE", "found %s %s", engine, did)
	}
	r.Verb = append(r.Verb, "run")
	if r.Options, rest, err = runSyntax.read(rest[1:]); err != nil {
		return nil, failure.Usage("container-command", engine+" run cannot be understood", engine+" run --help", "%v", err)
	}
	if len(rest) == 0 {
		return nil, failure.Usage("container-command", engine+" run has no image", "write: mirrord container -- "+engine+" run IMAGE", "an image must follow its options")
	}
	r.Image, r.Args = rest[0], rest[1:]
	return r, r.refuse()
}

// Add puts options that the configuration has before those of the command line,
// so that the latter win.
func (r *Run) Add(extra []string) error {
	options, rest, err := runSyntax.read(extra)
	if err == nil && len(rest) > 0 {
		err = fmt.Errorf("%q is no option", rest[0])
	}
	if err != nil {
		return failure.Usage("container-command", "container.cli_extra_args cannot be understood", r.Engine[0]+" run --help", "%v", err)
	}
	r.Options = append(options, r.Options...)
	return r.refuse()
}

// refuse finds what contradicts a session.
func (r *Run) refuse() error {
	for _, o := range r.Options {
		switch {
		case o.Name == "detach" && o.on():
			return failure.Usage("container-detached", "a container of a session cannot be detached (-d)",
				"leave -d away, and put the whole into the background: mirrord container ... -- ... &",
				"the session is served as long as mirrord runs: a detached container would lose its network and files at once")
		case slices.Contains(aboutNetwork, o.Name) && !(strings.HasPrefix(o.Name, "net") && o.Value == "host"):
			return failure.Usage("container-network", fmt.Sprintf("--%s contradicts the session", o.Name),
				fmt.Sprintf("leave --%s away; what runs in other containers here is reached by the ports that they publish, with a rule in feature.network.outgoing.filter.local", o.Name),
				"the container's network is the target's, and nothing but that")
		}
	}
	_, err := r.Published()
	return err
}

// Published are the ports of -p: the container's, and this machine's for it.
// Those that leave the choice of a port to the engine are left out.
func (r *Run) Published() (all [][2]uint16, err error) {
	for _, o := range r.Options {
		if o.Name != "publish" {
			continue
		}
		some, err := published(o.Value)
		if err != nil {
			return nil, failure.Usage("container-publish", fmt.Sprintf("-p %s cannot be understood", o.Value), "write it as HERE:CONTAINER, for example: -p 8080:80", "%v", err)
		}
		all = append(all, some...)
	}
	return all, nil
}

// published reads [[address:]here:]container[/protocol], where ports may be
// ranges.
func published(text string) (all [][2]uint16, err error) {
	ports, protocol, _ := strings.Cut(text, "/")
	if protocol != "" && protocol != "tcp" && protocol != "udp" {
		return nil, fmt.Errorf("%s is no protocol of ports", protocol)
	}
	if i := strings.LastIndexByte(ports, ']'); i >= 0 { // an IPv6 address
		ports = "address" + ports[i+1:]
	}
	field := strings.Split(ports, ":")
	if len(field) > 3 {
		return nil, fmt.Errorf("it has too many parts")
	}
	first, last, err := span(field[len(field)-1])
	if err != nil || len(field) == 1 || field[len(field)-2] == "" {
		return nil, err
	}
	here, hereLast, err := span(field[len(field)-2])
	if err != nil {
		return nil, err
	}
	if last-first != hereLast-here {
		return nil, fmt.Errorf("the ranges have different lengths")
	}
	for i := range last - first + 1 {
		all = append(all, [2]uint16{uint16(first + i), uint16(here + i)})
	}
	return all, nil
}

func span(text string) (first, last int, err error) {
	low, high, ranged := strings.Cut(text, "-")
	if first, err = port(low); err != nil || !ranged {
		return first, first, err
	}
	if last, err = port(high); err == nil && last < first {
		err = fmt.Errorf("%s ends before it begins", text)
	}
	return first, last, err
}

func port(text string) (int, error) {
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("%q is no port", text)
	}
	return int(n), nil
}

// Sources are the directories and files of this machine that the user has
// mounted, below dir if they are relative; Targets are where in the container
// something of his is.
func (r *Run) Sources(dir string) (sources []string) {
	for _, o := range r.Options {
		from := ""
		switch o.Name {
		case "volume":
			if field := strings.Split(o.Value, ":"); len(field) > 1 {
				from = field[0]
			}
		case "mount":
			if parts := pairs(o.Value); parts["type"] == "bind" {
				from = first(parts, "src", "source")
			}
		}
		switch {
		case path.IsAbs(from):
			sources = append(sources, path.Clean(from))
		case strings.HasPrefix(from, "."): // other names are those of volumes
			sources = append(sources, path.Join(dir, from))
		}
	}
	if r.has("rootfs") {
		p, _, _ := strings.Cut(r.Image, ":")
		if !path.IsAbs(p) {
			p = path.Join(dir, p)
		}
		sources = append(sources, path.Clean(p))
	}
	return sources
}

// Targets are the paths in the container where the user has mounted something.
func (r *Run) Targets() (targets []string) {
	for _, o := range r.Options {
		to := ""
		switch o.Name {
		case "volume":
			field := strings.Split(o.Value, ":")
			to = field[min(1, len(field)-1)]
		case "mount":
			to = first(pairs(o.Value), "dst", "destination", "target")
		case "tmpfs":
			to, _, _ = strings.Cut(o.Value, ":")
		}
		if path.IsAbs(to) {
			targets = append(targets, path.Clean(to))
		}
	}
	return targets
}

func pairs(text string) map[string]string {
	all := map[string]string{}
	for part := range strings.SplitSeq(text, ",") {
		name, value, _ := strings.Cut(part, "=")
		all[name] = value
	}
	return all
}

func first(of map[string]string, names ...string) string {
	for _, n := range names {
		if of[n] != "" {
			return of[n]
		}
	}
	return ""
}

// Option is the last value of an option; ok: it is there.
func (r *Run) Option(name string) (value string, ok bool) {
	for _, o := range r.Options {
		if o.Name == name {
			value, ok = o.Value, true
		}
	}
	return value, ok
}

func (r *Run) has(name string) bool {
	return slices.ContainsFunc(r.Options, func(o Option) bool { return o.Name == name && o.on() })
}

func texts(options []Option) (all []string) {
	for _, o := range options {
		all = append(all, o.String())
	}
	return all
}
