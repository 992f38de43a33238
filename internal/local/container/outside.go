package container

import (
	"path"
	"slices"
)

// engineNames are the engines that people know.
var engineNames = []string{"docker", "podman", "nerdctl"}

// starting are the words by which they start something.
var starting = []string{"run", "create", "start", "exec", "compose", "kube", "play"}

// Outside says for a person why a container that argv, the command of a session,
// starts has nothing of that session; empty: it starts none that is known.
func Outside(argv []string) string {
	name := path.Base(argv[0])
	if !slices.Contains(engineNames, name) || !slices.ContainsFunc(argv[1:], func(word string) bool { return slices.Contains(starting, word) }) {
		return ""
	}
	return name + "'s containers are outside of this session: they have neither the target's network nor its files and variables; to have them: mirrord container ... -- podman run IMAGE"
}
