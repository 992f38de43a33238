import os
import sys


def add(n):
    result = n + 1
    return result


if __name__ == "__main__":
    if len(sys.argv) > 1:  # a child of its own, which is debugged as well
        pid = os.fork()
        if pid:
            os.waitpid(pid, 0)
            sys.exit()
    print("result", add(41), flush=True)
