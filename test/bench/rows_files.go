package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/mirrord-go/mirrord/test/bench/measure"
)

// Files of the target: how much, over the link as it is; how many round trips,
// over ones where these outweigh all else; and whether a slow link is filled.

// The links' round trips, and the rate of the shaped one: 200 Mbit/s.
const (
	nearTrip     = 10 * time.Millisecond
	farTrip      = 40 * time.Millisecond
	farthestTrip = 100 * time.Millisecond
	mbit200      = 200_000_000 / 8
)

func filesRows(ctx context.Context, w *world) ([]measure.Row, error) {
	if err := w.fillTarget(ctx); err != nil {
		return nil, err
	}
	// All links before the first session: they end after the last one.
	near, err := w.over(ctx, line{delay: nearTrip / 2})
	if err != nil {
		return nil, err
	}
	far, err := w.over(ctx, line{delay: farTrip / 2})
	if err != nil {
		return nil, err
	}
	farthest, err := w.over(ctx, line{delay: farthestTrip / 2})
	if err != nil {
		return nil, err
	}
	shaped, err := w.over(ctx, line{delay: farTrip / 2, rate: mbit200})
	if err != nil {
		return nil, err
	}
	// A quarter of a round trip is left for everything else.
	oneTrip, noTrip := measure.AtMost(1.25), measure.AtMost(0.25)
	var rows []measure.Row
	for _, part := range []struct {
		link link
		rows func(e fileEnds) []measure.Row
	}{
		{w.direct(), func(e fileEnds) []measure.Row {
			// At once, a round trip is less than what the kernel and two processes
			// take to pass the question on.
			return slices.Concat(e.amounts(w), e.small("0 ms away", measure.Within(0.3), measure.AtMost(0.5)), e.walkBesideSshfs("sshfs", 1000, "0 ms away"))
		}},
		{near, func(e fileEnds) []measure.Row {
			return slices.Concat(e.small("10 ms away", oneTrip, noTrip), e.walkBesideSshfs("few", 100, "10 ms away"))
		}},
		{far, func(e fileEnds) []measure.Row {
			return slices.Concat(e.small("40 ms away", oneTrip, noTrip), single(e.walkBesideSshfs("few", 100, "40 ms away")), e.many("40 ms away"))
		}},
		{farthest, func(e fileEnds) []measure.Row { return e.small("100 ms away", oneTrip, noTrip) }},
		{shaped, func(e fileEnds) []measure.Row { return e.bulk("200 Mbit/s, 40 ms away") }},
	} {
		e, err := w.fileEnds(ctx, part.link)
		if err != nil {
			return nil, err
		}
		rows = append(rows, part.rows(e)...)
	}
	return rows, nil
}

// amounts are the rows on much data.
func (e fileEnds) amounts(w *world) []measure.Row {
	walk := e.ours.does("walk", "{root}/cold-walk-tar-{n}")
	tar := once(func(ctx context.Context, n int) (values, error) {
		d, err := w.throughExec(ctx, "tar", "-C", fmt.Sprintf("/cold-walk-tar-%d", n), "-cf", "-", ".")
		return values{"seconds": d.Seconds()}, err
	})(in(1, "seconds"))
	read := e.ours.does("read", "1", "{root}/data/big", "forget")
	cat := once(func(ctx context.Context, _ int) (values, error) {
		d, err := w.throughExec(ctx, "cat", "/data/big")
		return values{"seconds": d.Seconds()}, err
	})
	return []measure.Row{
		{Name: "walk and read 1,000 files, cold", Unit: "s", Against: "kubectl exec tar", Budget: measure.AtMost(1), Ours: walk(in(1, "first")), Reference: tar},
		{Name: "walk and read 1,000 files, warm", Unit: "s", Against: "kubectl exec tar", Budget: measure.AtMost(1), Ours: walk(in(1, "again")), Reference: tar},
		{Name: "read 50 MB", Unit: "MB/s", Against: "kubectl exec cat", Budget: measure.AtLeast(1), Ours: read(megabytes(bigFile)), Reference: cat(megabytes(bigFile))},
		{Name: "read 50 MB", Unit: "MB/s", Against: "port-forward", Budget: measure.AtLeast(0.95),
			Ours: e.ours.does("read", "1", "{root}/data/big", "forget")(megabytes(bigFile)), Reference: e.through("down", bigFile)},
	}
}

// small are the rows on one small file, three directories deep in a tree that
// the session has not seen: cold, and at once again.
func (e fileEnds) small(away string, cold, warm measure.Budget) []measure.Row {
	ours, trip := e.ours.does("open", "{root}/cold-small-trip-{n}/in/deep/file"), e.trip()(in(1e3, "p50"))
	beside := "{root}/cold-small-sshfs-{n}/in/deep/file"
	again, sshfs := e.ours.does("open", beside), e.sshfs.does("open", beside)
	return []measure.Row{
		{Name: "small file, cold, " + away, Unit: "ms", Against: "round trip", Budget: cold, Ours: ours(in(1e3, "first")), Reference: trip},
		{Name: "small file, warm, " + away, Unit: "ms", Against: "round trip", Budget: warm, Ours: ours(in(1e3, "again")), Reference: trip},
		{Name: "small file, cold, " + away, Unit: "ms", Against: "sshfs", Budget: measure.AtMost(1), Ours: again(in(1e3, "first")), Reference: sshfs(in(1e3, "first"))},
		{Name: "small file, warm, " + away, Unit: "ms", Against: "sshfs", Budget: measure.AtMost(1), Ours: again(in(1e3, "again")), Reference: sshfs(in(1e3, "again"))},
	}
}

