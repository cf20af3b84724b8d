"""Requests as boto3 really sends them, verified by the SigV4 verifier.

A small server on the loopback records every request byte for byte, head and body, and answers well enough for boto3 to
go on. Each recorded head is then given to the check program (S3P_SIGV4_VERIFY, by default sigv4_verify of the unit
tests), which has to accept it, and to refuse it when something in it is changed.
"""

import os
import re
import socket
import subprocess
import threading
import time
from pathlib import Path

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

ACCESS_KEY = "AKIDEXAMPLE0123456789"
SECRET_KEY = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
TOKEN = "FwoGZXIvYXdzE/example+token=="
ROOT = Path(__file__).resolve().parents[2]


def find_program():
    named = os.environ.get("S3P_SIGV4_VERIFY")
    places = [Path(named)] if named else [ROOT / "build/tests/unit/sigv4_verify", ROOT / "tests/unit/sigv4_verify"]
    for place in places:
        if place.is_file() and os.access(place, os.X_OK):
            return str(place)
    pytest.fail(
        "the check program sigv4_verify is missing: build it (make check builds it), or name it in S3P_SIGV4_VERIFY; "
        "looked for " + ", ".join(str(p) for p in places),
        pytrace=False,
    )


@pytest.fixture(scope="session")
def program():
    return find_program()


def verdict(program, raw, now=None, access_key=ACCESS_KEY, secret_key=SECRET_KEY):
    args = [program, access_key, secret_key] + ([str(now)] if now is not None else [])
    done = subprocess.run(args, input=raw, capture_output=True, timeout=20, check=False)
    assert done.returncode in (0, 1), f"{args[0]} failed: {done.stderr.decode(errors='replace')}"
    word = done.stdout.decode().strip()
    assert (word == "OK") == (done.returncode == 0)
    return word


# ---- a server that writes down what it is sent


def answer_for(method, target):
    """Enough of S3 for boto3 to be content."""
    headers = {"ETag": '"d41d8cd98f00b204e9800998ecf8427e"', "Last-Modified": "Fri, 24 May 2013 00:00:00 GMT"}
    body = b""
    if method == "POST" and re.search(r"[?&]uploads", target):
        body = (
            b"<InitiateMultipartUploadResult><Bucket>b</Bucket><Key>k</Key>"
            b"<UploadId>up.load_id-1~/+=</UploadId></InitiateMultipartUploadResult>"
        )
    elif method == "POST" and "uploadId=" in target:
        body = b'<CompleteMultipartUploadResult><ETag>"x-2"</ETag></CompleteMultipartUploadResult>'
    elif method == "POST" and "delete" in target:
        body = b"<DeleteResult/>"
    elif method == "PUT" and "copy" in target:
        body = b'<CopyObjectResult><ETag>"x"</ETag></CopyObjectResult>'
    elif method == "GET" and "list-type=2" in target:
        body = b"<ListBucketResult><Name>b</Name><KeyCount>0</KeyCount></ListBucketResult>"
    elif method == "GET":
        body = b"0123456789"
    return headers, body


class Recorder:
    """One connection at a time is enough; several threads of boto3's transfer manager use several."""

    def __init__(self):
        self.requests = []
        self.lock = threading.Lock()
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                conn, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(conn,), daemon=True).start()

    def serve(self, conn):
        stream = conn.makefile("rb")
        with conn, stream:
            try:
                while self.one(conn, stream):
                    pass
            except OSError:
                pass

    def one(self, conn, stream):
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            line = stream.readline()
            if not line:
                return False
            head += line
        fields = {k.lower(): v for k, v in re.findall(rb"\r\n([^:\r]+): *([^\r]*)", head)}
        if fields.get(b"expect", b"").lower() == b"100-continue":
            conn.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = b""
        if b"chunked" in fields.get(b"transfer-encoding", b""):
            while True:
                size = int(stream.readline(), 16)
                body += stream.read(size)
                stream.readline()
                if size == 0:
                    break
        else:
            body = stream.read(int(fields.get(b"content-length", b"0")))
        with self.lock:
            self.requests.append((head, body))
        method, target = head.split(b" ")[:2]
        headers, content = answer_for(method.decode(), target.decode("latin-1"))
        text = "".join(f"{k}: {v}\r\n" for k, v in headers.items())
        length = f"Content-Length: {len(content)}\r\n\r\n"
        conn.sendall(("HTTP/1.1 200 OK\r\n" + text + length).encode() + (b"" if method == b"HEAD" else content))
        return True

    def take(self):
        with self.lock:
            taken, self.requests = self.requests, []
        return taken


