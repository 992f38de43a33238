"""Runs under mirrord against hostile.py: each line is a thing that went wrong."""
import os, signal, socket, sys, time

base = "/srv/h"


def wrong(*what):
    print("WRONG:", *[repr(w) for w in what], flush=True)


def within(seconds, what, f, *args):
    began = time.time()
    try:
        return f(*args)
    except OSError as e:
        return e
    finally:
        if time.time() - began > seconds:
            wrong(what, "took", time.time() - began)


def read(path):
    with open(path, "rb") as f:
        return f.read()


if len(names := within(60, "many", os.listdir, base + "/many")) != 100_000:
    wrong("many", len(names))
for name in within(10, "odd", os.listdir, os.fsencode(base + "/odd")):
    if within(10, name, read, os.fsencode(base) + b"/odd/" + name) != name:
        wrong("odd", name)
if sum(1 for _ in within(60, "deep", lambda: list(os.walk(base + "/deep", followlinks=False)))) != 401:
    wrong("deep")
for path in ["/l60", "/loop", "/loop/x"]:
    if not isinstance(within(10, path, read, base + path), OSError):
        wrong(path, "was opened")
if os.stat(base + "/fifo").st_mode & 0o170000 != 0o010000:
    wrong("fifo is none")
for i in range(200):
    for path in ["/swap/secret", "/leak", "/climb"]:
        got = within(10, path, read, base + path)
        if isinstance(got, bytes) and got != b"target's":
            wrong(path, got)
    got = within(10, "breathes", read, base + "/breathes")
    if not isinstance(got, bytes) or got.strip(b"\0"):
        wrong("breathes", got)
if os.environ.get("LARGE7", "")[:3] != "xxx":
    wrong("environment", len(os.environ))
within(30, "lookup", lambda: socket.getaddrinfo("nowhere.example", 80))
s = socket.socket()
s.bind(("0.0.0.0", 8080))
try:
    s.listen()
    print("listening", flush=True)
except OSError as e:
    print("listen:", e, flush=True)
print("done", flush=True)
