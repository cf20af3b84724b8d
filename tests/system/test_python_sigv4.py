"""The Python client's signatures: against botocore's for the same requests, and accepted by a server that checks them."""
import datetime
import os
import random

import botocore.auth
import botocore.awsrequest
import botocore.credentials
import pytest
import servers
from pyserved import SOURCE  # noqa: F401 - the package's path

from s3dlio_proxy import Client, Credentials, Retry, errors  # noqa: E402
from s3dlio_proxy import _uri  # noqa: E402
from s3dlio_proxy.sigv4 import EMPTY, UNSIGNED, Signer  # noqa: E402

pytestmark = pytest.mark.nosan
GOOD = Credentials(servers.ACCESS, servers.SECRET, region=servers.REGION)
LETTERS = "aZ09 +%/?#&=~!*'()@:;,$.-_\u00fc\u65e5\"<>[]{}|\\^`\x01\x7f"


def oracle(monkeypatch, credentials, method, url, headers, payload, now):
    """What botocore signs for it: its S3 signer, at that time."""
    at = datetime.datetime.fromtimestamp(now, datetime.timezone.utc)
    monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda remove_tzinfo=True: at.replace(tzinfo=None))
    request = botocore.awsrequest.AWSRequest(method, url, dict(headers), None)
    auth = botocore.auth.S3SigV4Auth(botocore.credentials.Credentials(credentials.access_key, credentials.secret_key,
                                                                      credentials.session_token), "s3", credentials.region)
    request.headers["X-Amz-Content-SHA256"] = payload
    auth.payload = lambda r: payload
    auth.add_auth(request)
    return request.headers["Authorization"]


@pytest.mark.parametrize("seed", range(30))
def test_signatures_are_those_of_botocore(monkeypatch, seed):
    rng = random.Random(seed)
    text = lambda n: "".join(rng.choice(LETTERS) for _ in range(rng.randrange(1, n)))  # noqa: E731
    credentials = Credentials("AKID%d" % seed, text(40), rng.choice([None, "tok/en+%d" % seed]), rng.choice(["us-east-1", "eu-west-9"]))
    path = _uri.path("bucket", text(20))
    query = _uri.query({text(8): text(9) for _ in range(rng.randrange(4))} | {"uploads": ""})
    headers = {"Host": "h.example:8080", "Content-Type": "a/b", "x-amz-meta-a": "  two   spaces ", "X-Amz-Copy-Source": "/b/%20k"}
    payload, now = rng.choice([EMPTY, UNSIGNED, "ab" * 32]), 1_700_000_000 + seed * 86_399
    added = Signer(credentials).sign(rng.choice(["GET"]), path, query, headers, payload, now)
    assert added["Authorization"] == oracle(monkeypatch, credentials, "GET", "http://h.example:8080%s?%s" % (path, query),
                                            headers, payload, now)


def test_the_key_of_a_day_is_not_used_on_the_next(monkeypatch):
    s = Signer(GOOD)
    for day in (0, 1, 1, 0):
        now = 1_700_000_000 + day * 86400
        a = s.sign("GET", "/b/k", "", {"Host": "h"}, EMPTY, now)["Authorization"]
        assert a == oracle(monkeypatch, GOOD, "GET", "http://h/b/k", {"Host": "h"}, EMPTY, now)


@pytest.fixture
def signed(versitygw_server, bucket):
    c = Client(versitygw_server.url, credentials=GOOD, retries=Retry(attempts=2, base=0.01))
    c.create_bucket(bucket)
    return c, "s3://%s/" % bucket