@pytest.fixture(scope="module")
def recorder():
    r = Recorder()
    yield r
    r.listener.close()


def make_client(recorder, monkeypatch, token=None, **config):
    for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    settings = {
        "signature_version": "s3v4",
        "s3": {"addressing_style": "path"},
        "retries": {"max_attempts": 1},
    }
    settings.update(config)
    return boto3.client(
        "s3",
        endpoint_url=f"http://127.0.0.1:{recorder.port}",
        region_name="eu-central-1",
        aws_access_key_id=ACCESS_KEY,
        aws_secret_access_key=SECRET_KEY,
        aws_session_token=token,
        config=Config(**settings),
    )


@pytest.fixture
def client(recorder, monkeypatch):
    recorder.take()
    return make_client(recorder, monkeypatch)


def run(call):
    """The recorded request is what matters; what boto3 makes of the answer is not."""
    try:
        call()
    except (BotoCoreError, ClientError):
        pass


def accepted(program, recorder, at_least=1):
    requests = recorder.take()
    assert len(requests) >= at_least, "boto3 sent fewer requests than expected"
    for head, _ in requests:
        assert verdict(program, head) == "OK", head.decode("latin-1")
    return requests


KEYS = [
    "plain.txt",
    "with space",
    " leading and trailing ",
    "a+b",
    "a%20b",
    "100%",
    "!*'()",
    "-._~",
    "$&,/:;=?@#[]{}|\\^`\"<>",
    "ünïcödé/日本語/🙂",
    "double//slash///es",
    "/leading",
    "trailing/",
    "./dot/../dots/.",
    "..",
    "tab\tand\nnewline",
    "year=2024/month=01/part-00000.parquet",
    "k" * 1024,
]


@pytest.mark.parametrize("key", KEYS, ids=range(len(KEYS)))
def test_object_calls(program, recorder, client, key):
    run(lambda: client.get_object(Bucket="bucket", Key=key))
    run(lambda: client.get_object(Bucket="bucket", Key=key, Range="bytes=0-9"))
    run(lambda: client.get_object(Bucket="bucket", Key=key, VersionId="a+b/c=", PartNumber=2))
    run(lambda: client.head_object(Bucket="bucket", Key=key, ChecksumMode="ENABLED"))
    run(lambda: client.put_object(Bucket="bucket", Key=key, Body=b"hello", Metadata={"a": "x  y", "b": ""}))
    run(lambda: client.delete_object(Bucket="bucket", Key=key))
    run(lambda: client.copy_object(Bucket="bucket", Key=key, CopySource={"Bucket": "other", "Key": key}))
    requests = accepted(program, recorder, 7)
    assert any(b"\r\nRange: bytes=0-9\r\n" in head for head, _ in requests)


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"Prefix": "a b+c/ü&=?#"},
        {"Prefix": "", "Delimiter": "/"},
        {"Prefix": "x!*'()~", "Delimiter": "//", "MaxKeys": 7, "StartAfter": "q w"},
        {"ContinuationToken": "1ueGcxLPRx1Tr/XYExHnhbYLgveDs2J/wm36Hy4vbOwM=+&", "EncodingType": "url"},
    ],
)
def test_list_objects_v2(program, recorder, client, arguments):
    run(lambda: client.list_objects_v2(Bucket="bucket", **arguments))
    accepted(program, recorder)


def test_subresources(program, recorder, client):
    run(lambda: client.get_object_tagging(Bucket="bucket", Key="k"))
    run(lambda: client.get_bucket_lifecycle_configuration(Bucket="bucket"))
    run(lambda: client.get_object_acl(Bucket="bucket", Key="k", VersionId="v"))
    run(lambda: client.delete_objects(Bucket="bucket", Delete={"Objects": [{"Key": "a"}, {"Key": "b c"}]}))
    run(lambda: client.list_buckets())
    run(lambda: client.get_object(Bucket="bucket", Key="k", ResponseContentType="text/plain; charset=utf-8"))
    accepted(program, recorder, 6)


def test_multipart_upload(program, recorder, client):
    up = client.create_multipart_upload(Bucket="bucket", Key="big file")["UploadId"]
    for number in (1, 2):
        client.upload_part(Bucket="bucket", Key="big file", UploadId=up, PartNumber=number, Body=b"x" * 70000)
    parts = [{"ETag": '"e"', "PartNumber": n} for n in (1, 2)]
    run(
        lambda: client.complete_multipart_upload(
            Bucket="bucket", Key="big file", UploadId=up, MultipartUpload={"Parts": parts}
        )
    )
    run(lambda: client.abort_multipart_upload(Bucket="bucket", Key="big file", UploadId=up))
    accepted(program, recorder, 5)


