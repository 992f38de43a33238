package sandbox

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/mirrord-go/mirrord/internal/testnet"
)

// denyVar names what this binary forbids itself before it plays its role.
const denyVar = "SANDBOX_TEST_DENY"

func denyRole(what string) int {
	env := slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, denyVar+"=") })
	fmt.Fprintln(os.Stderr, testnet.Deny(what, "/proc/self/exe", os.Args, env))
	return 1
}
