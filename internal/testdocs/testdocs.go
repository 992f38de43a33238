// Package testdocs knows the command lines that README.md and docs/ show, and
// who runs each of them: the tests without a cluster (cmd/mirrord), those with
// one (test/e2e), or nobody, for a reason. It reads files and starts nothing.
package testdocs

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// Command is a command line that a document shows.
type Command struct {
	File   string // from the top of the repository
	Line   int    // the first is 1
	Text   string // without prompt and comment
	Output []string
}

func (c Command) String() string { return fmt.Sprintf("%s:%d: %s", c.File, c.Line, c.Text) }

// programs begin the command lines of blocks that do not say what they are.
var programs = regexp.MustCompile(`^([A-Za-z_]+=(\$\(|[^ ]* )?)*(bin/)?(mirrord|make|sudo|su|docker|podman|nerdctl|kubectl|helm|curl|wget|psql|ssh|scp|git|lima|limactl|wsl|go|node|npm|npx|python3?|pip3?|java|brew|apt|apt-get|dnf|tar|Expand-Archive|cd|cat|echo|export|source|test|test/[a-z/]+|\./[a-z/-]+)( |$)`)

// comment is what stands behind a command line.
var comment = regexp.MustCompile(`\s+# .*$`)

// shells are the names of blocks of which every line is a command.
var shells = []string{"sh", "bash", "shell"}

// data are the names of blocks that show no command.
var data = []string{"json", "jsonc", "yaml", "toml", "text", "go", "proto", "diff", "ini", "html"}

// Commands lists the command lines of a document. They stand in indented blocks
// and in fences. A line with a prompt ("$ ") is one, and what follows up to the
// next is its output. In blocks without any prompt every line is one if the
// fence says that it is a shell's; else those that begin with a program.
func Commands(file, text string) (all []Command) {
	for _, b := range blocks(text) {
		all = append(all, b.commands(file)...)
	}
	return all
}

// block is a run of lines that is no prose.
type block struct {
	language string // of a fence; "" is unknown, or an indented block
	line     int    // of the first
	lines    []string
}

func blocks(text string) (all []block) {
	var b *block
	fence, before := "", ""
	for i, line := range strings.Split(text, "\n") {
		bare := strings.TrimSpace(line)
		switch {
		case fence != "":
			if bare == fence {
				fence, b = "", nil
			} else {
				b.lines = append(b.lines, line)
			}
		case strings.HasPrefix(bare, "```"):
			fence = "```"
			all = append(all, block{language: strings.TrimPrefix(bare, fence), line: i + 2})
			b = &all[len(all)-1]
		case strings.HasPrefix(line, "    ") && (b != nil || before == "") && bare != "":
			if b == nil {
				all = append(all, block{line: i + 1})
				b = &all[len(all)-1]
			}
			b.lines = append(b.lines, strings.TrimPrefix(line, "    "))
		default:
			b = nil
		}
		before = bare
	}
	return all
}

func (b block) commands(file string) (all []Command) {
	if slices.Contains(data, b.language) {
		return nil
	}
	prompts := slices.ContainsFunc(b.lines, func(l string) bool { return strings.HasPrefix(l, "$ ") })
	more := false
	for i, line := range b.lines {
		text, prompt := strings.CutPrefix(line, "$ ")
		switch {
		case more:
			last := &all[len(all)-1]
			last.Text = strings.TrimSuffix(last.Text, `\`) + strings.TrimSpace(text)
		case prompts && !prompt:
			if len(all) > 0 {
				all[len(all)-1].Output = append(all[len(all)-1].Output, line)
			}
			continue
		case !prompts && strings.HasPrefix(text, "#"), text == "":
			continue
		case !prompts && !slices.Contains(shells, b.language) && !programs.MatchString(text):
			continue
		default:
			all = append(all, Command{File: file, Line: b.line + i, Text: text})
		}
		more = strings.HasSuffix(text, `\`)
		all[len(all)-1].Text = comment.ReplaceAllString(all[len(all)-1].Text, "")
	}
	return all
}

// Files names README.md and all documents below docs. root is the top of the
// repository.
func Files(root string) ([]string, error) {
	files := []string{"README.md"}
	err := filepath.WalkDir(filepath.Join(root, "docs"), func(file string, _ fs.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(file, ".md") {
			file, err = filepath.Rel(root, file)
			files = append(files, file)
		}
		return err
	})
	return files, err
}

// All lists the command lines of all of them.
func All(root string) (all []Command, err error) {
	files, err := Files(root)
	for _, name := range files {
		text, rerr := os.ReadFile(filepath.Join(root, name))
		if rerr != nil {
			return nil, rerr
		}
		all = append(all, Commands(name, string(text))...)
	}
	return all, err
}

// Runner is who runs a command line.
type Runner int

const (
	// Here runs it without a cluster: TestDocuments of cmd/mirrord.
	Here Runner = iota
	// InCluster runs it against one: TestDocuments of test/e2e.
	InCluster
	// Script runs it as it is: a script of cmd/mirrord/testdata.
	Script
	// Release runs it, one after the other in the order of the rows, in a directory
	// that holds nothing but the archive of a release: TestRelease of test/e2e.
	Release
	// Target is one of the Makefile's, which a test cannot run within itself.
	Target
	// Nobody can.
	Nobody
)

// Row says who runs a command line, and how it must end.
type Row struct {
	Text string
	By   Runner
	// Why nobody runs it; of a Script its name; of a Target what runs it.
	Note string
	// Config is the .mirrord/mirrord.json beside which it is run.
	Config string
	// Before is a command line that is run there first.
	Before string
	// Until is what it prints when it has done what is shown: it is asked to end
	// then. Empty: it ends by itself.
	Until string
	// Code is the exit code of what ends by itself.
	Code int
	// Other is why what is shown beneath it is not what it prints here.
	Other string
	// Says is an expression that what it prints must match.
	Says string
}

// Of gives the rows of a runner.
func Of(by Runner) (rows []Row) {
	for _, r := range table {
		if r.By == by {
			rows = append(rows, r)
		}
	}
	return rows
}

// Output gives what the documents show beneath a command line.
func Output(root, text string) ([]string, error) {
	all, err := All(root)
	for _, c := range all {
		if c.Text == text && len(c.Output) > 0 {
			return c.Output, err
		}
	}
	return nil, err
}

// changing are the words of a line that differ from run to run.
var changing = []struct {
	expression *regexp.Regexp
	word       string
}{
	{regexp.MustCompile(`\bshop-[a-z0-9-]+`), "shop-POD"},
	{regexp.MustCompile(`\b\d{2}:\d{2}:\d{2}(\.\d+)?\b`), "TIME"},
	{regexp.MustCompile(`\b\d+(\.\d+){3}(:\d+)?\b`), "ADDRESS"},
	{regexp.MustCompile(`\b\d+(\.\d+)? (B|kB|MB|GB)\b`), "SIZE"},
	{regexp.MustCompile(`\b\d+(\.\d+)? ?(ms|µs|s|m|h)\b`), "SPAN"},
	{regexp.MustCompile(`\b\d+\b`), "N"},
	{regexp.MustCompile(`\s+`), " "},
}

// Shape is a line without what differs from run to run: names of pods, times,
// addresses, sizes, and id, the session's.
func Shape(line, id string) string {
	if id != "" {
		line = strings.ReplaceAll(line, id, "ID")
	}
	for _, c := range changing {
		line = c.expression.ReplaceAllString(line, c.word)
	}
	return strings.TrimSpace(line)
}
