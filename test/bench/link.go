package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
	"time"
)

// A link is a way to the cluster's API server: whoever uses its kubeconfig
// takes it.
type link struct{ kubeconfig string }

// A line is what a link is made worse by. The zero value changes nothing.
type line struct {
	delay time.Duration // of all that is sent, each way
	rate  int64         // bytes a second each way, of all connections together; 0: no limit
}

// direct is the link as it is.
func (w *world) direct() link { return link{w.at("kubeconfig")} }

// over is a link whose bytes take a line; it ends with the area.
func (w *world) over(ctx context.Context, as line) (link, error) {
	config, err := os.ReadFile(w.at("kubeconfig"))
	if err != nil {
		return link{}, err
	}
	server, err := w.cluster.Kubectl(ctx, "config", "view", "-o", "jsonpath={.clusters[0].cluster.server}")
	if err != nil {
		return link{}, err
	}
	to, err := url.Parse(server)
	if err != nil {
		return link{}, err
	}
	r, err := startRelay(to.Host, as)
	if err != nil {
		return link{}, err
	}
	// Sessions remove their agents after the command has ended, over this link.
	w.later(func() error {
		quiet, cancel := context.WithTimeout(context.Background(), tearDownTime)
		defer cancel()
		return errors.Join(w.quiet(quiet, agents), r.close())
	})
	through := fmt.Sprintf("https://%s\n    tls-server-name: %s", r.ln.Addr(), to.Hostname())
	text := strings.Replace(string(config), server, through, 1)
	if text == string(config) {
		return link{}, fmt.Errorf("the kubeconfig does not name %s", server)
	}
	l := link{w.at(fmt.Sprintf("kubeconfig-%v-%d", as.delay, as.rate))}
	return l, errors.Join(os.WriteFile(l.kubeconfig, []byte(text), 0o600), os.Chown(l.kubeconfig, user, user))
}