def test_upload_of_a_file_and_download(program, recorder, client, tmp_path):
    source = tmp_path / "source"
    source.write_bytes(b"y" * (9 << 20))
    run(lambda: client.upload_file(str(source), "bucket", "dir/file name"))
    run(lambda: client.download_file("bucket", "dir/file name", str(tmp_path / "target")))
    accepted(program, recorder, 4)


def test_signed_payload_and_checksum_modes(program, recorder, monkeypatch):
    recorder.take()
    signed = make_client(recorder, monkeypatch, s3={"addressing_style": "path", "payload_signing_enabled": True})
    run(lambda: signed.put_object(Bucket="bucket", Key="k", Body=b"hello"))
    run(lambda: signed.put_object(Bucket="bucket", Key="k", Body=b"hello", ChecksumAlgorithm="SHA256"))
    plain = make_client(recorder, monkeypatch, request_checksum_calculation="when_required")
    run(lambda: plain.put_object(Bucket="bucket", Key="k", Body=b"hello", ContentType="text/x; a=\"b  c\""))
    accepted(program, recorder, 3)


def test_session_token(program, recorder, monkeypatch):
    recorder.take()
    client = make_client(recorder, monkeypatch, token=TOKEN)
    run(lambda: client.get_object(Bucket="bucket", Key="k"))
    (head, _), = accepted(program, recorder)
    stripped = re.sub(rb"\r\nX-Amz-Security-Token: [^\r]*", b"", head)
    assert stripped != head
    assert verdict(program, stripped) == "SIGNATURE"


def fetch(recorder, method, url, headers=(), body=b""):
    """Sends a request line exactly as the URL says: no library in between that might tidy it up."""
    hostport, _, rest = url.removeprefix("http://").partition("/")
    lines = [f"{method} /{rest} HTTP/1.1", f"Host: {hostport}", *headers]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    with socket.create_connection(("127.0.0.1", recorder.port), timeout=10) as s:
        s.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
        s.recv(65536)


@pytest.mark.parametrize("token", [None, TOKEN], ids=["plain", "token"])
@pytest.mark.parametrize("key", KEYS, ids=range(len(KEYS)))
def test_presigned_urls(program, recorder, monkeypatch, key, token):
    recorder.take()
    client = make_client(recorder, monkeypatch, token=token)
    params = {"Bucket": "bucket", "Key": key}
    fetch(recorder, "GET", client.generate_presigned_url("get_object", params, ExpiresIn=60))
    fetch(recorder, "GET", client.generate_presigned_url("get_object", params, ExpiresIn=60), ["Range: bytes=1-2"])
    overridden = dict(params, ResponseContentDisposition='attachment; filename="a b.txt"', VersionId="v/1+")
    fetch(recorder, "GET", client.generate_presigned_url("get_object", overridden, ExpiresIn=604800))
    fetch(recorder, "PUT", client.generate_presigned_url("put_object", params, ExpiresIn=60), body=b"hello")
    requests = accepted(program, recorder, 4)
    now = int(time.time())
    assert verdict(program, requests[0][0], now + 120) == "ACCESS_DENIED", "expired"
    assert verdict(program, requests[0][0], now - 3600) == "ACCESS_DENIED", "from the future"


def changed(head, pattern, replacement):
    out, n = re.subn(pattern, replacement, head, count=1)
    assert n == 1 and out != head
    return out


def test_tampering_is_refused(program, recorder, client):
    run(lambda: client.get_object(Bucket="bucket", Key="some key", Range="bytes=0-9", VersionId="v1"))
    (head, _), = accepted(program, recorder)
    for pattern, replacement in [
        (rb"^GET", b"HEAD"),
        (rb"some%20key", b"some%20kez"),
        (rb"versionId=v1", b"versionId=v2"),
        (rb"\r\nHost: 127\.0\.0\.1", b"\r\nHost: 127.0.0.2"),
        (rb"bytes=0-9", b"bytes=0-99"),
        (rb"Signature=[0-9a-f]{4}", b"Signature=0000"),
        (rb"eu-central-1", b"eu-central-2"),
    ]:
        assert verdict(program, changed(head, pattern, replacement)) == "SIGNATURE", pattern
    assert verdict(program, head, secret_key="another") == "SIGNATURE"
    assert verdict(program, head, access_key="another") == "ACCESS_DENIED"
    assert verdict(program, head, now=int(time.time()) + 1000) == "ACCESS_DENIED"
    assert verdict(program, changed(head, rb"\r\nAuthorization: [^\r]*", b"")) == "ACCESS_DENIED"
