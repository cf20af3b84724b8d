"""Object bytes that every side can compute: the origin sends them, the tests compare them, nobody stores them.

Byte i of an object is POOL[(i + seed(path, version)) % len(POOL)]. The pool's length is no multiple of any slice or part
size, so bytes delivered at a wrong offset, from a wrong slice or from another version never compare equal.
"""
import random
import zlib

POOL_LEN = 16 * 1048576 + 8 * 1009
_twice = None


def _pool():
    """The pool twice in a row: any run of up to POOL_LEN bytes is one contiguous slice."""
    global _twice
    if _twice is None:
        once = random.Random(20240607).randbytes(POOL_LEN)
        _twice = once + once
    return _twice


def seed(path, version=1):
    return (zlib.crc32(path.encode()) * 2654435761 + version * 7368787) % POOL_LEN


def runs(path, version, first, length):
    """The bytes [first, first + length) as memoryviews of the pool; nothing is copied."""
    view = memoryview(_pool())
    at = (seed(path, version) + first) % POOL_LEN
    while length > 0:
        n = min(length, POOL_LEN)
        yield view[at:at + n]
        at = (at + n) % POOL_LEN
        length -= n


def content(path, version=1, first=0, length=0):
    return b"".join(runs(path, version, first, length))


class Checker:
    """Compares a body with what it must be while it arrives.

    `versions` are the acceptable ones: the body must be one of them from the first byte to the last. `position` is how
    many bytes were right so far."""

    def __init__(self, path, first=0, versions=(1,)):
        self.path, self.first, self.position = path, first, 0
        self.versions = list(versions)

    def feed(self, data):
        pool, n, at, still = _pool(), len(data), self.first + self.position, []
        for v in self.versions:
            start = (seed(self.path, v) + at) % POOL_LEN
            if n <= POOL_LEN and pool[start:start + n] == data:
                still.append(v)
        if not still:
            raise AssertionError("%s: wrong bytes in [%d, %d), expected version(s) %s; first wrong byte at %d"
                                 % (self.path, at, at + n, self.versions, at + self._first_wrong(data, at)))
        self.versions = still
        self.position += n

    def _first_wrong(self, data, at):
        want = content(self.path, self.versions[0], at, len(data))
        return next(i for i, (a, b) in enumerate(zip(data, want)) if a != b)
