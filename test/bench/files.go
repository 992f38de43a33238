package main

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/mirrord-go/mirrord/test/bench/measure"
)

// Who reads and writes the target's files, and what is there.

const (
	bigFile   = 50_000_000 // bytes
	largeFile = 1 << 30    // bytes: 43 s at the rate of the shaped link
	// longPairs is how many pairs rows get whose samples take ten seconds.
	longPairs = 3
)

// fillScript makes the target's files. Of what begins with /cold- there is one
// for each pair and the one before, so that whatever is read was never seen.
const fillScript = `set -e
	head -c %[1]d /dev/urandom >/data/big
	head -c %[2]d /dev/urandom >/data/large
	mkdir /data/written
	files() { mkdir $1; head -c $((4096 * $2)) /dev/urandom | split -b 4096 -a 4 -d - $1/; }
	package() {
		mkdir -p $1/package
		local text
		text=$(for i in $(seq 30); do echo "def f$i(x):"; echo "    return x + $i"; done)
		for i in $(seq $2); do echo "$text" >$1/package/m$i.py; echo "from . import m$i"; done >$1/package/__init__.py
	}
	cd /
	files made-100 100; files made-1000 1000
	package made-p20 20; package made-p200 200
	for n in $(seq 0 %[3]d); do
		for k in trip sshfs; do mkdir -p cold-small-$k-$n/in/deep; echo $n >cold-small-$k-$n/in/deep/file; done
		for k in tar sshfs; do cp -r made-1000 cold-walk-$k-$n; done
		cp -r made-100 cold-walk-few-$n
		[ $n -gt %[4]d ] && continue
		cp -r made-1000 cold-walk-limit-$n
		cp -r made-p20 cold-modules-few-$n
		cp -r made-p200 cold-modules-all-$n
	done`

// sftpServer is Debian's; it needs nothing but the C library.
const sftpServer = "/usr/lib/openssh/sftp-server"

// fillTarget gives the target pod its files, and the server that sshfs needs.
func (w *world) fillTarget(ctx context.Context) error {
	script := fmt.Sprintf(fillScript, bigFile, largeFile, w.pairs, longPairs)
	if _, err := w.kubectl(ctx, "exec", podTarget, "--", "bash", "-c", script); err != nil {
		return err
	}
	return w.give(podTarget, sftpServer)
}

// filesConfig is that of the files' sessions: the target's code is the
// target's, and one directory can be written there.
const filesConfig = `{"feature": {"fs": {"read_only": ["^/cold-"], "read_write": ["^/data/written/"]}}}`

// fileEnds is who uses the target's files over a link, and who measures the link.
type fileEnds struct {
	ours, sshfs tree
	native      *worker
	forward     *forward
}

// A tree is a worker that sees the target's files, and where they are for it.
type tree struct {
	*worker
	root string // "" or absolute
}

func (w *world) fileEnds(ctx context.Context, l link) (e fileEnds, err error) {
	config := w.at("files.json")
	if err := os.WriteFile(config, []byte(filesConfig), 0o644); err != nil {
		return e, err
	}
	s, err := w.session(ctx, l, podTarget, "-f", config)
	if err != nil {
		return e, err
	}
	e.ours.worker = s.worker
	if e.native, err = w.native(ctx); err != nil {
		return e, err
	}
	if e.forward, err = w.forward(ctx, l, podTarget, 7000); err != nil {
		return e, err
	}
	e.sshfs, err = w.sshfs(ctx, l)
	return e, err
}

// sshfs starts a worker of the user's that sees the target's root in an sshfs,
// whose connection is a port-forward over the link to the pod's SFTP server,
// without a cipher in between. Both are in namespaces of their own: all is gone
// when the worker, their first process, has ended. It ends with the area.
func (w *world) sshfs(ctx context.Context, l link) (t tree, err error) {
	f, err := w.forward(ctx, l, podTarget, 7001)
	if err != nil {
		return t, err
	}
	host, port, _ := strings.Cut(f.addr, ":")
	if t.root, err = os.MkdirTemp(w.dir, "sshfs-"); err != nil {
		return t, err
	}
	script := `sshfs -o directport=$1,allow_other $2:/ "$3" && exec setpriv --reuid $4 --regid $4 --clear-groups "$5" worker`
	cmd := w.asUser("unshare", "--mount", "--pid", "--fork", "--kill-child", "--",
		"bash", "-c", script, "bash", port, host, t.root, strconv.Itoa(user), w.at("bin/load"))
	cmd.SysProcAttr = nil // root may mount, and for another user; the worker is the user's
	if t.worker, err = hire(ctx, cmd); err != nil {
		return t, fmt.Errorf("sshfs: %w", err)
	}
	w.later(t.close)
	return t, nil
}

// figures has a worker do a task, and gives samplers of what it tells.
type figures func(figure func(v values) float64) measure.Sampler

// does is a task at the tree: {root} stands for its root and {n} for the
// number of the pair.
func (t tree) does(task ...string) figures {
	return once(func(ctx context.Context, n int) (values, error) {
		in := strings.NewReplacer("{root}", t.root, "{n}", strconv.Itoa(n))
		words := make([]string, len(task))
		for i, word := range task {
			words[i] = in.Replace(word)
		}
		return t.do(ctx, words...)
	})
}

// once does what do does a single time for each pair: rows that show several
// figures of the same share it. Samplers are called one after the other.
func once(do func(ctx context.Context, n int) (values, error)) figures {
	done := map[int]values{}
	return func(figure func(v values) float64) measure.Sampler {
		return func(ctx context.Context, n int) (float64, error) {
			v, ok := done[n]
			if !ok {
				var err error
				if v, err = do(ctx, n); err != nil {
					return 0, err
				}
				done[n] = v
			}
			return figure(v), nil
		}
	}
}

// trip measures the link's round trip, of 64 bytes through the port-forward.
func (e fileEnds) trip() figures { return tree{worker: e.native}.does("rtt", e.forward.addr, "5") }

// through moves bytes through the port-forward: "down" or "up".
func (e fileEnds) through(way string, bytes int) measure.Sampler {
	return tree{worker: e.native}.does(way, e.forward.addr, strconv.Itoa(bytes))(megabytes(bytes))
}

// in gives a figure in the unit of which a second has so many.
func in(scale float64, name string) func(v values) float64 {
	return func(v values) float64 { return v[name] * scale }
}

// megabytes gives MB/s of a task that moves so many bytes.
func megabytes(bytes int) func(v values) float64 { return perSecond(float64(bytes) / 1e6) }

// perSecond gives the rate of a task that does so much.
func perSecond(amount float64) func(v values) float64 {
	return func(v values) float64 { return amount / v["seconds"] }
}

// throughExec gives the time that a command in the target takes to write all of
// its output to this machine, the start of kubectl included.
func (w *world) throughExec(ctx context.Context, argv ...string) (time.Duration, error) {
	cmd := w.kubectlCommand(append([]string{"exec", podTarget, "--"}, argv...)...)
	words := &lastWords{}
	cmd.Stderr = words // stdout is thrown away by the kernel
	begin := time.Now()
	if err := cmd.Run(); err != nil {
		return 0, fmt.Errorf("%s: %w: %s", cmd, err, words)
	}
	return time.Since(begin), ctx.Err()
}
