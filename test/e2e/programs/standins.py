# standins.py LOG PATH...: a server at each path, which answers whoever connects
# with its path and notes it in LOG. It speaks HTTP to who speaks that.
import os, socket, sys, threading

log, paths = sys.argv[1], sys.argv[2:]


def serve(s, path):
    while True:
        c, _ = s.accept()
        with open(log, "a") as f:
            f.write(path + "\n")
        c.settimeout(0.2)
        try:
            head = c.recv(4096)
        except OSError:
            head = b""
        body = path.encode() + b"\n"
        if b" HTTP/1" in head:
            body = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body
        try:
            c.sendall(body)
        except OSError:
            pass
        c.close()


for path in paths:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    s = socket.socket(socket.AF_UNIX)
    s.bind(path)
    os.chmod(path, 0o666)
    s.listen()
    threading.Thread(target=serve, args=(s, path)).start()
print("ready", flush=True)
