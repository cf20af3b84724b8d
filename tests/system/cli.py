"""Runs s3dlio-cli as a user would: arguments, a clean environment, pipes or a terminal, signals. Every run is bounded in
time and judged: no sanitizer and no assertion had anything to say.

    cli("ls", "s3://b/")                   by the fixture `cli`: against its proxy, over the test's way -> Ran
    cli.start("get", ...)                  in the background -> Running; ends with the test
    cli.terminal("stats", "--watch")       on a terminal of its own -> Terminal, with keys, size and screen
    run(["--help"])                        without a proxy

S3P_CLI names another binary; usual is the one beside the proxy's."""
import fcntl
import json
import os
import pty
import select
import struct
import subprocess
import termios
import time
from signal import SIGINT, SIGKILL

import net
import proxy

BINARY = os.path.abspath(os.environ.get("S3P_CLI", os.path.join(os.path.dirname(proxy.BINARY), "s3dlio-cli")))
OK, FAILED, USAGE, NOT_THERE, INTERRUPTED = 0, 1, 2, 3, 130
COLUMNS = "idx thread op client_id n_objects bytes endpoint file error start first_byte end duration_ns".split()


def environment(extra=None):
    """No credentials, endpoints, terminal or locale of the person who runs the tests; None in extra removes a variable."""
    env = {k: v for k, v in proxy.environment().items() if not k.startswith("S3DLIO_") and k not in
           ("TERM", "COLUMNS", "LINES", "XDG_CONFIG_HOME", "XDG_CACHE_HOME")}
    env["LC_ALL"] = "C.UTF-8"
    for k, v in (extra or {}).items():
        env.pop(k, None)
        if v is not None:
            env[k] = v
    return env


class Ran:
    """What came of a run: code, out and err (bytes: out_bytes)."""

    def __init__(self, args, code, out, err):
        self.args, self.code, self.out_bytes = args, code, out
        self.out, self.err = out.decode(errors="replace"), err.decode(errors="replace")
        proxy.Proxy.judge(self.err)

    def __repr__(self):
        return "%s ended with %s\n--- stdout\n%s\n--- stderr\n%s" % (self.args, self.code, self.out[-3000:], self.err[-3000:])

    def ok(self):
        assert self.code == OK, self
        return self

    def failed(self, code, *says):
        assert self.code == code, self
        for text in says:
            assert text in self.err, "%r is not in what was said: %r" % (text, self)
        return self

    def json(self):
        self.ok()
        return json.loads(self.out)

    def json_lines(self):
        self.ok()
        return [json.loads(line) for line in self.out.split("\n") if line]   # keys may hold what else ends lines


class Running:
    """A run in the background. What it prints goes to files, so that it never waits for a reader."""

    def __init__(self, args, tmp, env=None, stdin=None, cwd=None, prefix=(), stdout=None):
        self.args, self.stdout = list(args), tmp / "stdout"
        self._out, self._err = open(self.stdout, "w+b"), open(tmp / "stderr", "w+b")
        self.process = subprocess.Popen([*prefix, BINARY, *self.args], stdin=stdin or subprocess.DEVNULL,
                                        stdout=stdout or self._out, stderr=self._err, env=environment(env), cwd=cwd)

    @property
    def pid(self):
        return self.process.pid

    def err(self):
        self._err.seek(0)
        return self._err.read().decode(errors="replace")

    def signal(self, sig=SIGINT):
        self.process.send_signal(sig)

    def rss_kib(self, what="VmRSS"):
        """VmHWM: the most there was."""
        with open("/proc/%d/status" % self.pid) as f:
            return next((int(line.split()[1]) for line in f if line.startswith(what + ":")), 0)

    def wait(self, timeout=20):
        try:
            self.process.wait(timeout * net.SLOW)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError("%s did not end in %.0f s: %s" % (self.args, timeout * net.SLOW, self.err()[-3000:])) from None
        self._out.seek(0)
        self._err.seek(0)
        return Ran(self.args, self.process.returncode, self._out.read(), self._err.read())

    def interrupt(self, sig=SIGINT, timeout=5):
        """What is promised is a second; what is judged leaves room for busy machines."""
        self.signal(sig)
        return self.wait(timeout)

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


