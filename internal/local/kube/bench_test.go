package kube

import (
	"context"
	"fmt"
	"io"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/streaming/pkg/httpstream"
)

// BenchmarkPipe is what a GB through a port-forward costs, both ends of it: the
// other one is client-go's code in a made API server.
func BenchmarkPipe(b *testing.B) {
	const part = 64 << 10
	for _, over := range []string{"websocket", "spdy"} {
		for _, way := range []string{"up", "down"} {
			b.Run(over+"/"+way, func(b *testing.B) {
				got := make(chan int64, 1)
				a := &api{agent: []corev1.Pod{agentRuns()}, log: readyLog, serve: func(_ *api, s httpstream.Stream) {
					if way == "up" {
						n, _ := io.Copy(io.Discard, s)
						got <- n
						return
					}
					for data := make([]byte, 32<<10); ; {
						if _, err := s.Write(data); err != nil {
							return
						}
					}
				}}
				if over == "spdy" {
					a.forbid = map[string]bool{"get pods/portforward": true}
				}
				agent, err := a.start(b, Options{}).StartAgent(context.Background(), target, AgentSpec{Session: "s1", PublicKey: "KEY"}, nil)
				if err != nil {
					b.Fatal(err)
				}
				p, err := agent.Dial(context.Background())
				if err != nil {
					b.Fatal(err)
				}
				defer p.Close()
				b.SetBytes(part)
				b.ReportAllocs()
				before := cpuTime(b)
				data := make([]byte, part)
				for b.Loop() {
					if way == "up" {
						_, err = p.Write(data)
					} else {
						_, err = io.ReadFull(p, data)
					}
					if err != nil {
						b.Fatal(err)
					}
				}
				if way == "up" {
					p.Close()
					if n := <-got; n != int64(b.N)*part {
						b.Fatal(fmt.Errorf("%d bytes arrived, %d were sent", n, b.N*part))
					}
				}
				b.ReportMetric((cpuTime(b)-before).Seconds()/(float64(b.N)*part/1e9), "cpu-s/GB")
			})
		}
	}
}
