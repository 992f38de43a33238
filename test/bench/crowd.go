package main

import (
	"context"
	"fmt"
	"os"
	"strings"
)

// crowd is a namespace of many pods, made when it is first asked for. No
// scheduler places them: they cost the cluster their place in lists only, where
// each is as long as one that runs.
type crowd struct {
	w         *world
	size      int
	namespace string // empty: there is none yet
}

// crowdSize is how many pods a large one has.
const crowdSize = 1000

func (c *crowd) list(ctx context.Context, _ int) (float64, error) {
	if err := c.make(ctx); err != nil {
		return 0, err
	}
	return c.w.timed("ls", "-n", c.namespace, "--all")
}

func (c *crowd) kubectl(ctx context.Context, _ int) (float64, error) {
	if err := c.make(ctx); err != nil {
		return 0, err
	}
	return timed(c.w.kubectlCommand("get", "pods", "-n", c.namespace))
}

func (c *crowd) make(ctx context.Context) error {
	if c.namespace != "" {
		return nil
	}
	name := fmt.Sprintf("%s-crowd-%d", c.w.namespace, c.size)
	if _, err := c.w.cluster.Kubectl(ctx, "create", "namespace", name); err != nil {
		return err
	}
	c.w.later(func() error {
		ctx, cancel := context.WithTimeout(context.Background(), tearDownTime)
		defer cancel()
		_, err := c.w.cluster.Kubectl(ctx, "delete", "namespace", name, "--timeout=80s")
		return err
	})
	if _, err := c.w.cluster.Kubectl(ctx, "wait", "-n", name, "--for=create", "serviceaccount/default", "--timeout=30s"); err != nil {
		return err
	}
	file := c.w.at("crowd.json")
	if err := os.WriteFile(file, []byte(crowdList(c.size)), 0o600); err != nil {
		return err
	}
	if _, err := c.w.cluster.Kubectl(ctx, "create", "-n", name, "-f", file); err != nil {
		return err
	}
	c.namespace = name
	return nil
}

// crowdList is the pods as kubectl takes them.
func crowdList(size int) string {
	var env, pods []string
	for i := range 30 { // some 2 KB, as what a running pod's status and volumes take
		env = append(env, fmt.Sprintf(`{"name": "SETTING_OF_THE_PROGRAM_%d", "value": "a value of some length %d"}`, i, i))
	}
	for i := range size {
		pods = append(pods, fmt.Sprintf(`{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "crowd-%04d"}, "spec": {"schedulerName": "nobody",
			"containers": [{"name": "main", "image": "debian:1", "ports": [{"containerPort": 8080}], "env": [%s]}]}}`, i, strings.Join(env, ", ")))
	}
	return `{"apiVersion": "v1", "kind": "List", "items": [` + strings.Join(pods, ", ") + "]}"
}
