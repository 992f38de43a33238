// Command lasting does all that a lost link could hurt, at once and for as long
// as it is wanted, and checks every byte: a static Go program.
//
//	lasting -echo HOST -n 200 -file PATH -sum SHA256 -write PATH -steal PORT -mirror PORT [-quiet]
//	lasting -upgraded HOST:PORT [-quiet]
//
// It keeps n connections to a server that sends everything back and a flow of
// datagrams, reads a file slowly and writes two, serves HTTP on two ports, and
// begins new work of every kind all the time. It takes commands on stdin:
// "check" waits until all that was sent has come back and all new work has
// ended, and tells what became of it; "stop" ends everything.
//
// The second form is a client in the cluster, which speaks with the first over
// one connection that is HTTP no more.
package main

import (
	"bufio"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
)

// Ports of the server that sends back what it gets.
const (
	echoStreams   = "7002"
	echoDatagrams = "7003" // with who sent it, and how often it came from there
)

func main() {
	var o options
	flag.StringVar(&o.echo, "echo", "", "name of the server that sends everything back")
	flag.IntVar(&o.n, "n", 200, "how many connections")
	flag.StringVar(&o.file, "file", "", "file to read")
	flag.StringVar(&o.sum, "sum", "", "its SHA-256")
	flag.StringVar(&o.write, "write", "", "files to write: this with a letter after it")
	flag.StringVar(&o.steal, "steal", "", "port to serve requests on")
	flag.StringVar(&o.mirror, "mirror", "", "port to serve copies of requests on")
	flag.BoolVar(&o.quiet, "quiet", false, "say nothing between two checks")
	upgraded := flag.String("upgraded", "", "be a client of this address")
	flag.Parse()
	err := error(nil)
	if *upgraded != "" {
		err = talk(*upgraded, o.quiet)
	} else {
		err = run(o)
	}
	if err != nil {
		fmt.Println("lasting:", err)
		os.Exit(1)
	}
}

type options struct {
	echo, file, sum, write, steal, mirror string
	n                                     int
	quiet                                 bool
}

func run(o options) error {
	for _, port := range []string{o.steal, o.mirror} {
		ln, err := net.Listen("tcp", ":"+port)
		if err != nil {
			return err
		}
		go http.Serve(ln, http.HandlerFunc(serve))
	}
	all := make([]*conversation, o.n)
	for i := range all {
		c, err := net.Dial("tcp", net.JoinHostPort(o.echo, echoStreams))
		if err != nil {
			return err
		}
		all[i] = newConversation(c, c, paces[i%len(paces)])
		go all[i].hear()
		if !o.quiet {
			go all[i].speak()
		}
	}
	peer := all[0].c.RemoteAddr().(*net.TCPAddr).IP.String() // so that no lookup is in it
	talking, err := newFlow(net.JoinHostPort(peer, echoDatagrams))
	if err != nil {
		return err
	}
	var files []*written
	for letter, flags := range map[string]int{"a": os.O_APPEND, "w": 0} {
		f, err := newWritten(o.write+letter, flags)
		if err != nil {
			return err
		}
		files = append(files, f)
	}
	reading := make(chan struct{})
	read := make(chan error, 1)
	go func() { read <- readSlowly(o.file, o.sum, reading) }()
	var work []*fresh
	if !o.quiet {
		go talking.speak()
		for _, f := range files {
			go f.speak()
		}
		if work, err = newWork(o.echo, peer, filepath.Dir(o.file)); err != nil {
			return err
		}
	}
	fmt.Println("ready")
	for in := bufio.NewScanner(os.Stdin); in.Scan() && in.Text() != "stop"; {
		settled := told(func(line func(string)) {
			for _, f := range work {
				line(f.settle())
			}
		})
		flowing := told(func(line func(string)) { line(talking.settle()) })
		writing := told(func(line func(string)) {
			for _, f := range files {
				line(f.settle())
			}
		})
		fmt.Print(report("check", all, func(c *conversation) error { return c.settle(o.quiet) }))
		fmt.Print(<-settled, <-flowing, <-writing, "settled\n")
	}
	for _, f := range files {
		fmt.Println(f.end())
	}
	fmt.Print(report("end", all, (*conversation).end))
	close(reading)
	if err := <-read; err != nil {
		fmt.Println("file:", err)
	} else {
		fmt.Println("file intact")
	}
	fmt.Println("done")
	return nil
}

// told gives the lines of f when it has ended.
func told(f func(line func(string))) <-chan string {
	all := make(chan string, 1)
	go func() {
		text := ""
		f(func(s string) { text += s + "\n" })
		all <- text
	}()
	return all
}
