package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// web serves HTTP/2 in the clear.
func web(address, name string) error {
	ln, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	var protocols http.Protocols
	protocols.SetUnencryptedHTTP2(true)
	config, err := underTLS()
	if err != nil {
		return err
	}
	if config != nil {
		protocols.SetHTTP1(true)
		protocols.SetHTTP2(true)
		config.NextProtos = []string{"h2", "http/1.1"}
		ln = tls.NewListener(ln, config)
	}
	server := &http.Server{Protocols: &protocols, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n, err := io.Copy(io.Discard, r.Body)
		fmt.Println("got", r.RequestURI, r.Header.Get("x-user"), n, err)
		w.Header().Set("Trailer", "X-Name")
		if r.URL.Path == "/large" {
			_, _ = w.Write(make([]byte, 3_000_000))
		}
		host, _, _ := net.SplitHostPort(r.RemoteAddr)
		said := fmt.Sprintf("%s %s %s %s %d peer=%s %v%s\n", name, r.Proto, r.Method, r.RequestURI, n, host, err, secured(r.TLS))
		if r.URL.Path == "/known" {
			w.Header().Set("Content-Length", strconv.Itoa(len(said)))
		}
		_, _ = io.WriteString(w, said)
		if r.URL.Path == "/known" && name == "remote" { // its client has what was announced, and does not wait for the trailers
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		}
		w.Header().Set("X-Name", name)
	})}
	go func() { _ = server.Serve(ln) }()
	fmt.Println("ready")
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

// underTLS is what MODERN_TLS says; nil: nothing.
func underTLS() (*tls.Config, error) {
	file := os.Getenv("MODERN_TLS")
	if file == "" {
		return nil, nil
	}
	pair, err := tls.LoadX509KeyPair(file, file)
	config := &tls.Config{Certificates: []tls.Certificate{pair}, ServerName: os.Getenv("MODERN_NAME"), InsecureSkipVerify: true}
	if os.Getenv("MODERN_ASKS") != "" { // its clients for a certificate
		config.ClientAuth = tls.RequestClientCert
	}
	return config, err
}

// secured is what a server sees of its client's TLS.
func secured(s *tls.ConnectionState) string {
	if s == nil {
		return ""
	}
	who := ""
	for _, c := range s.PeerCertificates[:min(1, len(s.PeerCertificates))] {
		who = c.Subject.CommonName
	}
	return fmt.Sprintf(" %s name=%s client=%s", tls.VersionName(s.Version), s.ServerName, who)
}

// ask asks a server of HTTP/2 many times at once, and prints how often it was told
// what, on how many connections.
func ask(url string) error {
	var mu sync.Mutex
	connections, told := 0, map[string]int{}
	var protocols http.Protocols
	protocols.SetUnencryptedHTTP2(true)
	protocols.SetHTTP2(true)
	config, err := underTLS()
	if err != nil {
		return err
	}
	client := &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{Protocols: &protocols, TLSClientConfig: config, DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
		mu.Lock()
		defer mu.Unlock()
		connections++
		return (&net.Dialer{}).DialContext(ctx, network, address)
	}}}
	one := func(user string, body io.Reader) string {
		q, err := http.NewRequest("POST", url, body)
		if err != nil {
			return err.Error()
		}
		q.Header.Set("x-user", user)
		r, err := client.Do(q)
		if err != nil {
			return err.Error()
		}
		defer r.Body.Close()
		b, err := io.ReadAll(r.Body)
		if err != nil {
			return err.Error()
		}
		return fmt.Sprintf("%s: %s (%s)", user, strings.TrimSpace(string(b)), r.Trailer.Get("X-Name"))
	}
	fmt.Println(one("first", nil)) // so that there is a connection
	var all sync.WaitGroup
	for i := range 40 {
		all.Go(func() {
			said := one([]string{"ana", "bob"}[i%2], bytes.NewReader(make([]byte, 200_000)))
			mu.Lock()
			defer mu.Unlock()
			told[said]++
		})
	}
	all.Wait()
	for _, said := range slices.Sorted(maps.Keys(told)) {
		fmt.Println(told[said], said)
	}
	fmt.Println("connections:", connections)
	return nil
}

