// echo is the smallest useful thing to run in a pod. It is static and alone in
// its image, so its other words stand in for the tools of a fuller one.
//
//	echo [serve]           HTTP on :8080 (who answers, who asks, headers, body), TCP echo and
//	                       UDP echo on :7000, bulk data on :7001 (see bulk)
//	echo get URL           one HTTP request, the answer on standard output
//	echo api PATH          the same to the API server, as the pod's service account
//	echo dial ADDR TEXT    one line over TCP and back; echo dial-udp ADDR TEXT likewise
//	echo resolve NAME      its addresses, one a line; echo lookup SERVER NAME asks this name server
//	echo put FILE          standard input to a file; echo cat FILE the other way
//	echo peek CONTAINER    finds a process of that container by its cgroup, enters its
//	                       network namespace and prints what listens there (needs hostPID,
//	                       SYS_PTRACE and SYS_ADMIN)
//	echo sleep SECONDS
//	echo exit STATUS
package main

import (
	"bufio"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func main() {
	words := append(os.Args[1:], "", "", "") // a missing argument is an empty one
	if err := do(words[0], words[1], words[2]); err != nil {
		log.Fatal(err)
	}
}

func do(word, a, b string) error {
	switch word {
	case "", "serve":
		return serve()
	case "get":
		return get(http.DefaultTransport, a, "")
	case "api":
		return api(a)
	case "dial":
		return dial("tcp", a, b)
	case "dial-udp":
		return dial("udp", a, b)
	case "resolve":
		found, err := net.LookupHost(a)
		slices.Sort(found)
		for _, address := range found {
			fmt.Println(address)
		}
		return err
	case "lookup":
		server := net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, a+":53")
		}}
		found, err := server.LookupHost(context.Background(), b)
		fmt.Printf("%s answers for %s: %s\n", a, b, found)
		return err
	case "put":
		f, err := os.Create(a)
		if err != nil {
			return err
		}
		_, err = io.Copy(f, os.Stdin)
		return errors.Join(err, f.Close())
	case "cat":
		content, err := os.ReadFile(a)
		os.Stdout.Write(content)
		return err
	case "peek":
		return peek(a)
	case "sleep":
		seconds, err := strconv.ParseFloat(a, 64)
		time.Sleep(time.Duration(seconds * float64(time.Second)))
		return err
	case "exit":
		status, err := strconv.Atoi(a)
		if err == nil {
			os.Exit(status)
		}
		return err
	}
	return fmt.Errorf("unknown word %q", word)
}

func serve() error {
	host, _ := os.Hostname()
	if err := listen(":7000", func(c net.Conn) { io.Copy(c, c) }); err != nil {
		return err
	}
	if err := listen(":7001", bulk); err != nil {
		return err
	}
	packets, err := net.ListenPacket("udp", ":7000")
	if err != nil {
		return err
	}
	go func() {
		b := make([]byte, 65536)
		for {
			n, from, err := packets.ReadFrom(b)
			if err != nil {
				return
			}
			packets.WriteTo(b[:n], from)
		}
	}()
	go func() { // the kernel spares pid 1 signals that it does not ask for
		stop := make(chan os.Signal, 1)
		signal.Notify(stop, syscall.SIGTERM)
		<-stop
		os.Exit(0)
	}()
	log.Printf("%s listens", host)
	return http.ListenAndServe(":8080", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		log.Printf("%s %s from %s", r.Method, r.URL, r.RemoteAddr)
		fmt.Fprintf(w, "pod %s\nfrom %s\n%s %s\n", host, r.RemoteAddr, r.Method, r.URL)
		r.Header.Write(w)
		io.Copy(w, r.Body)
	}))
}

func listen(address string, handle func(net.Conn)) error {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				handle(c)
			}()
		}
	}()
	return nil
}

// bulk answers "send N" with N bytes, and N bytes after "take N" with "done".
func bulk(c net.Conn) {
	r := bufio.NewReaderSize(c, 64<<10)
	for {
		var word string
		var n int64
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		if _, err := fmt.Sscan(line, &word, &n); err != nil {
			return
		}
		switch word {
		case "send":
			for block := make([]byte, 64<<10); n > 0; n -= int64(len(block)) {
				if _, err := c.Write(block[:min(n, int64(len(block)))]); err != nil {
					return
				}
			}
		case "take":
			if _, err := io.CopyN(io.Discard, r, n); err != nil {
				return
			}
			fmt.Fprintln(c, "done")
		}
	}
}

func get(through http.RoundTripper, url, token string) error {
	request, err := http.NewRequest("GET", url, nil)
	if err != nil {
		return err
	}
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	client := http.Client{Timeout: 5 * time.Second, Transport: through}
	answer, err := client.Do(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if _, err := io.Copy(os.Stdout, answer.Body); err != nil {
		return err
	}
	if answer.StatusCode >= 400 {
		return errors.New(answer.Status)
	}
	return nil
}

func api(path string) error {
	const account = "/var/run/secrets/kubernetes.io/serviceaccount"
	token, err1 := os.ReadFile(account + "/token")
	ca, err2 := os.ReadFile(account + "/ca.crt")
	if err := cmp.Or(err1, err2); err != nil {
		return err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	return get(&http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}, "https://kubernetes.default.svc"+path, string(token))
}

func dial(network, address, text string) error {
	c, err := net.DialTimeout(network, address, 5*time.Second)
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(5 * time.Second))
	fmt.Fprintln(c, text)
	line, err := bufio.NewReader(c).ReadString('\n')
	fmt.Print(line)
	return err
}

func peek(container string) error {
	groups, _ := filepath.Glob("/proc/[0-9]*/cgroup")
	for _, file := range groups {
		if group, _ := os.ReadFile(file); container == "" || !strings.Contains(string(group), container) {
			continue
		}
		process := filepath.Dir(file)
		f, err := os.Open(process + "/ns/net")
		if err != nil {
			return err
		}
		defer f.Close()
		runtime.LockOSThread() // namespaces are a thread's own
		if _, _, errno := syscall.Syscall(sysSetns, f.Fd(), syscall.CLONE_NEWNET, 0); errno != 0 {
			return fmt.Errorf("setns: %w", errno)
		}
		fmt.Println("process", filepath.Base(process))
		return printListeners()
	}
	return fmt.Errorf("no process in %q", container)
}

// sysSetns is the number of setns(2): package syscall has no name for it.
var sysSetns = map[string]uintptr{"amd64": 308, "arm64": 268}[runtime.GOARCH]

func printListeners() error {
	for _, file := range []string{"/proc/thread-self/net/tcp", "/proc/thread-self/net/tcp6"} {
		table, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		for line := range strings.Lines(string(table)) {
			f := strings.Fields(line)
			if len(f) < 4 || f[3] != "0A" { // TCP_LISTEN
				continue
			}
			_, hex, _ := strings.Cut(f[1], ":")
			port, _ := strconv.ParseUint(hex, 16, 16)
			fmt.Println("listens", port)
		}
	}
	return nil
}
