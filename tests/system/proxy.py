"""Runs s3dlio-proxy as a user would: a YAML file, a process, signals. Every stop judges the exit: status, time, and that
no sanitizer and no assertion had anything to say."""
import copy
import json
import os
import signal
import subprocess
import time

import net
import raw
import ways
import yaml

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.dirname(os.path.dirname(HERE))
BINARY = os.path.abspath(os.environ.get("S3P_BINARY", os.path.join(TOP, "s3dlio-proxy")))
ALARMS = ("Sanitizer", "runtime error:", "WARNING: ThreadSanitizer", "CHECK failed", "assertion", "Assertion",
          "stack smashing", "double free", "corrupted")


def environment(extra=None):
    """A clean environment: no credentials of the person who runs the tests."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "LD_PRELOAD", "S3P_"))}
    env["HOME"] = "/nonexistent"
    env["ASAN_OPTIONS"] = "detect_leaks=1:halt_on_error=1:exitcode=99:detect_stack_use_after_return=1"
    env["UBSAN_OPTIONS"] = "halt_on_error=1:print_stacktrace=1"
    env["TSAN_OPTIONS"] = "halt_on_error=0:exitcode=66:second_deadlock_stack=1"
    env.update(extra or {})
    return env


def merge(base, over):
    """`over` into `base`; None removes a key."""
    for k, v in over.items():
        if v is None:
            base.pop(k, None)
        elif isinstance(v, dict) and isinstance(base.get(k), dict):
            merge(base[k], v)
        else:
            base[k] = v
    return base


def config(port, origin, cache=None, server=None, **top):
    """The usual configuration: one listener, one origin, one cache, the admin route, an access log beside it."""
    c = {
        "workers": 2,
        "log": {"level": "info", "file": "stderr"},
        "caches": {"main": merge({"memory": "256MiB", "fresh_for": "1h"}, cache or {})},
        "origins": {"o": origin},
        "servers": [merge({
            "listen": ["127.0.0.1:%d" % port],
            "routes": [{"path": "/_s3dlio/", "handler": "admin", "allow": ["127.0.0.0/8"]},
                       {"path": "/", "origin": "o", "cache": "main", "auth": "none"}],
        }, server or {})],
    }
    return merge(c, top)


class Proxy:
    def __init__(self, tmp, conf, port, env=None, prefix=(), binary=None, way=None):
        """conf: a dict, or the text of the file. prefix: a command that runs the proxy (prlimit ...).
        way: how get() and the like ask it; `address` and `port` are of its cleartext listener whatever the way is."""
        self.tmp, self.port, self.address = tmp, port, ("127.0.0.1", port)
        self.way = way or ways.Way("h1")
        if self.way.tls:
            conf, self.tls_address = self.way.with_listener(conf)
        self.url = "https://127.0.0.1:%d" % self.tls_address[1] if self.way.tls else "http://127.0.0.1:%d" % port
        self.ca = str(self.way.pki.ca) if self.way.tls else None
        self.conf = copy.deepcopy(conf)
        self.file = tmp / "proxy.yaml"
        self.file.write_text(conf if isinstance(conf, str) else yaml.safe_dump(conf, sort_keys=False))
        self.stderr_file = tmp / "proxy.stderr"
        with open(self.stderr_file, "ab") as err:
            self.process = subprocess.Popen([*prefix, binary or BINARY, "-c", str(self.file)], stdin=subprocess.DEVNULL,
                                            stdout=err, stderr=err, env=environment(env), cwd=str(tmp))
        self.stopped = False

    # life

    def wait_ready(self, timeout=10):
        def up():
            if self.process.poll() is not None:
                raise AssertionError("proxy ended with %s at start: %s" % (self.process.returncode, self.stderr()))
            try:
                # Not its health: one worker may serve while the last one still starts.
                return raw.get(self.address, "/_s3dlio/ready", timeout=5).status == 200
            except (OSError, raw.Broken):
                return False
        try:
            net.wait_until("the proxy to be ready", up, timeout)
        except AssertionError:
            self.kill()
            raise
        return self

    def stderr(self):
        with open(self.stderr_file, errors="replace") as f:
            return f.read()

    @property
    def pid(self):
        return self.process.pid

    def signal(self, sig):
        self.process.send_signal(sig)

    def wait(self, timeout=20):
        try:
            return self.process.wait(timeout * net.SLOW)
        except subprocess.TimeoutExpired:
            where = self.threads_at()
            self.kill()
            raise AssertionError("proxy did not exit in %.0f s after the signal; threads: %s\n%s"
                                 % (timeout * net.SLOW, where, self.stderr()[-3000:])) from None

    def threads_at(self):
        try:
            return [open("/proc/%d/task/%s/wchan" % (self.pid, t)).read()
                    for t in os.listdir("/proc/%d/task" % self.pid)]
        except OSError:
            return []

    def stop(self, timeout=20):
        """SIGTERM, then the judgement. Calling it again does nothing."""
        if self.stopped:
            return
        self.stopped = True
        died = self.process.poll()
        if died is not None:
            raise AssertionError("the proxy died during the test, status %s:\n%s" % (died, self.stderr()[-6000:]))
        self.signal(signal.SIGTERM)
        code = self.wait(timeout)
        text = self.stderr()
        self.judge(text)
        assert code == 0, "exit status %s after SIGTERM:\n%s" % (code, text[-6000:])

    @staticmethod
    def judge(text):
        for alarm in ALARMS:
            if alarm in text:
                at = text.index(alarm)
                raise AssertionError("the proxy's stderr says:\n" + text[max(0, at - 200):at + 8000])

    def ended(self, text_ok=True):
        """For tests that end the process themselves."""
        self.stopped = True
        if text_ok:
            self.judge(self.stderr())

    def kill(self):
        self.stopped = True
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    # what it says of itself

    def stats(self):
        r = raw.get(self.address, "/_s3dlio/stats")
        assert r.status == 200, r
        return json.loads(r.body)

    def purge(self, **what):
        return self.fetch("POST", "/_s3dlio/purge", {"Content-Type": "application/json"}, json.dumps(what).encode())

    def memory_kib(self):
        """(resident, resident and anonymous) of the process."""
        fields = {}
        with open("/proc/%d/status" % self.pid) as f:
            for line in f:
                name, _, value = line.partition(":")
                fields[name] = value
        return int(fields["VmRSS"].split()[0]), int(fields["RssAnon"].split()[0])

    def cpu_seconds(self):
        with open("/proc/%d/stat" % self.pid) as f:
            parts = f.read().rsplit(")", 1)[1].split()
        return (int(parts[11]) + int(parts[12])) / os.sysconf("SC_CLK_TCK")

    def descriptors(self):
        return len(os.listdir("/proc/%d/fd" % self.pid))

    # asking it

    def connect(self, timeout=20, rcvbuf=None):
        """A connection of this test's way: request(), head(), pieces(), body(), response(), one after the other."""
        return self.way.connect(self.tls_address if self.way.tls else self.address, timeout * net.SLOW, rcvbuf)

    def get(self, target, headers=(), **kw):
        return self.fetch("GET", target, headers, **kw)

    def fetch(self, method, target, headers=(), body=None, timeout=20, **kw):
        return raw.ask(self.connect(timeout), method, target, headers, body, **kw)

    def get_checked(self, path, size, first=0, length=None, timeout=60, rcvbuf=None, **kw):
        return raw.ask_checked(self.connect(timeout, rcvbuf), path, size, first, length, **kw)

    def conn(self, timeout=20, **kw):
        """A connection for bytes of HTTP/1.1; for what every protocol can say there is connect()."""
        assert not self.way.two, "p.conn() speaks HTTP/1.1: use p.connect(), or mark the test with ways(\"h1\", \"h1tls\")"
        return self.connect(timeout, **kw)


def run(args, env=None, timeout=12, binary=None, prefix=()):
    """The binary as a command: (status, stdout, stderr)."""
    p = subprocess.run([*prefix, binary or BINARY, *args], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                       env=environment(env), timeout=timeout * net.SLOW)
    Proxy.judge(p.stderr)
    return p.returncode, p.stdout, p.stderr


def log_lines(path, count, timeout=10):
    """The lines of a log once there are `count` of them."""
    def there():
        try:
            with open(path) as f:
                lines = f.read().splitlines()
        except FileNotFoundError:
            return None
        return lines if len(lines) >= count else None
    return net.wait_until("%d lines in %s" % (count, path), there, timeout)


def settle():
    time.sleep(0.1 * net.SLOW)