// answer serves gRPC.
func answer(address, name string) error {
	ln, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	options := []grpc.ServerOption{}
	config, err := underTLS()
	if err != nil {
		return err
	}
	if config != nil {
		options = append(options, grpc.Creds(credentials.NewTLS(config)))
	}
	g := grpc.NewServer(append(options, grpc.StreamInterceptor(func(srv any, s grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
		defer got(s.Context())
		return handler(srv, s)
	}))...)
	g.RegisterService(&grpc.ServiceDesc{
		ServiceName: "test.Calls", HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{
			{MethodName: "Unary", Handler: unary(func(ctx context.Context, said string) (string, error) {
				_ = grpc.SetTrailer(ctx, metadata.Pairs("x-name", name))
				return name + " " + said, nil
			})},
			{MethodName: "Fail", Handler: unary(func(context.Context, string) (string, error) {
				return "", status.Error(codes.NotFound, name+" has none")
			})},
			{MethodName: "Slow", Handler: unary(func(ctx context.Context, _ string) (string, error) {
				<-ctx.Done()
				return "", ctx.Err()
			})},
		},
		Streams: []grpc.StreamDesc{
			{StreamName: "Down", ServerStreams: true, Handler: func(_ any, s grpc.ServerStream) error {
				said, err := receive(s)
				for i := 0; i < 3 && err == nil; i++ {
					err = send(s, fmt.Sprint(name, " ", said, i))
				}
				return err
			}},
			{StreamName: "Up", ClientStreams: true, Handler: func(_ any, s grpc.ServerStream) error {
				var all []string
				for {
					said, err := receive(s)
					if errors.Is(err, io.EOF) {
						fmt.Println("up", strings.Join(all, "+"))
						return send(s, name+" "+strings.Join(all, "+"))
					}
					if err != nil {
						return err
					}
					all = append(all, said)
				}
			}},
			{StreamName: "Both", ServerStreams: true, ClientStreams: true, Handler: func(_ any, s grpc.ServerStream) error {
				for {
					said, err := receive(s)
					if errors.Is(err, io.EOF) {
						return nil
					}
					if err == nil {
						err = send(s, name+" "+said)
					}
					if err != nil {
						return err
					}
				}
			}},
		},
	}, nil)
	go func() { _ = g.Serve(ln) }()
	fmt.Println("ready")
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

// got prints which call has ended, and whose it was.
func got(ctx context.Context) {
	method, _ := grpc.Method(ctx)
	md, _ := metadata.FromIncomingContext(ctx)
	fmt.Println("got", method, md.Get("x-user"))
}

func unary(f func(ctx context.Context, said string) (string, error)) grpc.MethodHandler {
	return func(_ any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
		defer got(ctx)
		var in wrapperspb.StringValue
		if err := decode(&in); err != nil {
			return nil, err
		}
		out, err := f(ctx, in.Value)
		return wrapperspb.String(out), err
	}
}

func receive(s grpc.Stream) (string, error) {
	var m wrapperspb.StringValue
	err := s.RecvMsg(&m)
	return m.Value, err
}

func send(s grpc.Stream, text string) error { return s.SendMsg(wrapperspb.String(text)) }

// calls makes every kind of call by turns, and prints what came of it.
func calls(address string) error {
	creds := insecure.NewCredentials()
	config, err := underTLS()
	if err != nil {
		return err
	}
	if config != nil {
		creds = credentials.NewTLS(config)
	}
	c, err := grpc.NewClient(address, grpc.WithTransportCredentials(creds))
	if err != nil {
		return err
	}
	defer c.Close()
	connections := map[string]bool{}
	for _, user := range []string{"ana", ""} {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if user != "" {
			ctx = metadata.AppendToOutgoingContext(ctx, "x-user", user)
		}
		var p peer.Peer
		var trailer metadata.MD
		var out wrapperspb.StringValue
		err := c.Invoke(ctx, "/test.Calls/Unary", wrapperspb.String("one"), &out, grpc.Peer(&p), grpc.Trailer(&trailer))
		if p.LocalAddr != nil {
			connections[p.LocalAddr.String()] = true
		}
		fmt.Println("unary:", out.Value, trailer.Get("x-name"), err)
		err = c.Invoke(ctx, "/test.Calls/Fail", wrapperspb.String("one"), &out)
		fmt.Println("fail:", status.Code(err), status.Convert(err).Message())
		short, stop := context.WithTimeout(ctx, 300*time.Millisecond)
		err = c.Invoke(short, "/test.Calls/Slow", wrapperspb.String("one"), &out)
		stop()
		fmt.Println("slow:", status.Code(err))
		for _, method := range []string{"Down", "Up", "Both"} {
			all, err := stream(ctx, c, method)
			fmt.Printf("%s: %s %v\n", strings.ToLower(method), strings.Join(all, ", "), err)
		}
	}
	fmt.Println("connections:", len(connections))
	return nil
}

// stream makes one call of streams.
func stream(ctx context.Context, c *grpc.ClientConn, method string) (all []string, err error) {
	up, down := method != "Down", method != "Up"
	s, err := c.NewStream(ctx, &grpc.StreamDesc{ClientStreams: up, ServerStreams: down}, "/test.Calls/"+method)
	if err != nil {
		return nil, err
	}
	for _, text := range []string{"a", "b"} {
		if err := send(s, text); err != nil {
			return nil, err
		}
		if method == "Both" { // its answer comes before the next is said
			said, err := receive(s)
			if err != nil {
				return all, err
			}
			all = append(all, said)
		}
		if !up {
			break
		}
	}
	if err := s.CloseSend(); err != nil {
		return nil, err
	}
	for {
		said, err := receive(s)
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return all, err
		}
		if all = append(all, said); !down {
			return all, nil
		}
	}
}
