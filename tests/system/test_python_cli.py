"""`python -m s3dlio_proxy`: its verbs, what they print, and how they exit."""
import json
import os
import signal
import subprocess
import sys

import net
import pytest
from content import content
from pyserved import SOURCE, each_served, new_bucket, served, served_moto, served_versitygw  # noqa: F401 - fixtures

from s3dlio_proxy import Client, _cli  # noqa: E402

pytestmark = [pytest.mark.nosan, pytest.mark.ways("h1")]
OK, FAILED, USAGE, NOT_THERE = 0, 1, 2, 3


class Command:
    """Runs it in this process, as the tests are many; one test runs the real thing."""

    def __init__(self, url, capfdbinary):
        self.url, self.cap = url, capfdbinary

    def __call__(self, *arguments, url=None):
        self.cap.readouterr()
        code = _cli.main([*arguments, "--endpoint-url", url or self.url, "--retries", "0"])
        out, err = self.cap.readouterr()
        assert err.count(b"\n") <= 4 or code == USAGE, err
        return code, out if arguments[0] == "get" else out.decode("utf-8", "surrogateescape"), err.decode()

    def json(self, *arguments):
        code, out, err = self(*arguments, "--json")
        return code, json.loads(out)


@pytest.fixture
def run(capfdbinary, each_served):  # noqa: F811
    return Command(each_served.url, capfdbinary)