// walkBesideSshfs are the rows on a directory that is listed and read, cold and
// at once again. kind names the directories, which have so many files.
func (e fileEnds) walkBesideSshfs(kind string, files int, away string) []measure.Row {
	what := []string{"walk", "{root}/cold-walk-" + kind + "-{n}"}
	ours, sshfs := e.ours.does(what...), e.sshfs.does(what...)
	name := "walk and read " + thousands(files) + " files, "
	return []measure.Row{
		{Name: name + "cold, " + away, Unit: "s", Against: "sshfs", Budget: measure.AtMost(1), Pairs: longPairs, Ours: ours(in(1, "first")), Reference: sshfs(in(1, "first"))},
		{Name: name + "warm, " + away, Unit: "s", Against: "sshfs", Budget: measure.AtMost(1), Pairs: longPairs, Ours: ours(in(1, "again")), Reference: sshfs(in(1, "again"))},
	}
}

// single has rows measured in one pair: the reference takes ten seconds for what
// ours does in a tenth of one.
func single(rows []measure.Row) []measure.Row {
	for i := range rows {
		rows[i].Single = true
	}
	return rows
}

// thousands writes a number below a million.
func thousands(n int) string {
	if n < 1000 {
		return strconv.Itoa(n)
	}
	return fmt.Sprintf("%d,%03d", n/1000, n%1000)
}

// many are the rows on many requests that could be made at the same time.
func (e fileEnds) many(away string) []measure.Row {
	walk := e.ours.does("walk", "{root}/cold-walk-limit-{n}")
	imports := func(kind string, options ...string) []string {
		return slices.Concat([]string{"run", "1", "/usr/bin/python3"}, options,
			[]string{"-c", "import sys; sys.path.insert(0, sys.argv[1]); import package", "{root}/cold-modules-" + kind + "-{n}"})
	}
	all, few := imports("all"), imports("few", "-B") // into an sshfs it would write its byte code
	const reads = 960
	// Other blocks in each pair.
	random := []string{"random", "{root}/data/large", strconv.Itoa(reads), "16", "{n}"}
	return []measure.Row{
		{Name: "walk and read 1,000 files, cold, " + away, Unit: "s", Against: "limit", Budget: measure.AtMost(1), Pairs: longPairs,
			Ours: walk(in(1, "first")), Reference: measure.Constant(10)},
		{Name: "walk and read 1,000 files, warm, " + away, Unit: "s", Against: "limit", Budget: measure.AtMost(1), Pairs: longPairs,
			Ours: walk(in(1, "again")), Reference: measure.Constant(2)},
		{Name: "python3 imports 200 modules, " + away, Unit: "s", Against: "limit", Budget: measure.AtMost(1), Pairs: longPairs,
			Ours: e.ours.does(all...)(in(1, "seconds")), Reference: measure.Constant(5)},
		{Name: "python3 imports 20 modules, " + away, Unit: "s", Against: "sshfs", Budget: measure.AtMost(1), Pairs: longPairs,
			Ours: e.ours.does(few...)(in(1, "seconds")), Reference: e.sshfs.does(few...)(in(1, "seconds"))},
		{Name: "random 4 KiB reads, 16 in flight, " + away, Unit: "1/s", Against: "round trips", Budget: measure.AtLeast(12),
			Ours: e.ours.does(random...)(perSecond(reads)), Reference: e.trip()(func(v values) float64 { return 1 / v["p50"] })},
		{Name: "random 4 KiB reads, 16 in flight, " + away, Unit: "1/s", Against: "sshfs", Budget: measure.AtLeast(1), Pairs: longPairs,
			Ours: e.ours.does(random...)(perSecond(reads)), Reference: e.sshfs.does(random...)(perSecond(reads))},
	}
}

// bulk are the rows on one file in order, over a link that has a rate.
func (e fileEnds) bulk(away string) []measure.Row {
	read := func(t tree, file string, bytes int) measure.Sampler {
		return t.does("read", "1", "{root}/data/"+file, "forget")(megabytes(bytes))
	}
	write := func(t tree, bytes int) measure.Sampler {
		return t.does("write", "{root}/data/written/file", strconv.Itoa(bytes))(megabytes(bytes))
	}
	return []measure.Row{
		{Name: "read 1 GiB, " + away, Unit: "MB/s", Against: "port-forward", Budget: measure.AtLeast(0.95), Single: true,
			Ours: read(e.ours, "large", largeFile), Reference: e.through("down", largeFile)},
		{Name: "write 1 GiB, " + away, Unit: "MB/s", Against: "port-forward", Budget: measure.AtLeast(0.95), Single: true,
			Ours: write(e.ours, largeFile), Reference: e.through("up", largeFile)},
		{Name: "read 50 MB, " + away, Unit: "MB/s", Against: "sshfs", Budget: measure.AtLeast(1), Single: true,
			Ours: read(e.ours, "big", bigFile), Reference: read(e.sshfs, "big", bigFile)},
		{Name: "write 50 MB, " + away, Unit: "MB/s", Against: "sshfs", Budget: measure.AtLeast(1), Pairs: longPairs,
			Ours: write(e.ours, bigFile), Reference: write(e.sshfs, bigFile)},
	}
}
