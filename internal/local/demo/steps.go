package demo

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"
)

// steps are the story.
func (s *story) steps() []step {
	here := "not set"
	if v, ok := os.LookupEnv("COLOR"); ok {
		here = v
	}
	name, err := os.Hostname()
	if err != nil {
		name = "unknown"
	}
	client := `(?m)^client ` + anyOf(s.pod.Addresses()) + `$`
	return []step{
		s.runs("environment", `^blue\n$`, "COLOR comes from the pod; on this machine it is "+here, "printenv", "COLOR"),
		s.runs("host name", `^`+Hostname+`\n$`, "the pod's; this machine is "+name, "uname", "-n"),
		s.runs("a file of the pod", `^`+helloText+`$`, "/data is in the pod only", "cat", "/data/hello.txt"),
		s.runs("a volume of the pod", `^color: blue\n`, "a ConfigMap, by its links, at its own path", "cat", configDir+"/config.yaml"),
		s.runs("a name that only the pod knows", anyOf(dbHost.addrs())+`\s+db`, "asked by a packet to the pod's name server",
			s.lookUp("db")...),
		s.runs("HTTP from the pod to another service", client, "the service sees the pod's address", s.ask("http://catalog/items")...),
		s.runs("TCP from the pod to a database that speaks first", `^demo-db ready, you are `+anyOf(s.pod.Addresses())+`\n$`,
			"the database sees the pod's address", s.greeting("db", dbPort)...),
		s.runs("the pod's own localhost", `^sidecar GET /\n`, "a sidecar that listens on the pod's loopback only",
			s.ask(fmt.Sprintf("http://localhost:%d/", sidecarPort))...),
		{"a request to the pod, copied to this machine (mirror)", s.mirrored},
		{"a request to the pod, answered by this machine (steal)", s.stolen},
		{"nothing is left in the pod", s.clean},
	}
}

func anyOf(addrs []netip.Addr) string {
	var list []string
	for _, a := range addrs {
		list = append(list, regexp.QuoteMeta(a.String()))
	}
	return "(" + strings.Join(list, "|") + ")"
}

// ask, greeting and lookUp are ordinary programs where this machine has them,
// or else our own.
func (s *story) ask(url string) []string {
	if _, err := exec.LookPath("curl"); err == nil {
		argv := []string{"curl", "--silent", "--show-error"}
		if proxied() {
			argv = append(argv, "--noproxy", "*") // the user's is not in the pod's network
		}
		return append(argv, url)
	}
	return []string{s.self, "demo", "ask", url}
}

// proxied reports whether curl would ask a proxy (curl(1), "Environment").
func proxied() bool {
	for _, name := range []string{"http_proxy", "all_proxy", "ALL_PROXY"} {
		if os.Getenv(name) != "" {
			return true
		}
	}
	return false
}

func (s *story) greeting(host string, port int) []string {
	if _, err := exec.LookPath("bash"); err == nil {
		return []string{"bash", "-c", fmt.Sprintf("read -r line </dev/tcp/%s/%d && echo $line", host, port)}
	}
	return []string{s.self, "demo", "ask", fmt.Sprintf("tcp://%s:%d", host, port)}
}

func (s *story) lookUp(name string) []string {
	if _, err := exec.LookPath("getent"); err == nil {
		return []string{"getent", "hosts", name}
	}
	return []string{s.self, "demo", "ask", "dns:" + name}
}

// server is `mirrord exec … mirrord demo serve` while it runs.
type server struct {
	cmd   *exec.Cmd
	lines chan string // that it prints; closed at its end
	said  tail
	stop  context.CancelFunc
	done  chan error
}

// serve runs the local server in the pod's context until it listens.
func (s *story) serve(ctx context.Context, flags ...string) (*server, error) {
	args := s.session(flags, s.self, "demo", "serve", fmt.Sprint(httpPort))
	s.show(args)
	ctx, stop := context.WithTimeout(ctx, stepTimeout)
	r, w := io.Pipe()
	v := &server{lines: make(chan string), stop: stop, done: make(chan error, 1)}
	v.cmd = s.program(ctx, args, w, &v.said)
	if err := v.cmd.Start(); err != nil {
		stop()
		return nil, err
	}
	go func() { // ends with the next, which end waits for
		defer close(v.lines)
		for in := bufio.NewScanner(r); in.Scan(); {
			select {
			case v.lines <- in.Text():
			case <-ctx.Done():
			}
		}
		_, _ = io.Copy(io.Discard, r) // after a line that is too long
	}()
	go func() {
		err := v.cmd.Wait()
		w.Close()
		v.done <- err
	}()
	err := s.await(v, "listening on port ")
	if err == nil {
		// By now the session has taken the port; where it has to look for
		// listeners, it will in a moment.
		err = v.said.await(ctx, fmt.Sprintf("port %d", httpPort))
	}
	if err != nil {
		err = errors.Join(err, v.end())
		s.output(v.said.String())
		return nil, err
	}
	return v, nil
}

