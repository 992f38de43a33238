package kube

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

const (
	// againPause is kept between two tries of a request that an API server which
	// restarts did not answer: it takes some seconds to come back.
	againPause = 250 * time.Millisecond
	// awayTime is how long an API server may be away during an agent's start,
	// after it answered a moment ago: that of a single control plane takes less
	// to restart.
	awayTime = 20 * time.Second
)

// again asks until the answer is not one that passes by itself, or ctx ends; it
// returns the last answer. ask must bear to be repeated.
func again(ctx context.Context, ask func(context.Context) error) error {
	for {
		err := ask(impatient(ctx))
		if err == nil || !passing(err) || pause(ctx, againPause) != nil {
			return err
		}
	}
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// passing reports whether err says that the API server is away, or not ready
// yet: a moment later it may answer.
func passing(err error) bool {
	var status apierrors.APIStatus
	switch {
	case errors.As(err, &status):
		code := status.Status().Code
		return code >= http.StatusInternalServerError || code == http.StatusTooManyRequests
	case strings.Contains(err.Error(), "getting credentials:"), badCertificate(err):
		return false
	}
	return unreachable(err) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}
