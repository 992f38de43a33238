// Command goserver is an HTTP server with Go's defaults: since Go 1.24 it
// listens with MPTCP. It answers /path?for=2s after that time.
package main

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"time"
)

func main() {
	ln, err := net.Listen("tcp", ":"+os.Args[1])
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("listening")
	_ = http.Serve(ln, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		peer, _, _ := net.SplitHostPort(r.RemoteAddr)
		fmt.Println("got", r.URL.Path, "from", peer)
		wait, _ := time.ParseDuration(r.FormValue("for"))
		time.Sleep(wait)
		fmt.Fprintf(w, "local go %s peer=%s\n", r.URL.Path, peer)
	}))
}