def run(args, env=None, timeout=30, stdin=None, cwd=None, prefix=()):
    """stdin: bytes."""
    args = [str(a) for a in args]
    try:
        p = subprocess.run([*prefix, BINARY, *args], input=stdin if stdin is not None else b"", capture_output=True,
                           env=environment(env), cwd=cwd, timeout=timeout * net.SLOW)
    except subprocess.TimeoutExpired as e:
        raise AssertionError("%s did not end in %.0f s: %s" % (args, timeout * net.SLOW, (e.stderr or b"")[-3000:])) from None
    return Ran(args, p.returncode, p.stdout, p.stderr)


class Screen:
    """What a terminal shows: as much of one as programs need that place a cursor, clear and write."""

    def __init__(self, rows, columns):
        self.lines, self.at, self.alternate, self.cursor, self.pending = {}, (0, 0), False, True, ""
        self.rows, self.columns = rows, columns

    def feed(self, text):
        text, self.pending = self.pending + text, ""
        i = 0
        while i < len(text):
            if text[i] == "\033":
                end = i + 2
                while end < len(text) and not "@" <= text[end] <= "~":
                    end += 1
                if end >= len(text):
                    self.pending = text[i:]
                    return
                self.sequence(text[i + 2:end], text[end])
                i = end
            else:
                self.character(text[i])
            i += 1

    def sequence(self, arguments, final):
        row, column = self.at
        if final == "H":
            where = (arguments or "1;1").split(";")
            self.at = (int(where[0] or 1) - 1, int(where[1] if len(where) > 1 else 1) - 1)
        elif final == "K":
            self.lines[row] = self.lines.get(row, "")[:column]
        elif final == "J":
            below = {} if arguments == "2" else {r: t for r, t in self.lines.items() if r < row}
            if arguments != "2":
                below[row] = self.lines.get(row, "")[:column]
            self.lines = below
        elif (arguments, final) in (("?1049", "h"), ("?1049", "l")):
            self.alternate, self.lines, self.at = final == "h", {}, (0, 0)
        elif arguments == "?25":
            self.cursor = final == "h"
        else:
            assert final == "m", "an unknown sequence: %r" % (arguments + final)

    def character(self, c):
        row, column = self.at
        if c == "\r":
            self.at = (row, 0)
        elif c == "\n":
            self.at = (row + 1, column)
        else:
            assert c >= " ", "a control character: %r" % c
            if column == self.columns:
                assert not self.alternate, "line %d is wider than the terminal: %r" % (row, self.lines[row])
                row, column = row + 1, 0   # an ordinary one is wrapped
            line = self.lines.get(row, "").ljust(column)
            self.lines[row] = line[:column] + c + line[column + 1:]
            self.at = (row, column + 1)
            assert row < self.rows or not self.alternate, "more lines than the terminal has"

    def text(self):
        return "\n".join(self.lines.get(r, "").rstrip() for r in range(max(self.lines, default=-1) + 1))


