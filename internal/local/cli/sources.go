package cli

import (
	"crypto/rand"
	"encoding/hex"
	"io"
	"os"
	"sync"

	"github.com/mirrord-go/mirrord/internal/config"
	"github.com/mirrord-go/mirrord/internal/event"
	"github.com/mirrord-go/mirrord/internal/failure"
	"github.com/mirrord-go/mirrord/internal/local/image"
)

// configuration is what flags, environment and file say about a session.
func (a *app) configuration(flags map[string]config.Setting, env []string, dir string) (config.Config, []event.Event, error) {
	return config.Load(a.sourcesOf(flags, env, dir))
}

// sourcesOf are what a configuration is made from.
func (a *app) sourcesOf(flags map[string]config.Setting, env []string, dir string) config.Sources {
	return config.Sources{
		Flags: flags, Environ: env, Dir: dir,
		Read:         a.read,
		Stdin:        sync.OnceValues(func() ([]byte, error) { return io.ReadAll(os.Stdin) }),
		RandomKey:    randomKey,
		DefaultImage: func() (string, error) { return image.Reference(a.version) },
	}
}

// sources are sourcesOf for this very process.
func (a *app) sources(flags map[string]config.Setting) (config.Sources, error) {
	dir, err := os.Getwd()
	if err != nil {
		return config.Sources{}, failure.Wrap(err, "no-working-directory", "the working directory cannot be told", "cd to a directory that exists")
	}
	return a.sourcesOf(flags, os.Environ(), dir), nil
}

// randomKey names a session that nobody named, as mirrord does: five hexadecimal
// digits, enough to tell the sessions of a team apart.
func randomKey() string {
	var b [3]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])[:5]
}
