"""Ports and waiting."""
import collections
import os
import random
import socket
import time

SANITIZER = os.environ.get("S3P_SANITIZER", "")   # "asan", "tsan" or empty
SLOW = {"": 1, "asan": 3, "tsan": 5}[SANITIZER] * float(os.environ.get("S3P_SLOW", "1"))  # patience, not sleep
_rng = random.Random(os.getpid() ^ time.time_ns())


_given = collections.deque(maxlen=200)   # not yet bound, perhaps


def free_port():
    """Below the ephemeral range, so that no outgoing connection takes it before the server does."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:]
    base = 12000 + int(worker) % 8 * 2000
    while True:
        port = base + _rng.randrange(2000)
        if port in _given:
            continue
        with socket.socket() as s:
            try:
                s.bind(("127.0.0.1", port))
                _given.append(port)
                return port
            except OSError:
                pass


def wait_until(what, condition, timeout=10, every=0.02):
    """Polls; timeout is stretched for slow builds. Returns the condition's value."""
    end = time.monotonic() + timeout * SLOW
    while True:
        got = condition()
        if got:
            return got
        if time.monotonic() > end:
            raise AssertionError("waited %.0f s in vain for: %s" % (timeout * SLOW, what))
        time.sleep(every)


def can_connect(port, host="127.0.0.1"):
    try:
        socket.create_connection((host, port), 1).close()
        return True
    except OSError:
        return False


def _established_to(port):
    with open("/proc/net/tcp") as f:
        rows = [line.split() for line in f.readlines()[1:]]
    return {(r[1], r[9]) for r in rows if r[3] == "01" and int(r[2].split(":")[1], 16) == port}


def established_to(port):
    """How many connections to that port their clients' ends take for open at one moment, at least: what they have closed
    does not count, whether or not the server has noticed. The table is no snapshot, but what stands in it twice was open
    in between."""
    return len(_established_to(port) & _established_to(port))
