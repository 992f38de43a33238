# An HTTP server as people write them: answers who it is and who asked.
# server.py PORT [HOST]
import http.server, socket, sys

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        print("got", self.path, "from", self.client_address[0], flush=True)
        body = f"local python {self.path} peer={self.client_address[0]}\n".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass

host = sys.argv[2] if len(sys.argv) > 2 else "0.0.0.0"

class Server(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6 if ":" in host else socket.AF_INET

server = Server((host, int(sys.argv[1])), Handler)
print("listening", flush=True)
server.serve_forever()
