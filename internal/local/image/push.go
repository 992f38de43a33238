package image

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/mirrord-go/mirrord/internal/failure"
)

// registryTime bounds a push that goes nowhere: the library tries again a few
// times.
const registryTime = 5 * time.Minute

// Pushing says where an image goes, and how.
type Pushing struct {
	Ref string // HOST/PATH:TAG
	// Insecure allows HTTP without TLS, to a registry on this machine's loopback.
	Insecure bool
	// Progress is told how many bytes of how many went out; nil: nobody. It is
	// called from other goroutines.
	Progress func(sent, total int64)
}

// Tagged gives ref the tag of this build's own image, where it has none: nodes
// keep what they have by a name, so a name that says "latest" would keep an old
// agent.
func Tagged(ref, version string) (string, error) {
	if strings.Contains(ref[strings.LastIndexByte(ref, '/')+1:], ":") {
		return ref, nil
	}
	own, err := Reference(version)
	if err != nil {
		return "", err
	}
	return ref + strings.TrimPrefix(own, Repository), nil
}

// Push pushes the image to the registry that the ref names, with the credentials
// that docker login has left, or a helper of docker's gives. What the registry
// has already is not sent. Codes: image-name, image-push-credentials,
// image-push-plain, image-push-certificate, image-push-refused,
// image-not-pushed.
func (i *Image) Push(ctx context.Context, p Pushing) error {
	var options []name.Option
	if p.Insecure {
		options = append(options, name.Insecure)
	}
	to, err := name.NewTag(p.Ref, options...)
	if err != nil {
		return failure.Usage("image-name", fmt.Sprintf("%q is no name of an image", p.Ref), "mirrord agent image --push registry.example/team/mirrord-agent:1", "%v", err)
	}
	ctx, cancel := context.WithTimeout(ctx, registryTime)
	defer cancel()
	auth, err := authn.Resolve(ctx, authn.DefaultKeychain, to.Repository)
	if err != nil {
		return failure.Wrap(err, "image-push-credentials", "the credentials for "+to.RegistryStr()+" cannot be read",
			"mend docker's configuration (~/.docker/config.json names the helper that keeps them), or log in again: "+login(to))
	}
	wire := newWire(p.Insecure)
	defer wire.close()
	pusher, err := remote.NewPusher(remote.WithContext(ctx), remote.WithAuth(auth), remote.WithTransport(wire))
	if err == nil {
		err = i.send(ctx, pusher, to, p.Progress)
	}
	if err != nil {
		return explain(err, to, auth == authn.Anonymous)
	}
	return nil
}

// send gives the registry the blobs, then the manifests that name them.
func (i *Image) send(ctx context.Context, pusher *remote.Pusher, to name.Tag, progress func(sent, total int64)) error {
	var total, before int64
	for _, v := range i.variants {
		total += int64(v.config.Size + v.layer.Size)
	}
	for _, v := range i.variants {
		for _, b := range []blob{v.layer, v.config} {
			earlier := before
			layer := counted{Layer: static.NewLayer(b.content, types.MediaType(b.MediaType)), count: func(n int64) {
				if progress != nil {
					progress(earlier+n, total)
				}
			}}
			if err := pusher.Upload(ctx, to.Repository, layer); err != nil {
				return err
			}
			before += int64(b.Size)
		}
		if len(i.variants) > 1 {
			if err := pusher.Put(ctx, to.Digest(v.manifest.Digest), taggable(v.manifest)); err != nil {
				return err
			}
		}
	}
	return pusher.Put(ctx, to, taggable(i.head))
}

// taggable is a manifest as the library takes it.
type taggable blob

func (t taggable) RawManifest() ([]byte, error) { return t.content, nil }
func (t taggable) MediaType() (types.MediaType, error) {
	return types.MediaType(t.descriptor.MediaType), nil
}

// counted is a blob that tells how much of it was read.
type counted struct {
	v1.Layer
	count func(n int64)
}

func (c counted) Compressed() (io.ReadCloser, error) {
	r, err := c.Layer.Compressed()
	return &countedReader{ReadCloser: r, count: c.count}, err
}

