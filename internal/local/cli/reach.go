package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strconv"

	"github.com/mirrord-go/mirrord/internal/config"
	"github.com/mirrord-go/mirrord/internal/event"
	"github.com/mirrord-go/mirrord/internal/failure"
	"github.com/mirrord-go/mirrord/internal/local/image"
	"github.com/mirrord-go/mirrord/internal/local/kube"
	"github.com/mirrord-go/mirrord/internal/local/process"
	"github.com/mirrord-go/mirrord/internal/local/session"
)

// reach picks the way to an agent that the target asks for.
func reach(version string, cfg config.Config) session.Reach {
	if pid, ok := cfg.Process(); ok {
		return func(ctx context.Context, r session.Request) (session.Agent, error) {
			return startProcessAgent(ctx, pid, r)
		}
	}
	return func(ctx context.Context, r session.Request) (session.Agent, error) {
		return startClusterAgent(ctx, version, cfg, r)
	}
}

func step(r session.Request, code string) func(string) {
	return func(text string) { r.Emit(event.Event{Level: event.Step, Code: code, Text: text}) }
}
