package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// api is the cluster's API as plain HTTP, through a "kubectl proxy" on a socket
// that only root can open: what is compared with mirrord must not pay for the
// start of a kubectl.
type api struct {
	client    *http.Client
	namespace string
}

// api starts the proxy; it ends with the area.
func (w *world) api(ctx context.Context) (*api, error) {
	socket := w.at("api")
	p, err := start(w.kubectlCommand("proxy", "--unix-socket="+socket))
	if err != nil {
		return nil, err
	}
	w.later(p.kill)
	if _, err := p.line(ctx, 20*time.Second); err != nil { // it serves now
		return nil, err
	}
	p.ignore()
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}
	w.later(func() error { transport.CloseIdleConnections(); return nil })
	return &api{client: &http.Client{Transport: transport}, namespace: w.namespace}, nil
}

// request sends a request and gives the body of its answer, which the caller
// closes.
func (a *api) request(ctx context.Context, method, path, body string) (io.ReadCloser, error) {
	r, err := http.NewRequestWithContext(ctx, method, "http://localhost"+path, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Content-Type", "application/json")
	answer, err := a.client.Do(r)
	if err != nil {
		return nil, err
	}
	if answer.StatusCode/100 != 2 {
		defer answer.Body.Close()
		text, _ := io.ReadAll(io.LimitReader(answer.Body, 4<<10))
		return nil, fmt.Errorf("%s %s: %s: %s", method, path, answer.Status, text)
	}
	return answer.Body, nil
}

// emptyJob is a Job whose program ends at once, on a given node, with as little
// around it as the agent's Job has.
const emptyJob = `{"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": %[1]q}, "spec": {"backoffLimit": 0, "template":
	{"metadata": {"labels": {"bench": "empty", "job": %[1]q}}, "spec": {"nodeName": %[2]q, "restartPolicy": "Never", "automountServiceAccountToken": false,
	"enableServiceLinks": false, "terminationGracePeriodSeconds": 2, "containers": [{"name": "main", "image": %[3]q, "command": ["/mirrord-agent", "-h"]}]}}}}`

// startEmptyJob orders an empty Job and gives the time until its container is
// seen to have started, then orders its deletion.
func (a *api) startEmptyJob(ctx context.Context, name, node, image string) (_ time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	begin := time.Now()
	pods := "/api/v1/namespaces/" + a.namespace + "/pods?watch=true&labelSelector=" + url.QueryEscape("job="+name)
	events, err := a.request(ctx, http.MethodGet, pods, "")
	if err != nil {
		return 0, err
	}
	defer events.Close()
	jobs := "/apis/batch/v1/namespaces/" + a.namespace + "/jobs"
	made, err := a.request(ctx, http.MethodPost, jobs, fmt.Sprintf(emptyJob, name, node, image))
	if err != nil {
		return 0, err
	}
	made.Close()
	defer func() {
		deleted, derr := a.request(ctx, http.MethodDelete, jobs+"/"+name, `{"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"}`)
		if derr == nil {
			deleted.Close()
		}
		err = errors.Join(err, derr)
	}()
	in := json.NewDecoder(events)
	for {
		var e podEvent
		if err := in.Decode(&e); err != nil {
			return 0, fmt.Errorf("watch the pod of job %s: %w", name, err)
		}
		if e.begun() {
			return time.Since(begin), nil
		}
	}
}

// podEvent is what a watch says of a pod, as far as it matters here.
type podEvent struct {
	Object struct {
		Status struct {
			ContainerStatuses []struct {
				State struct{ Running, Terminated *struct{} }
			}
		}
	}
}

// begun reports whether the container has started, or even ended.
func (e *podEvent) begun() bool {
	for _, c := range e.Object.Status.ContainerStatuses {
		if c.State.Running != nil || c.State.Terminated != nil {
			return true
		}
	}
	return false
}
