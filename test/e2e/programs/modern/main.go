// Command modern speaks HTTP/2, HTTP/3 and gRPC, as a server and as a client. It is
// a module of its own: nothing of the product needs these protocols' libraries.
//
//	modern serve ADDRESS           HTTP/3 on UDP, gRPC on TCP, until stdin ends
//	modern http3 URL               prints the answer
//	modern grpc ADDRESS            one call each way, and a stream
//	modern web ADDRESS NAME        HTTP/2 in the clear, answered in that name, until stdin ends
//	modern ask URL                 asks it 40 times at once, as ana and as nobody by turns
//	modern answer ADDRESS NAME     the same for gRPC, every kind of call
//	modern calls ADDRESS           each of them, by ana and by nobody, on one connection
//
// With MODERN_TLS=FILE, which has a certificate and its key, web and answer serve under
// TLS, and ask and calls ask so, for MODERN_NAME. web is HTTP/1 as well then.
package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/quic-go/quic-go/http3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/peer"
)

func main() {
	var err error
	switch {
	case len(os.Args) == 4 && os.Args[1] == "web":
		err = web(os.Args[2], os.Args[3])
	case len(os.Args) == 4 && os.Args[1] == "answer":
		err = answer(os.Args[2], os.Args[3])
	case len(os.Args) != 3:
		err = fmt.Errorf("usage: modern serve|http3|ask|grpc|calls ADDRESS, modern web|answer ADDRESS NAME")
	case os.Args[1] == "ask":
		err = ask(os.Args[2])
	case os.Args[1] == "calls":
		err = calls(os.Args[2])
	case os.Args[1] == "serve":
		err = serve(os.Args[2])
	case os.Args[1] == "http3":
		err = get(os.Args[2])
	default:
		err = call(os.Args[2])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "modern:", err)
		os.Exit(1)
	}
}

func serve(address string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"modern"}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return err
	}
	conf := &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, NextProtos: []string{http3.NextProtoH3}}
	h3 := &http3.Server{Addr: address, TLSConfig: conf, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, _, _ := net.SplitHostPort(r.RemoteAddr)
		n, _ := io.Copy(io.Discard, r.Body)
		fmt.Fprintf(w, "%s from %s with %d bytes\n", r.Proto, host, n)
		_, _ = w.Write(make([]byte, 1<<20))
	})}
	conn, err := net.ListenPacket("udp", address)
	if err != nil {
		return err
	}
	go func() { _ = h3.Serve(conn) }()
	ln, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	g := grpc.NewServer(grpc.UnaryInterceptor(func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		if p, ok := peer.FromContext(ctx); ok {
			fmt.Println("call from", p.Addr)
		}
		return handler(ctx, req)
	}))
	status := health.NewServer()
	grpc_health_v1.RegisterHealthServer(g, status)
	go func() { _ = g.Serve(ln) }()
	go func() { // something that a stream tells of
		for i := 0; ; i++ {
			s := grpc_health_v1.HealthCheckResponse_SERVING
			if i%2 == 1 {
				s = grpc_health_v1.HealthCheckResponse_NOT_SERVING
			}
			status.SetServingStatus("news", s)
			time.Sleep(100 * time.Millisecond)
		}
	}()
	fmt.Println("ready")
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

func get(url string) error {
	t := &http3.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}} // the server's certificate is made on the spot
	defer t.Close()
	client := &http.Client{Transport: t, Timeout: 20 * time.Second}
	resp, err := client.Post(url, "application/octet-stream", io.LimitReader(zeroes{}, 1<<20))
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	line, rest, _ := bytes.Cut(b, []byte("\n"))
	fmt.Printf("%s and %d bytes more\n", line, len(rest))
	return nil
}

type zeroes struct{}

func (zeroes) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func call(address string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	c, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer c.Close()
	h := grpc_health_v1.NewHealthClient(c)
	got, err := h.Check(ctx, &grpc_health_v1.HealthCheckRequest{})
	if err != nil {
		return err
	}
	fmt.Println(got.Status)
	news, err := h.Watch(ctx, &grpc_health_v1.HealthCheckRequest{Service: "news"})
	if err != nil {
		return err
	}
	for range 4 {
		if _, err := news.Recv(); err != nil {
			return err
		}
	}
	fmt.Println("four messages of a stream")
	return nil
}
