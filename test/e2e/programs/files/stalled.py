"""Every kind of work on files at once, in the directory it is started in: what
each of them has at the end must be what it did, whatever happens to the link
meanwhile."""
import fcntl, hashlib, mmap, os, sys, threading, time

block = os.urandom(1 << 20)
blocks, pause = 24, 0.05
expected = hashlib.sha256(block * blocks).digest()


def content(path):
    with open(path, "rb") as f:
        return hashlib.sha256(f.read()).digest()


def mapped():
    with open("mapped", "w+b") as f:
        f.truncate(blocks << 20)
        with mmap.mmap(f.fileno(), 0) as m:
            for i in range(blocks):
                m[i << 20 : (i + 1) << 20] = block
                time.sleep(pause)
            m.flush()
        os.fsync(f.fileno())
    return content("mapped") == expected


def written():
    with open("written", "wb") as f:
        for _ in range(blocks):
            f.write(block)
            time.sleep(pause)
        os.fsync(f.fileno())
    return content("written") == expected


def appended():
    lines = [b"%08d\n" % i for i in range(100)]
    with open("appended", "ab", 0) as f:
        for line in lines:
            f.write(line)
            os.fdatasync(f.fileno())
            time.sleep(pause / 5)
    return open("appended", "rb").read() == b"".join(lines)


def read():
    size = 0
    with open("large", "rb") as f:
        while b := f.read(1 << 20):
            size += len(b)
            time.sleep(pause / 2)
    return size == os.stat("large").st_size


def here_and_there():
    with open("large", "rb") as f:
        for i in range(blocks):
            off = i * 7919 * 4096 % (60 << 20)
            if os.pread(f.fileno(), 4096, off) != b"0123456789abcde\n" * 256:
                return False
            time.sleep(pause)
    return True


def locked():
    with open("lock", "w+") as f:
        for i in range(blocks):
            fcntl.flock(f, fcntl.LOCK_EX)
            f.seek(0)
            f.write("%04d" % i)
            f.flush()
            fcntl.flock(f, fcntl.LOCK_UN)
            time.sleep(pause)
    return open("lock").read() == "%04d" % (blocks - 1)


def tell(work):
    try:
        print(work.__name__, "intact" if work() else "BROKEN", flush=True)
    except OSError as e:
        print(work.__name__, "FAILED", e, flush=True)


all_work = [threading.Thread(target=tell, args=(w,)) for w in (mapped, written, appended, read, here_and_there, locked)]
for t in all_work:
    t.start()
time.sleep(4 * pause)
print("ready", flush=True)
for t in all_work:
    t.join()
