# Listeners of every kind, each with an HTTP server that says its kind and who
# asked. Prints "listening KIND PORT" right after listen(2).
# listeners.py KIND:PORT...
import http.server, os, socket, sys, threading

def listen(kind, host, port, prepare=lambda s: None):
    s = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    prepare(s)
    s.bind((host, port))
    s.listen(64)
    return s

def serve(kind, s):
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            peer = self.client_address[0].replace("::ffff:", "")
            if self.path == "/reload":
                self.answer(f"{kind} reloads")
                s.close() if kind == "again" else os.execv(sys.executable, [sys.executable, *sys.argv[:1], f"{kind}:{port}"])
            self.answer(f"{kind} {self.path} peer={peer}")
        def answer(self, text):
            self.send_response(200)
            self.send_header("Content-Length", str(len(text)))
            self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(text.encode())
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)
        def log_message(self, *args):
            pass
        def handle_error(self, *args):
            pass
    port = s.getsockname()[1]
    print("listening", kind, port, flush=True)
    while s.fileno() >= 0:
        c, peer = s.accept()
        with c:
            try:
                Handler(c, peer, None)
            except OSError:
                pass

v6only = lambda s: s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
shared = lambda s: s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)

def run(kind, port):
    host, prepare = {
        "v6only": ("::", v6only), "::1": ("::1", v6only), "127.0.0.1": ("127.0.0.1", lambda s: None), "group": ("0.0.0.0", shared),
    }.get(kind, ("0.0.0.0", lambda s: None))
    if kind == "two":  # addresses of one port
        own = socket.gethostbyname(socket.gethostname())
        s = listen(kind, own, port)
        threading.Thread(target=serve, args=("two-loopback", listen(kind, "127.0.0.1", port)), daemon=True).start()
    elif kind == "again":  # close and listen, at once, as often as it is told
        while True:
            try:
                serve(kind, listen(kind, host, port))
            except (OSError, ValueError):
                pass
    else:
        s = listen(kind, host, port, prepare)
    if kind == "group":
        threading.Thread(target=serve, args=(kind, listen(kind, host, port, prepare)), daemon=True).start()
    if kind == "child" and os.fork():  # the maker leaves it to a child
        os._exit(0)
    if kind == "exec":  # the next program finds it open
        os.set_inheritable(s.fileno(), True)
        os.execv(sys.executable, [sys.executable, sys.argv[0], f"fd:{s.fileno()}"])
    serve(kind, s)

children = []
for arg in sys.argv[1:]:
    kind, _, number = arg.rpartition(":")
    if len(sys.argv) == 2:
        if kind == "fd":
            serve("exec", socket.socket(fileno=int(number)))
        run(kind, int(number))
    elif not os.fork():
        os.execv(sys.executable, [sys.executable, sys.argv[0], arg])
for _ in sys.argv[1:]:
    os.wait()
sys.stdin.read()
