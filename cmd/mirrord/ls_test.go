package main

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
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

// TestCompletionIsNotSlow: a cluster that does not answer any more is waited for
// at one Tab, not at each; what it said last is offered meanwhile.
func TestCompletionIsNotSlow(t *testing.T) {
	var asked atomic.Int32
	var silent atomic.Bool
	over := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		if silent.Load() {
			<-over
			return
		}
		crowd(3).ServeHTTP(w, r)
	}))
	defer server.Close()
	defer close(over)
	home := t.TempDir()
	kubeconfig := kubeconfigOf(t, home, server.URL)
	tab := func(namespace string) (offered int, requests int32) {
		t.Helper()
		before := asked.Load()
		c := mirrordCommand(home, "__complete", "exec", "-n", namespace, "-t", "")
		c.Env = append(c.Env, "KUBECONFIG="+kubeconfig, "XDG_CACHE_HOME="+home)
		out, err := c.Output()
		if err != nil {
			t.Fatal(err)
		}
		return strings.Count(string(out), "pod/web-"), asked.Load() - before
	}
	if offered, _ := tab("shop"); offered != 3 {
		t.Fatalf("%d pods are offered, want 3", offered)
	}
	silent.Store(true)
	kept, err := filepath.Glob(filepath.Join(home, "mirrord/completion/*"))
	if err != nil || len(kept) != 1 {
		t.Fatalf("kept are %q: %v", kept, err)
	}
	old := time.Now().Add(-time.Hour)
	if err := os.Chtimes(kept[0], old, old); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		namespace string // of another nothing is known
		offered   int
	}{{"shop", 3}, {"other", 0}} {
		if offered, requests := tab(c.namespace); offered != c.offered || requests == 0 {
			t.Errorf("%s: %d pods are offered after %d requests, want %d after some", c.namespace, offered, requests, c.offered)
		}
		if offered, requests := tab(c.namespace); offered != c.offered || requests != 0 {
			t.Errorf("%s, again: %d pods are offered after %d requests, want %d after none", c.namespace, offered, requests, c.offered)
		}
	}
}
