package e2e

import (
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// spread makes the workload of replicas.yaml, and gives who asks its service.
func spread(t *testing.T) *prey {
	t.Helper()
	lent(t, "replicas.yaml")
	kubectl(t, "rollout", "status", "deployment/spread", "--timeout=50s")
	p := &prey{ip: kubectl(t, "get", "service", "spread", "-o", "jsonpath={.spec.clusterIP}")}
	var err error
	if p.client, err = w.cluster.PodProcess(t.Context(), w.namespace, "tools"); err != nil {
		t.Fatal(err)
	}
	return p
}

// spreadPods are the pods that serve, and that are not going away.
func spreadPods(t *testing.T) (all []string) {
	t.Helper()
	out := kubectl(t, "get", "pods", "-l", "app=spread", "-o", `jsonpath={range .items[*]}{.metadata.name} {.metadata.deletionTimestamp}{"\n"}{end}`)
	for line := range strings.Lines(out) {
		if name, going, _ := strings.Cut(strings.TrimSpace(line), " "); going == "" {
			all = append(all, name)
		}
	}
	return all
}

// served waits until every pod's port is the program's, or the pod's own.
func served(t *testing.T, by string, pods []string) {
	t.Helper()
	for _, pod := range pods {
		url := "http://" + podIP(t, pod) + ":" + chaosPort + "/"
		for begin, got := time.Now(), ""; !strings.HasPrefix(got, by); got = request(t, url) {
			if time.Since(begin) > 30*time.Second {
				t.Fatalf("%s is answered %q, want %s", pod, got, by)
			}
		}
	}
}

// What a service spreads over its pods comes here from all of them: those that
// were there, one that comes, those of a rollout, in which no request is lost.
func TestReplicasAreServed(t *testing.T) {
	p := spread(t)
	before := spreadPods(t)
	log := filepath.Join(w.dir, "work", "spread")
	r := start(t, "--verbose", "-t", "deployment/spread", "--steal", "chaos", "serve", chaosPort, log)
	r.stderr.waitFor("comes here, too", runTime)
	served(t, "local", before)

	kubectl(t, "scale", "deployment/spread", "--replicas=3")
	kubectl(t, "rollout", "status", "deployment/spread", "--timeout=50s")
	grown := spreadPods(t)
	if len(grown) != 3 {
		t.Fatalf("the pods are %v, want 3", grown)
	}
	served(t, "local", grown)

	a := askAll(t, p)
	kubectl(t, "rollout", "restart", "deployment/spread")
	kubectl(t, "rollout", "status", "deployment/spread", "--timeout=110s")
	next := spreadPods(t)
	served(t, "local", next)
	if strings.Contains(r.stderr.String(), "is taken") || strings.Contains(r.stderr.String(), "does not come here") {
		t.Error("a port of the target was not given")
	}
	var failed []string
	local := 0
	for _, q := range a.answers() {
		switch {
		case q.answer == "local":
			local++
		case q.failed() && q.answer != "open": // it was asked when the asker ended
			failed = append(failed, q.String())
		}
	}
	if len(failed) > 0 || local == 0 {
		t.Errorf("%d requests were answered here, %d failed:\n%s", local, len(failed), strings.Join(failed[:min(len(failed), 20)], "\n"))
	}
	r.signal(syscall.SIGTERM)
	r.end()
	served(t, "remote", next)
	nothingIn(t, w.namespace)
}

// The last line counts what became of requests in all pods, one that has left included.
func TestReplicasAreCounted(t *testing.T) {
	spread(t)
	kubectl(t, "scale", "deployment/spread", "--replicas=3")
	kubectl(t, "rollout", "status", "deployment/spread", "--timeout=50s")
	pods := spreadPods(t)
	r := start(t, "-t", "deployment/spread", "--steal", "--header", "x-user: ana", "chaos", "serve", chaosPort, filepath.Join(w.dir, "work", "counted"))
	r.waitForText("port " + chaosPort + ": ")
	chosen := regexp.MustCompile(`chose pod/(\S+)`).FindStringSubmatch(r.stderr.String())
	if len(pods) != 3 || chosen == nil {
		t.Fatalf("%v of the pods %v was chosen", chosen, pods)
	}
	passed := 0
	ask := func(pod string, times int) {
		url := "http://" + podIP(t, pod) + ":" + chaosPort + "/"
		for range times {
			if got := request(t, url); !strings.HasPrefix(got, "remote") {
				t.Fatalf("%s answers %q, want its own answer", pod, got)
			}
			passed++
		}
	}
	var others []string
	for _, pod := range pods {
		if pod != chosen[1] {
			r.waitForText("the traffic of pod " + pod + " comes here, too")
			others = append(others, pod)
		}
	}
	ask(chosen[1], 3)
	ask(others[0], 5)
	ask(others[1], 2)
	ask(chosen[1], 1)
	kubectl(t, "delete", "pod", others[0], "--timeout=30s")
	ask(others[1], 2)
	r.signal(syscall.SIGTERM)
	r.end()
	said := regexp.MustCompile(` (\d+) passed through`).FindStringSubmatch(r.stderr.String())
	if said == nil {
		t.Fatalf("the last line does not say what was passed through:\n%s", r.stderr)
	}
	// A probe of the kubelet's that is slow to close counts as a connection.
	if n, _ := strconv.Atoi(said[1]); n < passed || n > passed+3 {
		t.Errorf("the last line says that %d were passed through, want %d", n, passed)
	}
	nothingIn(t, w.namespace)
}

// With "one" the others are left alone.
func TestOneReplica(t *testing.T) {
	spread(t)
	pods := spreadPods(t)
	file := filepath.Join(w.dir, "work", "one.json")
	if err := os.WriteFile(file, []byte(`{"feature": {"network": {"incoming": {"mode": "steal", "replicas": "one"}}}}`), 0o644); err != nil {
		t.Fatal(err)
	}
	r := start(t, "-f", file, "-t", "deployment/spread", "chaos", "serve", chaosPort, filepath.Join(w.dir, "work", "one"))
	r.stderr.waitFor("port "+chaosPort+": ", runTime)
	chosen := regexp.MustCompile(`chose pod/(\S+)`).FindStringSubmatch(r.stderr.String())
	if chosen == nil {
		t.Fatal("no pod was chosen")
	}
	for _, pod := range pods {
		by := "remote"
		if pod == chosen[1] {
			by = "local"
		}
		served(t, by, []string{pod})
	}
	r.signal(syscall.SIGTERM)
	r.end()
}
