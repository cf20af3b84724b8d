"""warm, purge, mark, cached, health: what the proxy's admin route is asked through the command line."""
import json
import re
import threading

import cli as cli_module
import net
import pytest

FAILED, USAGE, NOT_THERE, INTERRUPTED = cli_module.FAILED, cli_module.USAGE, cli_module.NOT_THERE, cli_module.INTERRUPTED
KIB = 1 << 10
ID = r"[0-9a-f]{16}"
pytestmark = pytest.mark.ways("h1")
both = pytest.mark.ways("h1", "h2tls", san=("h1",))


@pytest.fixture
def files(cli, start, tmp_path):
    """cli to a proxy before a directory of 30 objects."""
    root = tmp_path / "root"
    (root / "b/dir").mkdir(parents=True)
    for i in range(25):
        (root / ("b/dir/k%02d" % i)).write_bytes(b"x" * 1000)
    for name in ("a &<+%ü", "new\nline", "+", "#?"):
        (root / "b/dir" / name).write_bytes(b"odd")
    with open(str(root / "b/dir").encode() + b"/bad\xff", "wb") as f:
        f.write(b"bad")
    (root / "b/list").write_text("# a manifest\ns3://b/dir/k01\n/b/dir/k02\n\n")
    p = start({"type": "file", "root": str(root)})
    cli.to(p)
    cli.proxy = p
    return cli


# ---- warm

@both
def test_named_objects_are_warm_when_it_ends(files):
    ran = files("warm", "s3://b/dir/k00", "s3://b/dir/a &<+%ü", "/b/dir/%2B").ok()
    assert re.fullmatch(ID + r"  done, 3 of 3 objects, 1006 B\n", ran.out) and ran.err == ""
    for path in ("/b/dir/k00", "/b/dir/a%20%26%3C%2B%25%C3%BC", "/b/dir/%2B"):
        assert files.proxy.get(path).get("x-cache") == "HIT"


@pytest.mark.parametrize("args", [["-r", "s3://b/dir/"], ["--prefix", "s3://b/dir/"], ["--prefix=/b/dir/"]])
def test_a_prefix_with_pins(files, args):
    job = files("warm", "--json", "--pin", "--concurrency", "4", *args).json()
    assert job["state"] == "done" and job["objects"] == {"total": 30, "done": 30, "failed": 0}
    assert files("cached", "-c", "--json", "s3://b").json() == {"objects": 30, "whole": 30, "pinned": 30, "bytes": 25015, "cached": 25015}


def test_a_manifest(files):
    assert files("warm", "--json", "--manifest", "s3://b/list").json()["objects"] == {"total": 2, "done": 2, "failed": 0}
    assert files.proxy.get("/b/dir/k02").get("x-cache") == "HIT"
    ran = files("warm", "--manifest", "s3://b/nope").failed(FAILED, "404")
    assert re.match(ID + "  failed, 0 of 0 objects", ran.out)


def test_what_could_not_be_warmed_is_told(files):
    ran = files("warm", "s3://b/dir/k00", "s3://b/nope").failed(FAILED)
    assert ran.err == "s3dlio-cli: s3://b/nope: answered with status 404\n" and ", 1 failed\n" in ran.out


def test_a_key_that_is_no_utf_8(files):
    name = b"s3://b/dir/bad\xff"
    files("warm", name.decode("utf-8", "surrogateescape")).ok()
    assert files.proxy.get("/b/dir/bad%FF").get("x-cache") == "HIT"
    assert "/b/dir/bad%FF\n" in files("cached").ok().out
    assert files("purge", name.decode("utf-8", "surrogateescape")).ok().out == "1 object dropped from the cache\n"


def held(http, origin, cli):
    """cli to a proxy whose origin does not answer before the gate opens."""
    gate = threading.Event()
    for i in range(3):
        origin.put("/b/k%d" % i, 10)
    origin.on(gate=gate)
    p = http()
    cli.to(p)
    return p, gate


@both
def test_no_wait_gives_an_id_to_ask_and_to_cancel_by(cli, http, origin):
    p, gate = held(http, origin, cli)
    id_ = cli("warm", "--no-wait", "s3://b/k0", "s3://b/k1").ok().out.strip()
    assert re.fullmatch(ID, id_)
    assert cli("warm", "--status", id_, "--json").json()["state"] == "running"
    assert cli("warm", "--status").ok().out == "%s  running, 0 of 2 objects, 0 B\n" % id_
    assert cli("warm", "--cancel", id_).ok().out.startswith(id_ + "  cancelled")
    assert [j["state"] for j in cli("warm", "--status", "--json").json()["jobs"]] == ["cancelled"]
    assert re.fullmatch(ID, cli("warm", "--no-wait", "--json", "s3://b/k2").json()["id"])
    gate.set()


