// Command goserver is an HTTP server with Go's defaults: since Go 1.24 it
// listens with MPTCP.
package main

import (
	"fmt"
	"net"
	"net/http"
	"os"
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
		fmt.Fprintf(w, "local go %s peer=%s\n", r.URL.Path, peer)
	}))
}
