package cli

import (
	"fmt"

	"github.com/mirrord-go/mirrord/internal/failure"
)

// elsewhere is a command that mirrord has and this program has not: why, and
// what to type instead.
type elsewhere struct{ why, do string }

// commandsElsewhere are such commands by the words that follow mirrord.
var commandsElsewhere = map[string]elsewhere{
	"ui":                 {"there is no web page of sessions; the terminal has a live view", "mirrord status --watch"},
	"wizard":             {"no configuration is asked for; a session starts without one, and editors complete one by its schema", "mirrord exec -t pick COMMAND, or mirrord config schema > .mirrord/schema.json"},
	"fix":                {"relative paths in a kubeconfig are taken from where that file is, so there is nothing to fix", "mirrord doctor says whether the kubeconfig works"},
	"chaos":              {"it makes no faults on purpose", "put a proxy that does into the way: feature.network.outgoing.filter says which connections stay here"},
	"diagnose latency":   {"a session measures its link by itself", "mirrord status --watch shows how long requests, lookups and files take"},
	"diagnose license":   {"there are no licences", "mirrord doctor says whether all is there that a session needs"},
	"completion elvish":  {noElvish, "mirrord completion bash, fish, powershell or zsh"},
	"completions elvish": {noElvish, "mirrord completion bash, fish, powershell or zsh"},
	"newsletter":         {"there is none", "mirrord --help"},
	"teams":              {withoutOperator, "mirrord --help"},
	"operator":           {withoutOperator, "mirrord doctor; mirrord session ls lists your own sessions"},
	"ci":                 {withoutOperator, "in a pipeline as everywhere: mirrord exec -t TARGET COMMAND, or mirrord session start"},
	"preview":            {withoutOperator, "mirrord exec -t TARGET --steal --header 'NAME: VALUE' COMMAND takes only requests that are yours"},
	"db-branches":        {withoutOperator, "connections go to the target's own databases; feature.env.override names another one"},
	"queues":             {withoutOperator, "consumers share the target's queues; feature.env.override names another one"},
	"qs":                 {withoutOperator, "consumers share the target's queues; feature.env.override names another one"},
	"subscribe":          {withoutOperator, "mirrord --help"},
	"vpn":                {"a session is for one command and what it starts, not for the machine", "mirrord exec COMMAND has the cluster's network and names"},
	"container-ext":      containerExt,
	"extract":            {withoutLayer, "mirrord exec -t TARGET COMMAND"},
	"intproxy":           {withoutLayer, "mirrord exec -t TARGET COMMAND"},
	"extproxy":           {withoutLayer, "mirrord exec -t TARGET COMMAND"},
	"cleanup-guardian":   {withoutLayer, "mirrord exec -t TARGET COMMAND"},
}

// containerExt is also what ext by itself is.
var containerExt = elsewhere{forEditors, "mirrord debug-config -t TARGET .vscode/launch.json 'NAME', or mirrord ext jetbrains"}

const (
	withoutOperator = "it is for mirrord's Operator, which this program neither has nor needs"
	forEditors      = "editors start the command of a launch configuration in a session, so there is nothing that they load"
	noElvish        = "for elvish there is no script; bash, fish, powershell and zsh have one"
	withoutLayer    = "nothing is loaded into programs, and no proxy process stands beside them"
)

// notHere answers a command line of mirrord, without flags in front, that this
// program does not take; nil: it is none.
func notHere(args []string) *failure.Error {
	words := args[:min(len(args), 2)]
	for n := len(words); n > 0; n-- {
		name := words[0]
		if n == 2 {
			name += " " + words[1]
		}
		if e, ok := commandsElsewhere[name]; ok {
			return &failure.Error{Code: "command-elsewhere", What: fmt.Sprintf("this mirrord has no command %q", name), Why: e.why, Do: e.do, Exit: exitUsage}
		}
	}
	return nil
}
