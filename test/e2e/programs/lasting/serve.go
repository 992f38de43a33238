package main

import (
	"bufio"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"time"
)

// serve answers requests: at once, after a while (/slow?for=2s), with the digest
// of what was posted, or by sending back what comes when HTTP has ended.
func serve(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Upgrade") == "echo" {
		sendBack(w)
		return
	}
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

func sendBack(w http.ResponseWriter) {
	c, both, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer c.Close()
	if _, err := io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n"); err == nil {
		_, _ = io.Copy(c, both)
	}
}

// talk is the client of sendBack. At a check that finds the connection ended it
// makes another.
func talk(address string, quiet bool) error {
	c, err := upgrade(address)
	if err != nil {
		return err
	}
	begin := func() {
		go c.hear()
		if !quiet {
			go c.speak()
		}
	}
	begin()
	fmt.Println("ready")
	for in := bufio.NewScanner(os.Stdin); in.Scan() && in.Text() != "stop"; {
		err := c.settle(true)
		if err == nil {
			fmt.Printf("check intact, %d bytes\n", c.heard.Load())
			continue
		}
		select {
		case <-c.done:
		case <-time.After(time.Second):
			fmt.Println("check wrong:", err)
			continue
		}
		what := fmt.Sprintf("check ended %d %s\n", c.ended.UnixMilli(), outcome(errors.Join(io.EOF, c.err)))
		c.c.Close()
		if c, err = upgrade(address); err != nil {
			return err
		}
		begin()
		fmt.Print(what)
	}
	return nil
}

func upgrade(address string) (*conversation, error) {
	c, err := net.Dial("tcp", address)
	if err != nil {
		return nil, err
	}
	_, err = fmt.Fprintf(c, "GET /upgraded HTTP/1.1\r\nHost: %s\r\nX-Chaos: yes\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n", address)
	if err != nil {
		return nil, err
	}
	r := bufio.NewReader(c)
	reply, err := http.ReadResponse(r, nil)
	if err != nil {
		return nil, err
	}
	if reply.StatusCode != http.StatusSwitchingProtocols {
		return nil, fmt.Errorf("the request to upgrade was answered %s", reply.Status)
	}
	return newConversation(c, r, paces[0]), nil
}
