# An HTTP server that takes bodies, by length and in chunks, and upgrades to an
# echo of lines. It says WHO it is, or "local". web.py PORT...
import hashlib, http.server, os, socket, sys, threading

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, text):
        body = (text + "\n").encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        print("got", self.path, flush=True)
        if self.headers.get("Upgrade"):
            self.send_response(101)
            self.send_header("Upgrade", self.headers["Upgrade"])
            self.send_header("Connection", "Upgrade")
            self.end_headers()
            for line in self.rfile:
                self.wfile.write(b"local " + line)
            self.close_connection = True
            return
        self.answer(f"{os.environ.get('WHO', 'local')} {self.path} peer={self.client_address[0]}")

    def do_POST(self):
        print("got", self.path, flush=True)
        digest = hashlib.sha256()
        if self.headers.get("Transfer-Encoding"):
            while size := int(self.rfile.readline(), 16):
                digest.update(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
        else:
            digest.update(self.rfile.read(int(self.headers["Content-Length"])))
        self.answer(f"local {digest.hexdigest()}")

    def log_message(self, *args):
        pass

for port in sys.argv[1:]:
    server = http.server.ThreadingHTTPServer(("0.0.0.0", int(port)), Handler)
    print("listening", port, flush=True)
    threading.Thread(target=server.serve_forever).start()
print("ready", flush=True)
