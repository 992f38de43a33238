// Command lasting does all that a lost link could hurt, at once and for as long
// as it is wanted, and checks every byte: a static Go program.
//
//	lasting -echo HOST:PORT -n 200 -file PATH -sum SHA256 -steal PORT -mirror PORT [-quiet]
//
// It keeps n connections to a server that sends everything back, reads a file
// slowly, looks up HOST, makes short connections, serves HTTP on two ports, and
// takes commands on stdin: "check" waits until all that was sent has come back,
// "stop" ends everything and prints what became of it.
package main

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

func main() {
	echo := flag.String("echo", "", "address of the server that sends everything back")
	n := flag.Int("n", 200, "how many connections")
	file := flag.String("file", "", "file to read")
	sum := flag.String("sum", "", "its SHA-256")
	steal := flag.String("steal", "", "port to serve requests on")
	mirror := flag.String("mirror", "", "port to serve copies of requests on")
	quiet := flag.Bool("quiet", false, "say nothing between two checks")
	flag.Parse()
	if err := run(*echo, *n, *file, *sum, *steal, *mirror, *quiet); err != nil {
		fmt.Println("lasting:", err)
		os.Exit(1)
	}
}

func run(echo string, n int, file, sum, steal, mirror string, quiet bool) error {
	for _, port := range []string{steal, mirror} {
		ln, err := net.Listen("tcp", ":"+port)
		if err != nil {
			return err
		}
		go http.Serve(ln, http.HandlerFunc(serve))
	}
	all := make([]*conversation, n)
	for i := range all {
		c, err := net.Dial("tcp", echo)
		if err != nil {
			return err
		}
		all[i] = newConversation(c.(*net.TCPConn), i)
		go all[i].hear()
		if !quiet {
			go all[i].speak()
		}
	}
	peer := all[0].c.RemoteAddr().String() // so that no lookup is in it
	reading := make(chan struct{})
	read := make(chan error, 1)
	go func() { read <- readSlowly(file, sum, reading) }()
	if !quiet {
		go repeat("lookup", func(ctx context.Context) error {
			host, _, _ := net.SplitHostPort(echo)
			_, err := (&net.Resolver{PreferGo: true, StrictErrors: true}).LookupHost(ctx, host)
			return err
		})
		go repeat("connect", func(ctx context.Context) error {
			c, err := (&net.Dialer{}).DialContext(ctx, "tcp", peer)
			if err == nil {
				c.Close()
			}
			return err
		})
		go repeat("stat", func(context.Context) error {
			_, err := os.Stat(fmt.Sprintf("%s-%d", file, time.Now().UnixNano()))
			if errors.Is(err, os.ErrNotExist) {
				return nil
			}
			return err
		})
	}
	fmt.Println("ready")
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		if in.Text() == "stop" {
			break
		}
		report("check", all, func(c *conversation) error { return c.settle(quiet) })
	}
	report("end", all, (*conversation).end)
	close(reading)
	if err := <-read; err != nil {
		fmt.Println("file:", err)
	} else {
		fmt.Println("file intact")
	}
	outcomes.Lock()
	defer outcomes.Unlock()
	var lines []string
	for what, n := range outcomes.counts {
		lines = append(lines, fmt.Sprintf("outcome %s %d", what, n))
	}
	sort.Strings(lines)
	fmt.Println(strings.Join(lines, "\n"))
	fmt.Println("done")
	return nil
}

// report does something with all conversations and prints how many are intact.
func report(what string, all []*conversation, do func(*conversation) error) {
	var wg sync.WaitGroup
	var intact, bytes atomic.Int64
	for i, c := range all {
		wg.Go(func() {
			if err := do(c); err != nil {
				fmt.Printf("conversation %d: %v\n", i, err)
				return
			}
			intact.Add(1)
			bytes.Add(c.heard.Load())
		})
	}
	wg.Wait()
	fmt.Printf("%s %d of %d intact, %d bytes\n", what, intact.Load(), len(all), bytes.Load())
}

// conversation is one connection: what is said is random, and is heard again.
type conversation struct {
	c     *net.TCPConn
	every time.Duration
	size  int

	talking sync.Mutex // held while something is said; for good by who wants silence
	words   *rand.ChaCha8
	said    atomic.Int64
	heard   atomic.Int64

	done chan struct{} // closed when err is set
	err  error
}

// paces are how often how much is said.
var paces = []struct {
	every time.Duration
	size  int
}{{500 * time.Millisecond, 256}, {2 * time.Second, 16 << 10}, {5 * time.Second, 64}, {250 * time.Millisecond, 7}}

func newConversation(c *net.TCPConn, i int) *conversation {
	p := paces[i%len(paces)]
	return &conversation{c: c, every: p.every, size: p.size, words: source(c), done: make(chan struct{})}
}