def test_a_server_that_checks_them_accepts_every_kind_of_request(signed):
    c, b = signed
    keys = ["k", "a b", "a+b", "p%41q", "ü/日本", "q?x=1&y=/z", "#f", "&<>'\"", "(x)!*'~", "a=b;c:@,$", "\u2028", "[x]{y}|\\^`"]
    for k in keys:
        data = k.encode() * 50
        c.put(b + k, data, metadata={"name": "  two   spaces "}, content_type="text/x;  a=b")
        assert c.get(b + k) == data and c.get_range(b + k, 3, 7) == data[3:10] and c.stat(b + k).size == len(data)
    assert {o.key for o in c.list(b)} == set(keys)
    assert [o.key for o in c.list(b + "a", page_size=1)] == ["a b", "a+b", "a=b;c:@,$"]
    assert [o.key for o in c.list(b + "q?x=1&y=", delimiter="/")] == ["q?x=1&y=/"]
    big = os.urandom(11 << 20)
    with c.open(b + "big + ü", "wb", part_size=5 << 20) as f:
        f.write(big)
    assert f.result.parts == 3 and c.open(b + "big + ü").read() == big
    buffer = bytearray(len(big))
    assert c.readinto(b + "big + ü", buffer) == len(big) and buffer == big
    assert c.delete([b + k for k in [*keys, "big + ü"]]) == len(keys) + 1
    assert list(c.list(b)) == [] and b[5:-1] in {x.name for x in c.list_buckets()}
    c.delete_bucket(b[5:-1])


def test_dots_and_slashes_reach_a_server_that_checks_the_path_as_it_was_signed(signed):
    """It keeps objects as files and so refuses or folds such keys; its signature check comes first, and is passed."""
    c, b = signed
    for k in ("a//b", "a/./b", "a/../b", "..", "./x", "/x", "x/"):
        try:
            c.get(b + k)
        except errors.Error as e:
            assert e.code != "SignatureDoesNotMatch" and not isinstance(e, errors.AccessDeniedError), (k, e)


@pytest.mark.parametrize("bad", [{"secret_key": "wrong"}, {"access_key": "UNKNOWN"}, {"region": "eu-west-1"}])
def test_wrong_credentials_are_refused_and_not_shown(versitygw_server, bad):
    known = {"access_key": GOOD.access_key, "secret_key": GOOD.secret_key, "region": GOOD.region, **bad}
    c = Client(versitygw_server.url, credentials=Credentials(**known), retries=0)
    with pytest.raises(errors.ResponseError) as e:
        c.list_buckets()
    assert e.value.status in (400, 403) and e.value.code
    for text in (str(e.value), repr(e.value), repr(c), repr(c._settings)):
        assert known["secret_key"] not in text


def test_without_credentials_nothing_is_signed(origin, versitygw_server):
    with pytest.raises(errors.AccessDeniedError):
        Client(versitygw_server.url).list_buckets()
    with pytest.raises(errors.NotFoundError):
        Client(origin.url).get("s3://b/k")
    assert origin.log()[0].get("authorization") is None


def test_the_range_is_not_signed_and_the_body_is(origin):
    origin.put("/b/k", 100)
    c = Client(origin.url, credentials=GOOD)
    c.get_range("s3://b/k", 5, 5)
    c.put("s3://b/new", b"hello")
    first, second = origin.log()
    assert "SignedHeaders=host;x-amz-content-sha256;x-amz-date," in first.get("authorization")
    assert first.get("x-amz-content-sha256") == EMPTY
    assert second.get("x-amz-content-sha256") == "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
    assert "content-md5;host;" in second.get("authorization")


def test_credentials_of_the_environment(monkeypatch):
    for n in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(n, raising=False)
    assert Credentials.from_environment() is None
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    assert Credentials.from_environment() is None
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s")
    assert Credentials.from_environment() == Credentials("a", "s")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "t")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "r1")
    assert Credentials.from_environment() == Credentials("a", "s", "t", "r1")
    monkeypatch.setenv("AWS_REGION", "r2")
    assert Credentials.from_environment().region == "r2"


@pytest.mark.parametrize("bad", [("", "s"), ("a", ""), ("a b", "s"), ("a\n", "s"), ("a", "s", "t\r\nx: y"), ("a", "s", None, "r r"), (None, "s")])
def test_credentials_that_cannot_be(bad):
    with pytest.raises(ValueError, match="expected"):
        Credentials(*bad)
