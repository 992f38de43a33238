package main

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
)

// TestLsAsksOnce: what is asked for a list does not grow with the pods, so that a
// thousand are listed as fast as the cluster gives them; and completion asks nothing
// that it knows.
func TestLsAsksOnce(t *testing.T) {
	var asked atomic.Int32
	count := func(pods crowd, args ...string) int32 {
		t.Helper()
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			asked.Add(1)
			pods.ServeHTTP(w, r)
		}))
		defer server.Close()
		home := t.TempDir()
		kubeconfig := kubeconfigOf(t, home, server.URL)
		asked.Store(0)
		for range 2 {
			c := mirrordCommand(home, args...)
			c.Env = append(c.Env, "KUBECONFIG="+kubeconfig)
			out, err := c.Output()
			if n := strings.Count(string(out), "pod/web-"); err != nil || n != int(pods) {
				t.Errorf("%v lists %d pods of %d, %v", args, n, pods, err)
			}
		}
		return asked.Load()
	}
	few, many := count(10, "ls", "-o", "name"), count(1000, "ls", "-o", "name")
	if few != many {
		t.Errorf("10 pods are listed with %d requests, 1000 with %d", few, many)
	}
	if n := count(1000, "__complete", "exec", "-t", ""); 2*n != many {
		t.Errorf("completion asks %d times for two Tabs, ls %d times for two lists", n, many)
	}
}
