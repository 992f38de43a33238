package house

import (
	"errors"
	"fmt"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/mirrord-go/mirrord/"

// layers is the policy of this tree. "a, b < c" means c may import a and b.
// Do not edit it to make a build pass: change the code, or change the policy
// in a change of its own that says why.
//
// A name in capitals is a floor: a set of rooms, and everything below it.
const layers = `
	# Words, judgement, wire: pure, the same on both machines.
	NONE < datagram < udpflow; # UDP payloads
	NONE < budget < relay, http1; # they hold memory that is counted
	budget < http2 < agent/incoming; # connections that are divided by streams
	NONE < local/ids;
	NONE < failure, event, protocol, budget, datagram, relay, http1 < WORDS;
	NONE < rules/weight < rules/expression; # how large expressions become
	rules/weight < rules/jsonpath, rules/jq; # languages of filters, without what they are for
	failure, protocol, rules/expression < rules;
	rules, rules/weight, rules/jsonpath, rules/jq < rules/filter < config;
	NONE < config/document < config;
	NONE < debugger < config; # which of them count
	config/document, failure < debugger/launch < local/cli;
	debugger, shell < debugger/jetbrains < local/cli;
	event, budget < config; # what a person should know about a configuration that works
	protocol, budget < link;
	protocol < protocol/protocoltest;
	NONE < link/resume;
	NONE < pwrite < agent/files, local/files; # places of files that are appended to
	protocol < statx < agent/files, local/files; # what is said of a file
	NONE < gather < link/seal, local/kube; # pieces that TLS writes

	# Kernel tools both machines need.
	NONE < nft, netns, mountinfo, rights < KERNEL;
	NONE < shell < debugger/launch, local/host, local/demo, local/session; # commands that are printed to be typed

	# The developer's machine: mechanisms, then ways to an agent.
	NONE < local/waits < local/activity, local/fusefs, local/status; # how long a program waits, as histograms
	WORDS < local/activity < local/control; # what goes on, as values, for those who look at a session
	WORDS < local/netstack, local/image, local/kin;
	WORDS, local/ids < local/fusefs; # which owners can be shown
	WORDS, KERNEL < local/sandbox/handoff, local/sandbox/tree, local/sandbox/route < local/sandbox, local/sandbox/boot;
	local/sandbox/route < local/sandbox/veth < local/sandbox/boot; # the network device, where there is no TUN
	local/sandbox/handoff, local/ids < local/host < local/sandbox, local/sandbox/boot; # what a sandbox needs, as data
	local/netstack, local/fusefs, local/sandbox, local/kin < LOCALMECH;
	WORDS, KERNEL, link/seal < local/kube, local/process, local/demo < REACH;

	# The cluster: mechanisms.
	NONE < agent/threadpool < agent/target, agent/files; # threads that are the target's user
	WORDS, KERNEL < agent/target, agent/claims < agent/redirect, agent/capture < AGENTMECH;
	agent/capture < agent/drain < AGENTMECH;
	NONE < agent/packet < agent/redirect, agent/capture, agent/drain; # packets as bytes
	NONE < agent/conntrack < agent/redirect, agent/capture; # what the kernel knows of a connection
	rules < agent/tlsport < agent/incoming, agent/server; # TLS of the target's server
	nft < agent/mesh < AGENTMECH; # whose proxy stands before the target's ports

	NONE < vitals < local/cli, cmd/mirrord-agent; # what a process holds, whatever it does
	budget < unixsock < agent/target, agent/outgoing, agent/server, local/sandbox, local/outgoing; # connected unix sockets
	budget < udpflow < agent/redirect, agent/capture, agent/incoming, local/incoming; # datagrams as connections
	NONE < quiet < agent/redirect, agent/server, agent/target, local/kube; # connections whose system calls the scheduler does not hear of
	NONE < ping < agent/target, agent/outgoing, local/outgoing; # sockets for ICMP echo
	NONE < agent/confine; # what the agent's process gives up, whatever it serves

	# The flows.
	NONE < rules/sharing < agent/incoming, agent/server; # how sessions share a port
	WORDS, rules, rules/filter, link < FLOWBASE;
	local/fusefs < local/files; # the flow is the Tree that the mechanism serves
	NONE < local/loopback; # listeners for programs of this machine only
	local/activity, local/loopback < local/dns, local/outgoing, local/incoming;
	FLOWBASE < local/dns, local/files, local/outgoing, local/incoming < LOCALFLOW;
	FLOWBASE < agent/env, agent/files, agent/outgoing, agent/incoming < AGENTFLOW;

	# Composition, and what a person meets.
	WORDS < local/monitor;
	rules < local/places < local/session, local/cli; # what of this machine a session needs
	rights < local/roster; # where sessions that are kept are found
	NONE < local/orphan; # processes that no walk through a tree of processes finds
	failure, local/ids < local/container < local/control, local/engine, local/front, local/session; # a container's command line, as text
	local/control, local/sandbox, local/roster, local/orphan < local/front;
	WORDS, rules, local/fusefs < local/learn; # stands around the Tree that is served, whoever made it
	config, link, link/resume, link/seal, local/activity < local/attach; # the hold on an agent, whatever is served over it
	local/control, local/roster < local/look; # the same for those who look at a session
	local/attach < local/replicas; # an agent beside each pod of a workload
	local/attach, local/look, local/learn, local/replicas, LOCALMECH, LOCALFLOW < local/session;
	local/attach, local/look < local/bare; # sessions without a sandbox: nothing that only Linux has
	local/bare, local/loopback, local/dns, local/outgoing, local/incoming < local/forward < local/cli;
	local/bare, local/incoming, local/monitor < local/dump < local/cli;
	debugger, local/sandbox, local/kube < local/doctor; # looks at all of them without a session
	FLOWBASE < local/explain; # the rules without what acts on them
	event < local/journal;
	event < local/timings < local/cli; # start and end as a table
	NONE < profile < local/profiles, local/session, local/cli, agent/server; # what Go's profiler sees of a process
	NONE < local/profiles < local/session, local/cli; # the same for go tool pprof
	NONE < local/diagnose;
	local/activity, local/monitor < local/record < local/session; # what goes on, in a file
	local/activity, local/control, local/monitor < local/status; # text of sessions
	local/monitor < local/pick < local/cli; # a choice on a terminal
	NONE < local/interleave < local/cli; # the output of several programs
	failure < local/group < local/cli; # programs that begin and end together
	local/container, local/engine, local/status, local/session, local/front, local/roster, local/learn, local/monitor, local/image, local/doctor, local/explain, local/journal, local/diagnose, REACH < local/cli;
	local/cli, local/sandbox/boot < cmd/mirrord;
	local/cli < packaging/papers; # what lies beside the program in a package
	NONE < packaging/zip;
	link/resume, link/seal, AGENTMECH, AGENTFLOW < agent/server;
	NONE < agent/gear; # processors of the process, whatever it serves
	agent/server, agent/confine, agent/gear < cmd/mirrord-agent;

	# Houses for tests.
	NONE < test/bench/load, test/bench/measure;
	testcluster, test/bench/measure < test/bench;
	NONE < house, leak, testcert, testnet, testcluster, testdocs, test/packages, test/summary, test/e2e/programs/chaos, test/e2e/programs/crowd, test/e2e/programs/debugged, test/e2e/programs/goserver, test/e2e/programs/lasting, test/e2e/programs/network, test/e2e/programs/posix, test/e2e/programs/probe;
`

// never lists edges that stay forbidden even where a floor would allow them,
// with the reason shown to whoever draws one.
var never = []struct{ from, to, why string }{
	{"agent/*", "local/*", "the agent is another machine and another release"},
	{"local/*", "agent/*", "the agent is another machine and another release"},
	{"local/{flow}", "local/{flow}", "flows meet only in session"},
	{"agent/{flow}", "agent/{flow}", "flows meet only in server"},
}

var flows = []string{"env", "dns", "files", "outgoing", "incoming"}

// allowed gives, for every room named in policy, the set of rooms it may import.
func allowed(policy string) (map[string]map[string]bool, error) {
	may := map[string]map[string]bool{"NONE": {}}
	add := func(n string) map[string]bool {
		if may[n] == nil {
			may[n] = map[string]bool{}
		}
		return may[n]
	}
	policy = regexp.MustCompile(`(?m)#.*$`).ReplaceAllString(policy, "")
	for rule := range strings.SplitSeq(policy, ";") {
		var before []string
		for i, group := range strings.Split(rule, "<") {
			var names []string
			for n := range strings.SplitSeq(group, ",") {
				if n = strings.TrimSpace(n); n != "" {
					names = append(names, n)
				}
			}
			for _, n := range names {
				m := add(n)
				for _, b := range before {
					if may[b] == nil {
						return nil, fmt.Errorf("%q is used before it is defined", b)
					}
					m[b] = true
					for x := range may[b] {
						m[x] = true
					}
				}
			}
			if i > 0 && len(names) == 0 {
				return nil, errors.New("empty group in: " + rule)
			}
			before = names
		}
	}
	return may, nil
}

// A room is one package of this module.
type room struct {
	Name    string   // import path without the module and "internal/"
	Docs    []string // package comments, one a file that has one
	Imports []string
}

// rooms reads every package of the module from its source. It does not run the
// go command: files that the test opens itself are part of its cache key, so a
// cached "ok" can never hide a new import.
func rooms(t *testing.T) []room {
	t.Helper()
	root := "../.."
	found := map[string]*room{}
	err := filepath.WalkDir(root, func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			switch n := d.Name(); {
			case file == root:
				return nil
			case n == "testdata", n == "node_modules", strings.HasPrefix(n, "."), strings.HasPrefix(n, "_"):
				return filepath.SkipDir
			case ownModule(file):
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(file, ".go") || strings.HasSuffix(file, "_test.go") {
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly|parser.ParseComments)
		if err != nil {
			return err
		}
		dir, err := filepath.Rel(root, filepath.Dir(file))
		if err != nil {
			return err
		}
		n := strings.TrimPrefix(filepath.ToSlash(dir), "internal/")
		r := found[n]
		if r == nil {
			r = &room{Name: n}
			found[n] = r
		}
		if f.Doc != nil {
			r.Docs = append(r.Docs, f.Doc.Text())
		}
		for _, i := range f.Imports {
			path, err := strconv.Unquote(i.Path.Value)
			if err != nil {
				return err
			}
			r.Imports = append(r.Imports, path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	var all []room
	for _, n := range slices.Sorted(maps.Keys(found)) {
		all = append(all, *found[n])
	}
	return all
}

// ownModule reports whether dir is the root of another module.
func ownModule(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, "go.mod"))
	return err == nil
}

// name is a room's name in the policy; ok is false for other modules.
func name(importPath string) (_ string, ok bool) {
	s, ok := strings.CutPrefix(importPath, module)
	return strings.TrimPrefix(s, "internal/"), ok
}

func match(pattern, room string) bool {
	if dir, ok := strings.CutSuffix(pattern, "{flow}"); ok {
		rest, ok := strings.CutPrefix(room, dir)
		return ok && slices.Contains(flows, rest)
	}
	if dir, ok := strings.CutSuffix(pattern, "*"); ok {
		return strings.HasPrefix(room, dir)
	}
	return pattern == room
}

func TestLayers(t *testing.T) {
	may, err := allowed(layers)
	if err != nil {
		t.Fatal(err)
	}
	edges := 0
	for _, r := range rooms(t) {
		from := r.Name
		if may[from] == nil {
			t.Errorf("%s has no place in the policy: give it one", from)
			continue
		}
		for _, imp := range r.Imports {
			to, ours := name(imp)
			if !ours {
				continue
			}
			edges++
			if !may[from][to] {
				t.Errorf("%s must not import %s", from, to)
			}
			for _, n := range never {
				if match(n.from, from) && match(n.to, to) {
					t.Errorf("%s must never import %s: %s", from, to, n.why)
				}
			}
		}
	}
	t.Logf("%d edges", edges)
}

func TestPackageDocs(t *testing.T) {
	for _, r := range rooms(t) {
		n := r.Name
		want := "Package " + path.Base(n) + " "
		if strings.HasPrefix(n, "cmd/") || n == "test/summary" || strings.HasPrefix(n, "packaging/") || n == "test/bench" || n == "test/bench/load" || strings.HasPrefix(n, "test/e2e/programs/") {
			want = "Command " + path.Base(n) + " "
		}
		if len(r.Docs) != 1 {
			t.Errorf("%s has %d package comments, not one", n, len(r.Docs))
			continue
		}
		if !strings.HasPrefix(r.Docs[0], want) {
			t.Errorf("%s: package comment %q does not start with %q", n, r.Docs[0], want)
		}
	}
}

// oneRoom names the only rooms that may import a heavy library, by prefix of
// its import path. Everyone else meets it through those rooms.
var oneRoom = map[string][]string{
	"k8s.io/":                                {"local/kube"},
	"gvisor.dev/":                            {"local/netstack"},
	"github.com/hanwen/go-fuse":              {"local/fusefs"},
	"github.com/google/nftables":             {"nft"},
	"github.com/cilium/ebpf":                 {"agent/redirect"},
	"github.com/spf13/":                      {"local/cli"},
	"github.com/google/go-containerregistry": {"local/image"},
	"go.yaml.in/":                            {"config/document"},
	"github.com/pelletier/":                  {"config/document"},
	"github.com/joho/":                       {"rules"},
	"github.com/dlclark/":                    {"rules/expression"},
	"golang.org/x/net/http2":                 {"http2"},
	"os/exec": {"local/sandbox", "local/front", "local/group", "local/process", "local/demo", "local/image", "local/doctor", "local/engine", "leak", "testnet", "testcluster",
		"test/summary", "test/bench", "test/bench/load"},
}

func TestOneRoomPerLibrary(t *testing.T) {
	for _, r := range rooms(t) {
		from := r.Name
		for _, imp := range r.Imports {
			for prefix, only := range oneRoom {
				if strings.HasPrefix(imp, prefix) && !slices.Contains(only, from) {
					t.Errorf("%s imports %s: only %s may", from, imp, strings.Join(only, ", "))
				}
			}
		}
	}
}