@pytest.fixture
def bucket_of_nine(each_served, request):  # noqa: F811
    b = "s3://%s/" % new_bucket(each_served, request.node.name)
    c = Client(each_served.url)
    for i in range(9):
        c.put(b + "d%d/k%d" % (i // 3, i), b"x" * (i * 1000), metadata={"n": str(i)})
    return b


def test_ls(run, bucket_of_nine):
    b = bucket_of_nine
    code, out, _ = run("ls", b)
    assert code == OK and [line.split()[-1] for line in out.splitlines()] == [b + "d%d/" % i for i in range(3)]
    code, out, _ = run("ls", "-r", b)
    assert code == OK and [line.split()[-1] for line in out.splitlines()] == [b + "d%d/k%d" % (i // 3, i) for i in range(9)]
    assert " 0 B " in out and " 7.8 KiB " in out
    code, out, _ = run("list", "--recursive", "--pattern", r"k[1-3]$", b)
    assert code == OK and len(out.splitlines()) == 3
    assert run("ls", "-r", "--count-only", b)[1] == "9 objects, 35.2 KiB\n"
    assert run.json("ls", "-r", "--count-only", b)[1] == {"count": 9, "bytes": 36000}
    code, found = run.json("ls", "-r", b + "d1/")
    assert code == OK and [o["size"] for o in found] == [3000, 4000, 5000] and all(o["etag"] and o["last_modified"] for o in found)
    assert run("ls", b + "none")[0] == NOT_THERE and run("ls", "-r", "--pattern", "nothing", b)[0] == NOT_THERE
    assert run("ls", "--count-only", b + "none")[:2] == (OK, "0 objects, 0 B\n")
    code, _, err = run("ls", "s3://no-such-bucket-anywhere/")
    assert code == NOT_THERE and "NoSuchBucket" in err
    code, out, _ = run("ls")
    assert code == OK and b[:-1] in [line.split()[-1] for line in out.splitlines()]
    assert b[:-1] in [x["uri"] for x in run.json("ls")[1]]
    assert run.json("ls", "--count-only")[1]["count"] >= 1


def test_stat(run, bucket_of_nine):
    uri = bucket_of_nine + "d1/k5"
    code, out, _ = run("stat", uri)
    assert code == OK and uri in out and "5000 (4.9 KiB)" in out and "etag:" in out
    code, found = run.json("stat", uri, bucket_of_nine + "d0/k1")
    assert code == OK and [o["size"] for o in found] == [5000, 1000] and found[0]["metadata"] == {"n": "5"}
    code, found = run.json("stat", bucket_of_nine + "none", uri)
    assert code == NOT_THERE and len(found) == 1
    assert run("stat", uri, url="http://127.0.0.1:1")[0] == FAILED


def test_get(run, bucket_of_nine, tmp_path):
    uri = bucket_of_nine + "d1/k5"
    assert run("get", uri)[:2] == (OK, b"x" * 5000) and run("get", uri, "-")[:2] == (OK, b"x" * 5000)
    assert run("get", uri, str(tmp_path))[:2] == (OK, b"") and (tmp_path / "k5").read_bytes() == b"x" * 5000
    assert run("get", uri, str(tmp_path / "f"))[0] == OK and (tmp_path / "f").stat().st_size == 5000
    assert run("get", uri, "--offset", "4000", "--length", "5000")[1] == b"x" * 1000
    assert run("get", uri, "--length", "7")[1] == b"x" * 7 and run("get", uri, "--offset", "9999")[1] == b""
    assert run("get", uri, str(tmp_path / "part"), "--offset", "10", "--length", "20")[0] == OK
    assert (tmp_path / "part").stat().st_size == 20
    code, _, err = run("get", bucket_of_nine + "none", str(tmp_path / "none"))
    assert code == NOT_THERE and "404" in err and not (tmp_path / "none").exists()
    assert run("get", bucket_of_nine + "none")[0] == NOT_THERE
    code, _, err = run("get", uri, str(tmp_path / "no/such/dir"))
    assert code == FAILED and err.count("\n") == 1
    assert sorted(os.listdir(tmp_path)) == ["f", "k5", "part"]


def test_get_into_what_is_no_file(run, bucket_of_nine, tmp_path):
    """A device or a pipe gets the bytes and stays what it is."""
    os.mkfifo(tmp_path / "pipe")
    with open(os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK), "rb") as reader:
        assert run("get", bucket_of_nine + "d2/k8", str(tmp_path / "pipe"))[0] == 0
        assert reader.read() == b"x" * 8000
    assert os.listdir(tmp_path) == ["pipe"]


def test_what_the_proxy_says(run, bucket_of_nine):
    for i in (0, 1):
        run("get", bucket_of_nine + "d1/k%d" % (3 + i))
    code, out, _ = run("stats")
    assert code == OK and "requests.cache.hit" in out and "version" in out
    assert run.json("stats")[1]["requests"]["total"] > 0
    code, _, err = run("stats", "--since", "nothing")
    assert code == NOT_THERE and "mark" in err
    code, out, _ = run("cached", bucket_of_nine)
    assert code == OK and [line.split()[-1] for line in sorted(out.splitlines())] and out.count(bucket_of_nine) == 2 and "100.0 %" in out
    assert {o["size"] for o in run.json("cached", bucket_of_nine)[1]} == {3000, 4000}
    assert run("cached")[0] == OK and run("cached", bucket_of_nine + "none")[0] == NOT_THERE
    assert run("health")[:2] == (OK, run.url + " is ready\n") and run.json("health") == (OK, {"ready": True, "url": run.url})
    code, out, err = run("health", url="http://127.0.0.1:1")
    assert code == FAILED and out == "" and "not ready" in err


@pytest.mark.parametrize("arguments", [[], ["nothing"], ["ls", "b"], ["ls", "--pattern", "(", "s3://b"], ["stat"], ["stat", "s3://b"], ["get"],
                                       ["get", "s3://b/"], ["get", "s3://b/k", "f", "--offset", "-1"], ["get", "s3://b/k", "--length", "x"],
                                       ["cached", "b"], ["health", "x"], ["stats", "--wrong"]])
def test_wrong_usage_is_told_and_nothing_is_done(origin, capsys, arguments):
    assert _cli.main([*arguments, *(["--endpoint-url", origin.url] if arguments else [])]) == USAGE
    err = capsys.readouterr().err
    assert "usage:" in err and "Traceback" not in err and origin.count() == 0


def test_an_endpoint_that_is_none_is_wrong_usage(capsys):
    assert _cli.main(["health", "--endpoint-url", "nonsense"]) == USAGE
    assert _cli.main(["health", "--timeout", "0"]) == USAGE
    assert capsys.readouterr().err.count("\n") == 2


def test_help_says_what_the_exit_status_means(capsys):
    for arguments in (["--help"], ["get", "--help"]):
        assert _cli.main(arguments) == OK and "Exit status: 0 done" in capsys.readouterr().out
    assert _cli.main(["--version"]) == OK


def test_it_signs_with_what_is_in_the_environment(origin, monkeypatch, capsys):
    origin.put("/b/k", 5)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKID")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret-1")
    assert _cli.main(["stat", "s3://b/k", "--endpoint-url", origin.url]) == OK
    assert "AKID/" in origin.log()[-1].get("authorization")
    origin.on(status=403)
    assert _cli.main(["stat", "s3://b/k", "--endpoint-url", origin.url]) == FAILED
    assert "secret-1" not in capsys.readouterr().err


def process(*arguments, **kw):
    env = {**os.environ, "PYTHONPATH": SOURCE, "PYTHONIOENCODING": "utf-8"}
    return subprocess.Popen([sys.executable, "-m", "s3dlio_proxy", *arguments], env=env, stdin=subprocess.DEVNULL,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, **kw)


def test_the_real_thing(origin):
    origin.put("/b/k", 3 << 20)
    p = process("get", "s3://b/k", "--endpoint-url", origin.url)
    out, err = p.communicate(timeout=60 * net.SLOW)
    assert (p.returncode, out, err) == (OK, content("/b/k", 1, 0, 3 << 20), b"")
    p = process("stat", "s3://b/none", "--endpoint-url", origin.url)
    out, err = p.communicate(timeout=60 * net.SLOW)
    assert p.returncode == NOT_THERE and out == b"" and err.count(b"\n") == 1


def test_a_reader_that_leaves_is_no_failure(origin):
    origin.put("/b/k", 20 << 20)
    p = process("get", "s3://b/k", "--endpoint-url", origin.url)
    assert p.stdout.read(10) == content("/b/k", 1, 0, 10)
    p.stdout.close()
    assert p.wait(60 * net.SLOW) == OK and p.stderr.read() == b""
    p.stderr.close()


def test_an_interrupt_leaves_no_half_file(origin, tmp_path):
    origin.put("/b/k", 20 << 20)
    origin.on(method="GET", mid_delay=(1 << 20, 60))
    p = process("get", "s3://b/k", str(tmp_path / "f"), "--endpoint-url", origin.url)
    net.wait_until("it has begun", lambda: os.listdir(tmp_path), 30)
    p.send_signal(signal.SIGINT)
    _, err = p.communicate(timeout=60 * net.SLOW)
    assert p.returncode == 130 and b"Traceback" not in err and os.listdir(tmp_path) == []