def test_ctrl_c_leaves_the_job_running_and_says_which(cli, http, origin):
    p, gate = held(http, origin, cli)
    r = cli.start("warm", "s3://b/k0")
    net.wait_until("it is asked for", lambda: origin.count("/b/k0") > 0)
    ran = r.interrupt()
    assert ran.code == INTERRUPTED and ran.err.count("\n") == 1 and ran.out == ""
    id_ = re.search("--status (%s)" % ID, ran.err)[1]
    gate.set()
    net.wait_until("the job is done", lambda: cli("warm", "--status", id_, "--json").json()["state"] == "done")


def test_a_job_that_somebody_cancels_is_a_failure(cli, http, origin):
    p, gate = held(http, origin, cli)
    r = cli.start("warm", "s3://b/k0")
    net.wait_until("it is asked for", lambda: origin.count("/b/k0") > 0)
    id_ = cli("warm", "--status", "--json").json()["jobs"][0]["id"]
    cli("warm", "--cancel", id_).ok()
    assert "cancelled" in r.wait().failed(FAILED).out
    gate.set()


def test_progress_is_shown_on_a_terminal(cli, http, origin):
    p, gate = held(http, origin, cli)
    t = cli.terminal("warm", "s3://b/k0", "s3://b/k1")
    t.shows("warming", "0/2")
    gate.set()
    assert t.wait() == 0
    assert re.search(ID + "  done, 2 of 2 objects, 20 B", t.screen.text())


def test_jobs_that_are_not_there(files):
    files("warm", "--status", "abcdef").failed(NOT_THERE, "no such job")
    files("warm", "--cancel", "0123456789abcdef").failed(NOT_THERE, "no such job")


@pytest.mark.parametrize("args", [[], ["s3://b/"], ["s3://b"], ["k"], ["-r"], ["-r", "s3://b/", "s3://c/"], ["--prefix", "x"],
                                  ["s3://b/k", "--prefix", "s3://b/"], ["--manifest", "s3://b/"], ["--status", "a", "b"],
                                  ["--status", "../purge"], ["--cancel", ""], ["--cancel", "a", "--pin"], ["/b"],
                                  ["s3://b/k", "--concurrency", "0"], ["--manifest", "s3://b/k", "--prefix", "s3://b/"]])
def test_wrong_usage_of_warm_is_one_line(http, cli, args):
    p = http()
    ran = cli.to(p)("warm", *args).failed(USAGE)
    assert ran.err.count("\n") == 1 and ran.out == ""
    assert json.loads(p.get("/_s3dlio/warm").body)["jobs"] == []


# ---- purge, cached

@both
def test_purge_drops_objects_prefixes_and_all(files):
    files("warm", "-r", "s3://b/dir/").ok()
    assert files("purge", "s3://b/dir/k00", "s3://b/dir/k01", "s3://b/dir/nope").ok().out == "2 objects dropped from the cache\n"
    assert files("purge", "--json", "--prefix", "s3://b/dir/k0").json() == {"purged": 8}
    assert files("purge", "-r", "s3://b/dir/k1", "s3://b/dir/k2").ok().out == "15 objects dropped from the cache\n"
    assert files("purge", "--all").ok().out == "5 objects dropped from the cache\n"
    assert files.proxy.get("/b/dir/k24").get("x-cache") == "MISS"


@pytest.mark.parametrize("args", [[], ["--all", "s3://b/k"], ["--prefix", "s3://b/", "--all"], ["s3://b"], ["-r"], ["k"],
                                  ["--prefix", "k"], ["--prefix", "s3:///k"], ["--all", "-r"]])
def test_wrong_usage_of_purge_purges_nothing(files, args):
    files("warm", "s3://b/dir/k00").ok()
    assert files("purge", *args).failed(USAGE).err.count("\n") == 1
    assert files.proxy.get("/b/dir/k00").get("x-cache") == "HIT"


def test_cached_shows_parts_ages_and_pins(cli, http, origin):
    p = http(cache={"slice_size": "64KiB"}, o={"fetch": {"part_size": "64KiB", "read_ahead": "64KiB"}})
    origin.put("/b/part", 640 * KIB)
    origin.put("/b/whole", 100)
    p.get("/b/part", {"Range": "bytes=0-65535"})
    p.get("/b/whole")
    cli.to(p)
    lines = {line.split()[-1]: line.split() for line in cli("cached", "s3://b/").ok().out.splitlines()}
    assert lines["s3://b/whole"][:6] == ["100%", "100", "B", "of", "100", "B"] and "fresh" in lines["s3://b/whole"]
    assert lines["s3://b/part"][0] == "10%" and lines["s3://b/part"][1:3] == ["64.0", "KiB"]
    assert lines["cached"][:6] == ["2", "objects,", "1", "whole,", "0", "pinned;"]
    assert "  65536 of     655360  " in cli("cached", "-b", "s3://b/p").ok().out
    assert cli("cached", "s3://c").ok().out == "0 objects, 0 whole, 0 pinned; 0 B of 0 B cached\n"


