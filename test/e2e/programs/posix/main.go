// Command posix does what programs do with files, in the directory that it is
// given, and prints what comes of it, a line for each case. What it prints in
// two directories differs where the directories do. With -seed it does so many
// random things in two directories at once and says where they differ.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

func main() {
	if len(os.Args) == 2 && strings.HasPrefix(os.Args[1], childFlag) {
		obey(strings.TrimPrefix(os.Args[1], childFlag))
		return
	}
	seed := flag.Uint64("seed", 0, "")
	steps := flag.Int("steps", 1000, "")
	flag.Parse()
	base := flag.Arg(0)
	unix.Umask(0o022)
	if *seed != 0 {
		if err := random(*seed, *steps, [2]string{base, flag.Arg(1)}); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println("done")
		return
	}
	for i, c := range slices.Concat(ofNames, ofContents, ofInodes, ofChanges, ofProcesses, ofPaths()) {
		dir := filepath.Join(base, fmt.Sprintf("case-%d", i))
		s := &seen{}
		if err := os.Mkdir(dir, 0o755); err != nil {
			s.add("mkdir", err)
		} else if err := os.Chdir(dir); err != nil {
			s.add("chdir", err)
		} else {
			run(c.do, s)
		}
		_ = os.Chdir("/")
		if err := os.RemoveAll(dir); err != nil {
			s.add("clean", err)
		}
		fmt.Printf("%s: %s\n", c.name, strings.Join(s.all, ", "))
	}
	fmt.Println("done")
}

func run(do func(s *seen), s *seen) {
	defer func() {
		if v := recover(); v != nil {
			s.say("panic %v", v)
		}
	}()
	do(s)
}

// seen is what came of a case.
type seen struct{ all []string }

func (s *seen) say(format string, args ...any) { s.all = append(s.all, fmt.Sprintf(format, args...)) }

// add notes the errno of what was done.
func (s *seen) add(what string, err error) {
	var errno unix.Errno
	switch {
	case err == nil:
		s.say("%s ok", what)
	case errors.As(err, &errno):
		s.say("%s %s", what, unix.ErrnoName(errno))
	default:
		s.say("%s %v", what, err)
	}
}

// stat notes what a file is.
func (s *seen) stat(p string) {
	var st unix.Stat_t
	if err := unix.Lstat(p, &st); err != nil {
		s.add("lstat "+strconv.Quote(p), err)
		return
	}
	size := st.Size
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		size = 0
	}
	s.say("%q is %o with %d names and %d bytes", p, st.Mode, st.Nlink, size)
}

func (s *seen) content(p string) {
	b, err := os.ReadFile(p)
	if err != nil {
		s.add("read "+strconv.Quote(p), err)
		return
	}
	if len(b) > 60 {
		s.say("%q has %d bytes", p, len(b))
		return
	}
	s.say("%q has %q", p, b)
}

// open opens p and notes what comes of it; 0, standard input, if nothing does.
func (s *seen) open(p string, flags int, mode uint32) int {
	fd, err := unix.Open(p, flags|unix.O_CLOEXEC, mode)
	s.add("open "+strconv.Quote(p[:min(len(p), 40)]), err)
	return max(fd, 0)
}

// start runs a program and notes what it says.
func (s *seen) start(argv ...string) {
	r, w, err := os.Pipe()
	if err != nil {
		panic(err)
	}
	defer r.Close()
	p, err := os.StartProcess(argv[0], argv, &os.ProcAttr{Files: []*os.File{nil, w, w}})
	w.Close()
	s.add("start", err)
	if err != nil {
		return
	}
	out, _ := io.ReadAll(r)
	state, err := p.Wait()
	s.say("%q %v %v", out, state, err)
}

func put(p, content string) {
	if err := os.WriteFile(p, []byte(content), 0o644); err != nil {
		panic(err)
	}
}

func names(s *seen, p string) {
	entries, err := os.ReadDir(p)
	if err != nil {
		s.add("list", err)
		return
	}
	var all []string
	for _, e := range entries {
		all = append(all, fmt.Sprintf("%q %v", e.Name(), e.Type()))
	}
	s.say("%d names: %.300s", len(all), strings.Join(all, " "))
}

// tried is something that programs do, in an empty directory.
type tried struct {
	name string
	do   func(s *seen)
}