class Terminal:
    """A run on a pseudo terminal: stdin, stdout and stderr are it, and it is the controlling one."""

    def __init__(self, args, rows=30, columns=100, env=None, cwd=None):
        self.args, self.output, self.code = list(args), b"", None
        self.screen = Screen(rows, columns)
        full = environment({"TERM": "xterm-256color", **(env or {})})
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            try:
                fcntl.ioctl(1, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
                if cwd:
                    os.chdir(cwd)
                os.execve(BINARY, [BINARY, *self.args], full)
            finally:
                os._exit(127)
        self.settings = termios.tcgetattr(self.fd)

    def read(self, seconds=0.05):
        """Takes what is there; False: the other side is gone."""
        if not select.select([self.fd], [], [], seconds)[0]:
            return True
        try:
            data = os.read(self.fd, 65536)
        except OSError:
            data = b""
        self.output += data
        self.screen.feed(data.decode(errors="replace"))
        return data != b""

    def until(self, what, condition, timeout=15):
        """Reads until condition(screen's text) holds; returns that text."""
        end = time.monotonic() + timeout * net.SLOW
        while not condition(self.screen.text()):
            alive = self.read()
            if time.monotonic() > end or (not alive and not condition(self.screen.text())):
                raise AssertionError("%s: %s; the screen:\n%s\n%r" % (self.args, what, self.screen.text(), self.output[-2000:]))
        return self.screen.text()

    def shows(self, *texts, timeout=15):
        return self.until("never showed %s" % (texts,), lambda screen: all(t in screen for t in texts), timeout)

    def quiet(self, seconds=.3, timeout=15):
        """Takes all that comes until nothing has come for a while."""
        end = time.monotonic() + timeout * net.SLOW
        while select.select([self.fd], [], [], seconds * net.SLOW)[0] and self.read(0):
            assert time.monotonic() < end, "it never stops writing"

    def keys(self, data):
        os.write(self.fd, data)

    def resize(self, rows, columns):
        self.screen.rows, self.screen.columns = rows, columns
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def signal(self, sig):
        os.kill(self.pid, sig)

    def wait(self, timeout=15):
        """Its exit code, when all was read; the terminal must be as it was."""
        end = time.monotonic() + timeout * net.SLOW
        while self.code is None:
            self.read()
            done, status = os.waitpid(self.pid, os.WNOHANG)
            if done:
                self.code = os.waitstatus_to_exitcode(status)
            elif time.monotonic() > end:
                self.kill()
                raise AssertionError("%s did not end in %.0f s: %r" % (self.args, timeout * net.SLOW, self.output[-2000:]))
        while select.select([self.fd], [], [], 0)[0] and self.read(0):
            pass
        proxy.Proxy.judge(self.output.decode(errors="replace"))
        assert self.screen.cursor and not self.screen.alternate, "the terminal is left with another screen or without a cursor"
        return self.code

    def kill(self):
        if self.code is None:
            os.kill(self.pid, SIGKILL)
            self.code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def close(self):
        self.kill()
        os.close(self.fd)


class Cli:
    """s3dlio-cli against one proxy (or url), over the test's way."""

    def __init__(self, tmp, url=None, way=None, env=None):
        self.tmp, self.url, self.way, self.env, self.ca = tmp, url, way, dict(env or {}), None
        self._running, self._terminals = [], []

    def to(self, p, env=None):
        """From now on p is asked: a Proxy, or a URL."""
        self.url, self.ca = (p, None) if isinstance(p, str) else (p.url, p.ca)
        self.env.update(env or {})
        return self

    def options(self):
        """What stands before the command: where the proxy is and how it is spoken to."""
        two = self.way is not None and self.way.two
        options = ["--endpoint-url", self.url, "--http2", "prior-knowledge" if two else "off"] if self.url else []
        return options + (["--ca-file", self.ca] if self.url and self.ca else [])

    def __call__(self, *args, env=None, **kw):
        return run([*self.options(), *args], {**self.env, **(env or {})}, cwd=kw.pop("cwd", self.tmp), **kw)

    def start(self, *args, env=None, **kw):
        tmp = self.tmp / ("run%d" % len(self._running))
        tmp.mkdir()
        r = Running([*self.options(), *[str(a) for a in args]], tmp, {**self.env, **(env or {})}, cwd=kw.pop("cwd", self.tmp), **kw)
        self._running.append(r)
        return r

    def terminal(self, *args, env=None, **kw):
        t = Terminal([*self.options(), *[str(a) for a in args]], env={**self.env, **(env or {})}, cwd=kw.pop("cwd", self.tmp), **kw)
        self._terminals.append(t)
        return t

    def stop(self):
        for r in self._running:
            r.kill()
        for t in self._terminals:
            t.close()


def oplog(path):
    """The lines of an op-log as dicts by column. It must be one whole zstd frame with its header."""
    import zstandard
    with open(path, "rb") as f:
        raw = f.read()
    d = zstandard.ZstdDecompressor().decompressobj()
    text = d.decompress(raw)
    assert d.eof and not d.unused_data, "%s is no whole frame" % path
    lines = text.decode().split("\n")
    assert lines.pop() == "" and lines.pop(0).split("\t") == COLUMNS
    rows = [dict(zip(COLUMNS, line.split("\t"), strict=True)) for line in lines]
    assert [int(r["idx"]) for r in rows] == list(range(len(rows)))
    return rows
