package image

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/mirrord-go/mirrord/internal/failure"
)

// registryTime bounds a push that goes nowhere: the library tries again a few
// times.
const registryTime = 5 * time.Minute

// Push makes the image that Write makes, named ref, and pushes it to the
// registry that ref names, with the credentials that docker login has left.
// Codes: image-name, image-push-refused, image-not-pushed.
func Push(ctx context.Context, agent []byte, ref, version, arch string) error {
	ctx, cancel := context.WithTimeout(ctx, registryTime)
	defer cancel()
	to, err := name.NewTag(ref)
	if err != nil {
		return failure.Usage("image-name", fmt.Sprintf("%q is no name of an image", ref), "mirrord agent image --push registry.example/team/mirrord-agent:1", "%v", err)
	}
	f, err := os.CreateTemp("", "mirrord-agent-*.tar")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	err = Write(f, agent, to.Name(), version, arch)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	img, err := tarball.ImageFromPath(f.Name(), &to)
	if err != nil {
		return fmt.Errorf("read the image just made: %w", err)
	}
	err = remote.Write(to, img, remote.WithContext(ctx), remote.WithAuthFromKeychain(authn.DefaultKeychain))
	if err == nil {
		return nil
	}
	host := to.RegistryStr()
	if t, ok := errors.AsType[*transport.Error](err); ok && (t.StatusCode == http.StatusUnauthorized || t.StatusCode == http.StatusForbidden) {
		return failure.Wrap(err, "image-push-refused", fmt.Sprintf("the registry %s does not let you push %s", host, to.RepositoryStr()),
			"log in first: docker login "+host+" (or podman, oras: the same file is read)")
	}
	return failure.Wrap(err, "image-not-pushed", "the image could not be pushed to "+host, "check the registry's name, and that it can be reached from here")
}