def test_cached_goes_through_all_pages(cli, http, origin):
    p = http()
    uris = ["/b/%04d" % i for i in range(2300)]
    for u in uris:
        origin.put(u, 1)
    c = p.connect()
    for u in uris:
        c.request("GET", u)
        c.response("GET")
    cli.to(p)
    assert sorted(e["uri"] for e in cli("cached", "--json").json_lines()) == ["s3:/" + u for u in uris]
    assert cli("cached", "-c").ok().out.startswith("2300 objects, 2300 whole, ")


def test_cached_of_names_that_a_terminal_would_act_on(files):
    files("warm", "-r", "s3://b/dir/").ok()
    out = files("cached").ok().out
    assert "s3://b/dir/new\\x0aline\n" in out and len(out.splitlines()) == 31


# ---- mark, health

def test_marks_are_set_and_listed(files):
    text = files("mark", "epoch 1").ok().out
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z  epoch 1\n", text)
    assert files("mark", "--json", "b/&?%").json()["label"] == "b/&?%"
    assert files("mark").ok().out.split("\n")[0] + "\n" == text
    assert [m["label"] for m in files("mark", "--json").json()["marks"]] == ["epoch 1", "b/&?%"]
    for label in ("", "x" * 65, "ü", "a\nb"):
        files("mark", label).failed(USAGE)


@both
def test_health(files):
    assert files("health").ok().out == files.url + " is ready\n"
    assert files("health", "--json").json() == {"ready": True, "url": files.url}
    assert files("-q", "health").ok().out == ""


# ---- where there is no admin route

COMMANDS = [["health"], ["mark"], ["mark", "x"], ["warm", "s3://b/k"], ["warm", "--status", "ab"], ["purge", "--all"], ["cached"]]


@pytest.mark.parametrize("args", COMMANDS, ids=" ".join)
def test_another_admin_path_is_one_clear_line(cli, http, args):
    p = http(server={"routes": [{"path": "/admin/here/", "handler": "admin", "allow": ["127.0.0.0/8"]},
                                {"path": "/", "origin": "o", "cache": "main", "auth": "none"}]}, ready=False)
    net.wait_until("it is up", lambda: net.can_connect(p.port))
    ran = cli.to(p)(*args).failed(FAILED, "no admin route of s3dlio-proxy", "--admin-path")
    assert ran.err.count("\n") == 1
    assert cli("--admin-path", "/admin/here/", "mark").ok().out == ""
    assert cli("mark", "--admin-path=admin/here").ok().out == ""


@pytest.mark.parametrize("args", COMMANDS, ids=" ".join)
def test_a_server_that_is_no_proxy_is_one_clear_line(cli, origin, args):
    cli.to(origin.url)
    for answer in (dict(status=200, body=b"<html>welcome"), dict(status=200, body=b"[]"), dict(status=200, body=b""),
                   dict(status=200, body=b"{\"id\": 5, \"at\": {}, \"marks\": 7, \"objects\": 1, \"jobs\": null, \"purged\": \"x\"}"),
                   dict(status=404, body=b"<Error><Code>NoSuchBucket</Code></Error>"), dict(status=405), dict(status=301)):
        origin.clear_rules()
        origin.on(**answer)
        ran = cli(*args).failed(FAILED)
        assert ran.err.count("\n") == 1 and ("no admin route of s3dlio-proxy" in ran.err or "another version" in ran.err), ran


def test_who_may_not_is_told_so(cli, http):
    p = http(server={"routes": [{"path": "/_s3dlio/", "handler": "admin", "allow": ["10.0.0.0/8"]},
                                {"path": "/", "origin": "o", "cache": "main", "auth": "none"}]}, ready=False)
    net.wait_until("it is up", lambda: net.can_connect(p.port))
    ran = cli.to(p)("cached").failed(FAILED, "403 AccessDenied")
    assert "--admin-path" not in ran.err


def test_nobody_there(cli):
    cli.to("http://127.0.0.1:%d" % net.free_port())
    ran = cli("--retries", "0", "health").failed(FAILED, "refused")
    assert ran.err.count("\n") == 1