// source gives the bytes that are said on c, from the beginning.
func source(c net.Conn) *rand.ChaCha8 {
	return rand.NewChaCha8(sha256.Sum256([]byte(c.LocalAddr().String())))
}

func (c *conversation) speak() {
	time.Sleep(rand.N(c.every))
	for c.say() == nil {
		time.Sleep(c.every)
	}
}

func (c *conversation) say() error {
	c.talking.Lock()
	defer c.talking.Unlock()
	b := make([]byte, c.size)
	c.words.Read(b)
	n, err := c.c.Write(b)
	c.said.Add(int64(n))
	return err
}

// hear compares what comes back.
func (c *conversation) hear() {
	defer close(c.done)
	words := source(c.c)
	got, want := make([]byte, 64<<10), make([]byte, 64<<10)
	for {
		n, err := c.c.Read(got)
		words.Read(want[:n])
		for i := range n {
			if got[i] != want[i] {
				c.err = fmt.Errorf("byte %d is %x, not %x: something was lost or doubled", c.heard.Load()+int64(i), got[i], want[i])
				return
			}
		}
		c.heard.Add(int64(n))
		if err != nil {
			if !errors.Is(err, io.EOF) {
				c.err = err
			}
			return
		}
	}
}

// settle waits in silence until all has come back.
func (c *conversation) settle(speak bool) error {
	if speak {
		if err := c.say(); err != nil {
			return err
		}
	}
	c.talking.Lock()
	defer c.talking.Unlock()
	return c.complete()
}

func (c *conversation) complete() error {
	for end := time.Now().Add(30 * time.Second); c.heard.Load() < c.said.Load(); time.Sleep(10 * time.Millisecond) {
		select {
		case <-c.done:
			return fmt.Errorf("ended after %d of %d bytes: %w", c.heard.Load(), c.said.Load(), errors.Join(io.EOF, c.err))
		default:
		}
		if time.Now().After(end) {
			return fmt.Errorf("only %d of %d bytes came back", c.heard.Load(), c.said.Load())
		}
	}
	return nil
}

// end says the last word and hears all that is left.
func (c *conversation) end() error {
	c.talking.Lock() // for good
	if err := c.complete(); err != nil {
		return err
	}
	if err := c.c.CloseWrite(); err != nil {
		return err
	}
	<-c.done
	if c.err == nil && c.heard.Load() != c.said.Load() {
		return fmt.Errorf("%d bytes came back of %d", c.heard.Load(), c.said.Load())
	}
	return c.err
}

// readSlowly reads the whole of a file, slowly until hurry is closed.
func readSlowly(path, sum string, hurry <-chan struct{}) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	digest, buf := sha256.New(), make([]byte, 16<<10)
	for {
		n, err := f.Read(buf)
		digest.Write(buf[:n])
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		select {
		case <-hurry:
		case <-time.After(50 * time.Millisecond):
		}
	}
	if got := hex.EncodeToString(digest.Sum(nil)); got != sum {
		return fmt.Errorf("its sum is %s, not %s", got, sum)
	}
	return nil
}

// outcomes counts how things went that are done again and again.
var outcomes = struct {
	sync.Mutex
	counts map[string]int
}{counts: map[string]int{}}

// repeat does something new every half second, each bounded by 40 s.
func repeat(what string, do func(context.Context) error) {
	for range time.Tick(500 * time.Millisecond) {
		go func() {
			ctx, cancel := context.WithTimeout(context.Background(), 40*time.Second)
			defer cancel()
			result := "ok"
			var dns *net.DNSError
			var errno syscall.Errno
			switch err := do(ctx); {
			case err == nil:
			case errors.As(err, &dns) && (dns.IsTemporary || dns.IsTimeout) && !dns.IsNotFound:
				result = "temporary"
			case errors.As(err, &errno):
				result = unix.ErrnoName(errno)
			default:
				result = strings.ReplaceAll(err.Error(), " ", "_")
			}
			outcomes.Lock()
			defer outcomes.Unlock()
			outcomes.counts[what+" "+result]++
		}()
	}
}

// serve answers requests: at once, after a while (/slow?for=2s), or with the
// digest of what was posted.
func serve(w http.ResponseWriter, r *http.Request) {
	if d, err := time.ParseDuration(r.URL.Query().Get("for")); err == nil {
		fmt.Println("asked", r.URL.Path)
		time.Sleep(d)
	}
	digest := sha256.New()
	n, err := io.Copy(digest, r.Body)
	if r.Method == http.MethodPost {
		fmt.Printf("posted %s %x %d %v\n", r.URL.Path, digest.Sum(nil), n, err)
	}
	fmt.Fprintf(w, "local %s\n", r.URL.Path)
}