// await shows what the server prints until a line that begins with want.
func (s *story) await(v *server, want string) error {
	for line := range v.lines {
		s.output(line)
		if strings.HasPrefix(line, want) {
			return nil
		}
	}
	return fmt.Errorf("the local program ended without saying %q", want)
}

// end stops the server as Ctrl-C would, and waits. How a program ends that was
// told to is its own affair; that it does not is an error.
func (v *server) end() (err error) {
	defer v.stop()
	_ = v.cmd.Process.Signal(syscall.SIGTERM) // fails when it has ended
	patience := time.NewTimer(backTimeout)
	defer patience.Stop()
	for lines, running := v.lines, true; running || lines != nil; {
		select {
		case _, more := <-lines: // nobody reads them any more
			if !more {
				lines = nil
			}
		case <-v.done:
			running = false
		case <-patience.C:
			err = fmt.Errorf("the session did not end within %v", backTimeout)
			_ = v.cmd.Process.Kill()
		}
	}
	return err
}

// request sends a request to the pod as one of its clients, and shows it.
func (s *story) request(ctx context.Context, path string) (string, error) {
	url := "http://" + podHost.v4().String() + path
	r, err := s.pod.Request(ctx, Request{Method: "GET", URL: url})
	if err != nil {
		return "", err
	}
	first, _, _ := strings.Cut(string(r.Body), "\n")
	s.output(fmt.Sprintf("%s asks the pod: GET %s", gatewayHost.v4(), path))
	s.output("the answer: " + first)
	return first, nil
}

func (s *story) mirrored(ctx context.Context) (bool, string) {
	v, err := s.serve(ctx)
	if err != nil {
		return false, err.Error()
	}
	answer, err := s.request(ctx, "/mirrored")
	if err == nil {
		err = s.await(v, "local GET /mirrored client "+gatewayHost.v4().String())
	}
	if err = errors.Join(err, v.end()); err != nil {
		s.output(v.said.String())
		return false, err.Error()
	}
	if answer != "remote GET /mirrored" {
		return false, "the local program got a copy, but the pod did not answer as ever"
	}
	return true, "the pod answered, the local program got a copy, with the client's address"
}

func (s *story) stolen(ctx context.Context) (bool, string) {
	v, err := s.serve(ctx, "--steal")
	if err != nil {
		return false, err.Error()
	}
	answer, err := s.request(ctx, "/stolen")
	if err == nil && answer != "local GET /stolen" {
		err = errors.New("the pod answered instead of this machine")
	}
	if err = errors.Join(err, v.end()); err != nil {
		s.output(v.said.String())
		return false, err.Error()
	}
	began := time.Now()
	if err := s.back(ctx); err != nil {
		return false, "the session has ended, but " + err.Error()
	}
	return true, fmt.Sprintf("this machine answered; %d ms after the session's end the pod does again", time.Since(began).Milliseconds())
}

// back waits until the pod answers itself.
func (s *story) back(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, backTimeout)
	defer cancel()
	again := time.NewTicker(50 * time.Millisecond) // nothing tells of it but the pod's answer
	defer again.Stop()
	for {
		r, err := s.pod.Request(ctx, Request{Method: "GET", URL: "http://" + podHost.v4().String() + "/after"})
		if err == nil && strings.HasPrefix(string(r.Body), "remote GET /after\n") {
			_, err = s.request(ctx, "/after")
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the pod does not answer within %v: %.100s %w", backTimeout, r.Body, err)
		case <-again.C:
		}
	}
}

func (s *story) clean(ctx context.Context) (bool, string) {
	ctx, cancel := context.WithTimeout(ctx, backTimeout)
	defer cancel()
	if err := s.pod.AwaitAlone(ctx); err != nil {
		return false, err.Error()
	}
	after, err := s.pod.Inventory(ctx)
	if err != nil {
		return false, err.Error()
	}
	var changed []string
	for _, line := range after {
		if !slices.Contains(s.before, line) {
			changed = append(changed, "new: "+line)
		}
	}
	for _, line := range s.before {
		if !slices.Contains(after, line) {
			changed = append(changed, "gone: "+line)
		}
	}
	if len(changed) > 0 {
		return false, strings.Join(changed, "\n")
	}
	return true, fmt.Sprintf("no process, table, rule, route or address: %d entries before, the same after", len(s.before))
}