type countedReader struct {
	io.ReadCloser
	n     atomic.Int64
	count func(n int64)
}

func (r *countedReader) Read(b []byte) (int, error) {
	n, err := r.ReadCloser.Read(b)
	r.count(r.n.Add(int64(n)))
	return n, err
}

// explain says what a failed push means, and what helps.
func explain(err error, to name.Tag, anonymous bool) error {
	host, path := to.RegistryStr(), to.RepositoryStr()
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return failure.Wrap(err, "image-push-certificate", "the certificate of the registry "+host+" is signed by nobody whom this machine knows",
			"name the authority that signed it: SSL_CERT_FILE=/path/to/ca.pem mirrord agent image --push "+to.String())
	}
	if far := errors.Is(err, errNotLoopback); far || errors.Is(err, http.ErrSchemeMismatch) {
		f := &failure.Error{Code: "image-push-plain", What: "the registry " + host + " does not speak TLS", Cause: err,
			Why: "whoever is on the way could read the credentials and change the image: without TLS mirrord pushes to this machine's loopback only, with --insecure",
			Do: "bring the registry to this machine, with ssh -L 5000:REGISTRY:5000 HOST or kubectl port-forward service/REGISTRY 5000,\n" +
				"then: mirrord agent image --insecure --push localhost:5000/" + path + ":" + to.TagStr()}
		if far {
			f.What = "the registry " + host + " is not on this machine's loopback, and there is no way to it with TLS"
		}
		return f
	}
	answer, _ := errors.AsType[*transport.Error](err)
	switch {
	case answer == nil:
	case answer.StatusCode == http.StatusUnauthorized, answer.StatusCode == http.StatusForbidden:
		do := "log in first: " + login(to) + " (or podman, oras: the same file is read)"
		if !anonymous {
			do = "ask for the right to write there, or log in as somebody who has it: " + login(to)
		}
		return failure.Wrap(err, "image-push-refused", fmt.Sprintf("the registry %s does not let you push %s", host, path), do)
	case answer.StatusCode == http.StatusNotFound:
		return failure.Wrap(err, "image-not-pushed", fmt.Sprintf("the registry %s has no place for %s", host, path),
			"create the project or the repository there first, as some registries want it")
	}
	return failure.Wrap(err, "image-not-pushed", "the image could not be pushed to "+host, "check the registry's name, and that it can be reached from here")
}

// login is the command that leaves credentials for a registry.
func login(to name.Tag) string {
	if to.RegistryStr() == name.DefaultRegistry {
		return "docker login"
	}
	return "docker login " + to.RegistryStr()
}

var (
	errPlain       = errors.New("HTTP without TLS is not used")
	errNotLoopback = errors.New("not an address of this machine's loopback: HTTP without TLS is not used")
)

// wire is the way to a registry. Left alone, the library falls back to HTTP
// without TLS for every private address, and follows wherever the registry
// points to get a token or to upload; with credentials. Here that takes being
// asked for, and an address of loopback.
type wire struct{ secure, plain *http.Transport }

func newWire(insecure bool) *wire {
	w := &wire{secure: http.DefaultTransport.(*http.Transport).Clone()}
	if insecure {
		d := net.Dialer{ControlContext: onlyLoopback}
		w.plain = &http.Transport{DialContext: d.DialContext} // and by no proxy
	}
	return w
}

// onlyLoopback looks at the address itself: a name may lead anywhere.
func onlyLoopback(_ context.Context, _, address string, _ syscall.RawConn) error {
	if a, err := netip.ParseAddrPort(address); err != nil || !a.Addr().Unmap().IsLoopback() {
		return errNotLoopback
	}
	return nil
}

func (w *wire) RoundTrip(r *http.Request) (*http.Response, error) {
	switch {
	case r.URL.Scheme == "https":
		return w.secure.RoundTrip(r)
	case w.plain == nil:
		return nil, errPlain
	}
	return w.plain.RoundTrip(r)
}

func (w *wire) close() {
	w.secure.CloseIdleConnections()
	if w.plain != nil {
		w.plain.CloseIdleConnections()
	}
}
