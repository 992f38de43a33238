# Prints the signals that it gets, each as it comes, and ends with 3 at the
# second SIGINT.
import signal, sys

wanted = {signal.SIGINT, signal.SIGWINCH}
signal.signal(signal.SIGWINCH, lambda *_: None)  # else it is discarded
signal.pthread_sigmask(signal.SIG_BLOCK, wanted)
print("ready", flush=True)
interrupts = 0
while interrupts < 2:
    if signal.sigwait(wanted) == signal.SIGWINCH:
        print("winch", flush=True)
        continue
    interrupts += 1
    print(f"int{interrupts}", flush=True)
sys.exit(3)
