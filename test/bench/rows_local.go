package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"

	"github.com/mirrord-go/mirrord/test/bench/measure"
)

// What a program does on this machine itself, in the sandbox and without one.

// asNative is 1.00 × native with what two native runs differ by on a busy
// machine.
const asNative = 1.05

const (
	// mixedDir is a directory of this machine that is served path by path.
	mixedDir = "work/mixed"
	// servedPrice is what a served local file may cost more each time, in µs
	// (docs/flows/files.md).
	servedPrice = 100
)

func localRows(ctx context.Context, w *world) ([]measure.Row, error) {
	if err := w.makeWork(ctx); err != nil {
		return nil, err
	}
	s, err := w.session(ctx, w.direct(), podTarget)
	if err != nil {
		return nil, err
	}
	n, err := w.native(ctx)
	if err != nil {
		return nil, err
	}
	both, err := w.mixedSession(ctx)
	if err != nil {
		return nil, err
	}
	// unit is what one of count is shown in: 1e3 for ms, 1e6 for µs.
	each := func(worker *worker, scale, count float64, task ...string) measure.Sampler {
		return func(ctx context.Context, _ int) (float64, error) {
			v, err := worker.do(ctx, task...)
			return v["seconds"] * scale / count, err
		}
	}
	row := func(name, unit string, scale, count float64, task ...string) measure.Row {
		return measure.Row{Name: name, Unit: unit, Against: "native", Budget: measure.AtMost(asNative),
			Ours: each(s.worker, scale, count, task...), Reference: each(n, scale, count, task...)}
	}
	// mixed is a row on one of the 2,000 files of the mixed directory.
	mixed := func(name, task string) measure.Row {
		return measure.Row{Name: name, Unit: "µs", Against: "native", Budget: measure.Within(servedPrice),
			Ours: each(both.worker, 1e6, 2000, task, "1", w.at(mixedDir)), Reference: each(n, 1e6, 2000, task, "1", w.at(mixedDir))}
	}
	stopped := func(r measure.Row) measure.Row {
		r.Name += ", supervisor stopped"
		ours := r.Ours
		r.Ours = func(ctx context.Context, n int) (float64, error) {
			return s.stopped(func() (float64, error) { return ours(ctx, n) })
		}
		return r
	}
	stat := row("stat of 2,000 files", "ms", 1e3, 100, "stat", "100", w.at("work/many"))
	make := row("make, rename, remove a file", "µs", 1e6, 1000, "make", "1000", w.at("work"))
	return []measure.Row{
		row("processor", "ms", 1e3, 1, "cpu"),
		stat, stopped(stat), make, stopped(make),
		row("read 200 MB", "ms", 1e3, 10, "read", "10", w.at("work/big")),
		row("python3 -c pass", "ms", 1e3, 20, "run", "20", "/usr/bin/python3", "-c", "pass"),
		row("git status, 1,000 files", "ms", 1e3, 40, "run", "40", "/usr/bin/git", "-C", w.at("work/repository"), "status", "--short"),
		mixed("stat of a file, mixed directory", "stat"),
		mixed("open and close of a file, mixed directory", "opens"),
	}, nil
}

// mixedSession starts a session with a pattern that can match, and never does,
// below mixedDir.
func (w *world) mixedSession(ctx context.Context) (*session, error) {
	config := w.at("mixed.json")
	text := fmt.Sprintf(`{"feature": {"fs": {"read_only": [%q]}}}`, "^"+regexp.QuoteMeta(w.at(mixedDir))+`/.*\.remote$`)
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		return nil, err
	}
	return w.session(ctx, w.direct(), podTarget, "-f", config)
}

// makeWork fills the user's working directory.
func (w *world) makeWork(ctx context.Context) error {
	for dir, n := range map[string]int{"work/many": 2000, "work/repository": 1000, mixedDir: 2000} {
		if err := os.MkdirAll(w.at(dir), 0o755); err != nil {
			return err
		}
		for i := range n {
			if err := os.WriteFile(filepath.Join(w.at(dir), strconv.Itoa(i)), []byte(fmt.Sprintln("file", i)), 0o644); err != nil {
				return err
			}
		}
	}
	if err := os.WriteFile(w.at("work/big"), make([]byte, 200e6), 0o644); err != nil {
		return err
	}
	if err := command(ctx, "chown", "-R", fmt.Sprintf("%d:%d", user, user), w.at("work")); err != nil {
		return err
	}
	for _, args := range [][]string{
		{"init", "--quiet"}, {"add", "."},
		{"-c", "user.name=bench", "-c", "user.email=bench@example.invalid", "commit", "--quiet", "-m", "files"},
	} {
		cmd := w.asUser(append([]string{"/usr/bin/git"}, args...)...)
		cmd.Dir = w.at("work/repository")
		if err := finish(cmd); err != nil {
			return err
		}
	}
	return nil
}
