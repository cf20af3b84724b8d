"""boto3 and the aws command through the proxy against moto and versitygw (which checks every signature)."""
import base64
import hashlib
import os
import subprocess
import sys
import zlib

import boto3
import botocore
import botocore.exceptions
import net
import pytest
import requests
import servers
from conftest import client, s3_origin
from content import content

KIB, MIB = 1 << 10, 1 << 20


def error_code(call, **kw):
    with pytest.raises(botocore.exceptions.ClientError) as e:
        call(**kw)
    return e.value.response["Error"]["Code"], e.value.response["ResponseMetadata"]["HTTPStatusCode"]


def test_put_get_head_delete(s3):
    p, backend, c, bucket = s3
    body = content("/x", 1, 0, 100000)
    put = c.put_object(Bucket=bucket, Key="a/b", Body=body, Metadata={"colour": "blue"}, ContentType="text/x")
    for _ in range(2):
        got = c.get_object(Bucket=bucket, Key="a/b")
        assert got["Body"].read() == body
        assert got["ETag"] == put["ETag"] and got["Metadata"] == {"colour": "blue"} and got["ContentType"] == "text/x"
    assert got["ResponseMetadata"]["HTTPHeaders"]["x-cache"] == "HIT"
    head = c.head_object(Bucket=bucket, Key="a/b")
    assert head["ContentLength"] == 100000 and head["Metadata"] == {"colour": "blue"}
    assert head["ResponseMetadata"]["HTTPHeaders"]["x-cache"] == "HIT"
    c.delete_object(Bucket=bucket, Key="a/b")
    assert error_code(c.get_object, Bucket=bucket, Key="a/b") == ("NoSuchKey", 404)


def test_ranges(s3):
    p, backend, c, bucket = s3
    size = 12 * MIB + 5
    body = content("/x", 1, 0, size)
    backend.direct.put_object(Bucket=bucket, Key="k", Body=body)
    for _ in range(2):
        for spec, first, last in (("bytes=0-0", 0, 0), ("bytes=100-", 100, size - 1), ("bytes=-7", size - 7, size - 1),
                                  ("bytes=9000000-9999999", 9000000, 9999999)):
            got = c.get_object(Bucket=bucket, Key="k", Range=spec)
            assert got["ContentRange"] == "bytes %d-%d/%d" % (first, last, size)
            assert got["Body"].read() == body[first:last + 1]
        assert error_code(c.get_object, Bucket=bucket, Key="k", Range="bytes=%d-" % size) == ("InvalidRange", 416)


def test_a_large_cold_object_in_parallel_parts_compares(s3):
    p, backend, c, bucket = s3
    size = 40 * MIB + 123
    body = content("/x", 1, 0, size)
    backend.direct.put_object(Bucket=bucket, Key="big", Body=body)
    for want in ("MISS", "HIT"):
        got = c.get_object(Bucket=bucket, Key="big")
        assert got["ResponseMetadata"]["HTTPHeaders"]["x-cache"] == want
        assert hashlib.sha256(got["Body"].read()).digest() == hashlib.sha256(body).digest()
    assert p.stats()["origins"]["o"]["requests"] >= size // (8 * MIB)


def test_empty_object(s3):
    p, backend, c, bucket = s3
    c.put_object(Bucket=bucket, Key="empty", Body=b"")
    for _ in range(2):
        got = c.get_object(Bucket=bucket, Key="empty")
        assert got["ContentLength"] == 0 and got["Body"].read() == b""
        assert error_code(c.get_object, Bucket=bucket, Key="empty", Range="bytes=0-") == ("InvalidRange", 416)


def test_conditions(s3):
    p, backend, c, bucket = s3
    etag = c.put_object(Bucket=bucket, Key="k", Body=b"data")["ETag"]
    for _ in range(2):
        assert error_code(c.get_object, Bucket=bucket, Key="k", IfNoneMatch=etag) == ("304", 304)
        assert error_code(c.get_object, Bucket=bucket, Key="k", IfMatch='"x"')[1] == 412
        assert c.get_object(Bucket=bucket, Key="k", IfMatch=etag)["Body"].read() == b"data"
        assert c.get_object(Bucket=bucket, Key="k", IfNoneMatch='"x"')["Body"].read() == b"data"


@pytest.mark.parametrize("key", ["plus+sign", "space here", "per%cent", "€uro/ünï", "a=b&c=d", "dots/../x", "semi;colon",
                                 "!*'()", "tilde~", "trailing/", "double//slash", "a:b@c", "q?mark", "#hash", "[x]{y}|^`"])
def test_strange_keys(s3, key):
    p, backend, c, bucket = s3
    if backend.name == "versitygw" and ("//" in key or ".." in key or key.endswith("/")):
        pytest.skip("a POSIX file system cannot hold this key")
    body = b"" if key.endswith("/") else key.encode()
    c.put_object(Bucket=bucket, Key=key, Body=body)
    for _ in range(2):
        assert c.get_object(Bucket=bucket, Key=key)["Body"].read() == body
    assert backend.direct.get_object(Bucket=bucket, Key=key)["Body"].read() == body
    c.delete_object(Bucket=bucket, Key=key)
    assert error_code(c.head_object, Bucket=bucket, Key=key)[1] == 404


def test_listing_with_prefix_delimiter_and_pages(s3):
    p, backend, c, bucket = s3
    for i in range(25):
        backend.direct.put_object(Bucket=bucket, Key="d%d/k %02d+x" % (i % 2, i), Body=b"x")
    pages = c.get_paginator("list_objects_v2").paginate(Bucket=bucket, PaginationConfig={"PageSize": 7})
    assert [o["Key"] for page in pages for o in page["Contents"]] == sorted("d%d/k %02d+x" % (i % 2, i) for i in range(25))
    got = c.list_objects_v2(Bucket=bucket, Delimiter="/")
    assert [x["Prefix"] for x in got["CommonPrefixes"]] == ["d0/", "d1/"]
    assert len(c.list_objects_v2(Bucket=bucket, Prefix="d1/k 0")["Contents"]) == 5
    assert bucket in [b["Name"] for b in c.list_buckets()["Buckets"]]


def test_buckets_through_the_proxy(s3, bucket):
    p, backend, c, _ = s3
    name = "n" + os.urandom(6).hex()
    c.create_bucket(Bucket=name)
    c.head_bucket(Bucket=name)
    assert c.get_bucket_location(Bucket=name)["ResponseMetadata"]["HTTPStatusCode"] == 200
    c.delete_bucket(Bucket=name)
    assert error_code(c.head_bucket, Bucket=name)[1] == 404
    assert error_code(c.get_object, Bucket=name, Key="k") == ("NoSuchBucket", 404)


def test_multipart_upload_through_the_proxy(s3):
    p, backend, c, bucket = s3
    old = b"old"
    c.put_object(Bucket=bucket, Key="mp", Body=old)
    assert c.get_object(Bucket=bucket, Key="mp")["Body"].read() == old
    body = content("/mp", 1, 0, 11 * MIB)
    upload = c.create_multipart_upload(Bucket=bucket, Key="mp")["UploadId"]
    parts = []
    for n, at in enumerate(range(0, len(body), 5 * MIB), 1):
        e = c.upload_part(Bucket=bucket, Key="mp", UploadId=upload, PartNumber=n, Body=body[at:at + 5 * MIB])["ETag"]
        parts.append({"PartNumber": n, "ETag": e})
    assert c.get_object(Bucket=bucket, Key="mp")["Body"].read() == old
    c.complete_multipart_upload(Bucket=bucket, Key="mp", UploadId=upload, MultipartUpload={"Parts": parts})
    for _ in range(2):
        assert c.get_object(Bucket=bucket, Key="mp")["Body"].read() == body


def test_copy_and_delete_many(s3):
    p, backend, c, bucket = s3
    c.put_object(Bucket=bucket, Key="src", Body=b"source")
    c.put_object(Bucket=bucket, Key="dst", Body=b"before")
    assert c.get_object(Bucket=bucket, Key="dst")["Body"].read() == b"before"
    c.copy_object(Bucket=bucket, Key="dst", CopySource={"Bucket": bucket, "Key": "src"})
    assert c.get_object(Bucket=bucket, Key="dst")["Body"].read() == b"source"
    got = c.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "src"}, {"Key": "dst"}]})
    assert {d["Key"] for d in got["Deleted"]} == {"src", "dst"}
    for k in ("src", "dst"):
        assert error_code(c.get_object, Bucket=bucket, Key=k)[0] == "NoSuchKey"


def test_overwrite_through_the_proxy_is_seen_at_once(s3):
    p, backend, c, bucket = s3
    for i in range(4):
        body = b"version %d" % i * 1000
        c.put_object(Bucket=bucket, Key="k", Body=body)
        for _ in range(2):
            assert c.get_object(Bucket=bucket, Key="k")["Body"].read() == body


def test_boto3_transfers_files_both_ways(s3, tmp_path):
    p, backend, c, bucket = s3
    src, dst = tmp_path / "src", tmp_path / "dst"
    src.write_bytes(content("/f", 1, 0, 20 * MIB + 7))
    c.upload_file(str(src), bucket, "file")       # multipart, aws-chunked trailers where boto3 likes them
    c.download_file(bucket, "file", str(dst))     # HEAD, then ranged GETs
    assert dst.read_bytes() == src.read_bytes()


def test_checksums_of_the_sdk_are_accepted_and_validated(s3):
    p, backend, c, bucket = s3
    c.put_object(Bucket=bucket, Key="k", Body=b"checked", ChecksumAlgorithm="SHA256")
    for _ in range(2):
        got = c.get_object(Bucket=bucket, Key="k", ChecksumMode="ENABLED")
        assert got["Body"].read() == b"checked"


def test_presigned_urls_of_the_proxys_address(s3):
    """auth: none - the signature is not looked at, the request is signed anew."""
    p, backend, c, bucket = s3
    c.put_object(Bucket=bucket, Key="k", Body=b"presigned")
    url = c.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "k"}, ExpiresIn=60)
    for _ in range(2):
        assert requests.get(url, timeout=20, verify=p.ca).content == b"presigned"
    url = c.generate_presigned_url("put_object", Params={"Bucket": bucket, "Key": "up"}, ExpiresIn=60)
    assert requests.put(url, data=b"uploaded", timeout=20, verify=p.ca).status_code == 200
    assert backend.direct.get_object(Bucket=bucket, Key="up")["Body"].read() == b"uploaded"


def test_a_client_with_other_credentials_or_none_reads_too(s3):
    p, backend, c, bucket = s3
    c.put_object(Bucket=bucket, Key="k", Body=b"data")
    assert requests.get("%s/%s/k" % (p.url, bucket), timeout=20, verify=p.ca).content == b"data"
    other = boto3.client("s3", endpoint_url=p.url, aws_access_key_id="OTHER", aws_secret_access_key="other",
                         region_name="eu-west-1", verify=p.ca, config=botocore.config.Config(s3={"addressing_style": "path"}))
    assert other.get_object(Bucket=bucket, Key="k")["Body"].read() == b"data"


def test_unsigned_chunked_uploads_need_a_length(s3):
    p, backend, c, bucket = s3
    with p.conn() as conn:
        conn.request("PUT", "/%s/k" % bucket, {"Transfer-Encoding": "chunked"})
        conn.send(b"5\r\nhello\r\n0\r\n\r\n")
        r = conn.response("PUT")
        assert r.status == 411 and b"MissingContentLength" in r.body


def test_wrong_credentials_are_the_origins_error(start, versitygw_server, bucket):
    client(versitygw_server.url).create_bucket(Bucket=bucket)
    p = start(s3_origin(versitygw_server.url, credentials={"secret_key": "wrong"}))
    r = p.get("/%s/k" % bucket)
    assert r.status == 403 and b"SignatureDoesNotMatch" in r.body


def test_credentials_from_the_environment_and_from_a_profile(start, versitygw_server, bucket, tmp_path):
    direct = client(versitygw_server.url)
    direct.create_bucket(Bucket=bucket)
    direct.put_object(Bucket=bucket, Key="k", Body=b"data")
    base = {"type": "s3", "endpoint": versitygw_server.url, "region": servers.REGION}
    p = start({**base, "credentials": {"source": "env"}},
              env={"AWS_ACCESS_KEY_ID": servers.ACCESS, "AWS_SECRET_ACCESS_KEY": servers.SECRET})
    assert p.get("/%s/k" % bucket).body == b"data"
    f = tmp_path / "credentials"
    f.write_text("[default]\naws_access_key_id = WRONG\naws_secret_access_key = wrong\n[work]\naws_access_key_id=%s\n"
                 "aws_secret_access_key = %s\n" % (servers.ACCESS, servers.SECRET))
    p = start({**base, "credentials": {"source": "profile", "profile": "work", "file": str(f)}})
    assert p.get("/%s/k" % bucket).body == b"data"
    p = start({**base, "credentials": {"source": "auto"}},
              env={"AWS_SHARED_CREDENTIALS_FILE": str(f), "AWS_PROFILE": "work"})
    assert p.get("/%s/k" % bucket).body == b"data"


def test_virtual_hosted_addressing_to_the_origin(start, origin):
    """bucket.localhost resolves to the loopback; what counts is the Host that the origin sees."""
    p = start({"type": "s3", "endpoint": "http://localhost:%d" % origin.port, "addressing": "virtual",
               "credentials": {"source": "none"}})
    origin.put("/k", 1000)
    r = p.get("/bucket/k")
    rec = origin.log()
    if r.status == 502:
        pytest.skip("this machine does not resolve bucket.localhost")
    assert r.status == 200 and rec[0].target == "/k"
    assert rec[0].get("host") == "bucket.localhost:%d" % origin.port


def test_virtual_hosted_requests_of_clients(start, backend, bucket):
    backend.direct.create_bucket(Bucket=bucket)
    backend.direct.put_object(Bucket=bucket, Key="k", Body=b"data")
    p = start(s3_origin(backend.url), server={"routes": [
        {"path": "/_s3dlio/", "handler": "admin"},
        {"path": "/", "origin": "o", "cache": "main", "base_domains": ["s3.test"]}]})
    assert p.get("/k", {"Host": bucket + ".s3.test"}).body == b"data"
    r = p.get("/%s/k" % bucket, {"Host": "s3.test"})
    assert r.body == b"data" and r.get("x-cache") == "HIT", "path and virtual style share one key"


# the aws command

@pytest.fixture
def aws(s3, tmp_path):
    p, backend, c, bucket = s3
    exe = os.path.join(os.path.dirname(sys.executable), "aws")

    def run(*args, check=True):
        env = dict(os.environ, **({"AWS_CA_BUNDLE": p.ca} if p.ca else {}), AWS_ACCESS_KEY_ID=servers.ACCESS, AWS_SECRET_ACCESS_KEY=servers.SECRET,
                   AWS_DEFAULT_REGION=servers.REGION, AWS_ENDPOINT_URL=p.url, AWS_PAGER="", HOME=str(tmp_path))
        r = subprocess.run([exe, *args], env=env, capture_output=True, text=True, timeout=120 * net.SLOW,
                           stdin=subprocess.DEVNULL, cwd=str(tmp_path))
        assert r.returncode == 0 or not check, (args, r.stdout, r.stderr)
        return r
    return run, p, bucket, tmp_path


def test_aws_s3_cp_ls_sync_mv_rm(aws):
    run, p, bucket, tmp = aws
    body = content("/f", 1, 0, 20 * MIB + 3)
    (tmp / "src").mkdir()
    (tmp / "src/big").write_bytes(body)
    (tmp / "src/small").write_bytes(b"small")
    run("s3", "cp", "src/big", "s3://%s/big" % bucket)
    run("s3", "cp", "s3://%s/big" % bucket, "back")
    assert (tmp / "back").read_bytes() == body
    run("s3", "sync", "src", "s3://%s/tree" % bucket)
    run("s3", "sync", "s3://%s/tree" % bucket, "dst")
    assert (tmp / "dst/big").read_bytes() == body and (tmp / "dst/small").read_bytes() == b"small"
    listed = run("s3", "ls", "s3://%s/" % bucket, "--recursive").stdout
    assert "tree/small" in listed and str(len(body)) in listed
    run("s3", "mv", "s3://%s/tree/small" % bucket, "s3://%s/moved" % bucket)
    run("s3", "rm", "s3://%s/big" % bucket)
    assert "big" not in run("s3", "ls", "s3://%s/" % bucket).stdout
    assert run("s3", "cp", "s3://%s/big" % bucket, "x", check=False).returncode != 0


def test_aws_s3api(aws):
    run, p, bucket, tmp = aws
    (tmp / "f").write_bytes(b"0123456789")
    run("s3api", "put-object", "--bucket", bucket, "--key", "k", "--body", "f")
    run("s3api", "get-object", "--bucket", bucket, "--key", "k", "--range", "bytes=2-4", "out")
    assert (tmp / "out").read_bytes() == b"234"
    assert '"ContentLength": 10' in run("s3api", "head-object", "--bucket", bucket, "--key", "k").stdout


# aws-chunked uploads, as SDKs send them; told by x-amz-content-sha256, never by looking at the body

def aws_chunked(p, target, kind, body, decoded, trailer=None):
    fields = {"Content-Encoding": "aws-chunked", "x-amz-content-sha256": kind, "x-amz-decoded-content-length": str(decoded),
              "Content-Type": "text/plain"}
    if trailer:
        fields["x-amz-trailer"] = trailer
    try:
        return p.fetch("PUT", target, fields, body)
    except OSError:
        return None


SIGNED = b";chunk-signature=" + b"0" * 64
UPLOAD = [b"hello " * 2000, b"world"]   # only the last chunk may be small
CRC = base64.b64encode(zlib.crc32(b"".join(UPLOAD)).to_bytes(4, "big"))


def framed(extension, end):
    return b"".join(b"%x%s\r\n%s\r\n" % (len(x), extension, x) for x in UPLOAD) + b"0" + extension + b"\r\n" + end


@pytest.mark.parametrize("kind", ["unsigned_with_trailer", "signed"])
def test_aws_chunked_uploads_arrive_decoded(s3, kind):
    p, backend, c, bucket = s3
    whole = b"".join(UPLOAD)
    if kind == "signed":
        r = aws_chunked(p, "/%s/k" % bucket, "STREAMING-AWS4-HMAC-SHA256-PAYLOAD", framed(SIGNED, b"\r\n"), len(whole))
    else:
        r = aws_chunked(p, "/%s/k" % bucket, "STREAMING-UNSIGNED-PAYLOAD-TRAILER",
                        framed(b"", b"x-amz-checksum-crc32:%s\r\n\r\n" % CRC), len(whole), "x-amz-checksum-crc32")
    assert r.status == 200, r.body
    got = backend.direct.get_object(Bucket=bucket, Key="k")
    assert got["Body"].read() == whole
    if kind == "signed":   # decoded here; the other form passes as it is, and is the origin's to decode
        assert "aws-chunked" not in got.get("ContentEncoding", "")


@pytest.mark.parametrize("body,decoded", [
    (b"5" + SIGNED + b"\r\nhello\r\n0" + SIGNED + b"\r\n\r\n", 6),
    (b"ffffffffffffffff5" + SIGNED + b"\r\nhello\r\n0" + SIGNED + b"\r\n\r\n", 5),
    (b"zz" + SIGNED + b"\r\nhello\r\n0" + SIGNED + b"\r\n\r\n", 5),
    (b"5" + SIGNED + b"\r\nhello", 5),
    (b"hello", 5)], ids=["other_length", "overflow", "bad_size", "cut", "not_chunked"])
def test_broken_aws_chunked_uploads_are_refused_and_store_nothing(s3, body, decoded):
    p, backend, c, bucket = s3
    r = aws_chunked(p, "/%s/k" % bucket, "STREAMING-AWS4-HMAC-SHA256-PAYLOAD", body, decoded)
    assert r is None or 400 <= r.status < 500, r
    assert error_code(backend.direct.head_object, Bucket=bucket, Key="k")[1] == 404


def test_a_part_of_a_multipart_object_is_never_taken_for_the_whole(s3ish, origin):
    p = s3ish()
    origin.put("/b/k", 1000)
    origin.on(path="/b/k", when=lambda r: "partNumber=1" in r.query, status=206, body=content("/b/k", 1, 0, 100),
              headers={"Content-Range": "bytes 0-99/1000", "ETag": origin.objects["/b/k"].etag, "x-amz-mp-parts-count": "10"})
    for _ in range(2):
        r = p.get("/b/k?partNumber=1")
        assert r.status == 206 and r.get("x-amz-mp-parts-count") == "10" and r.body == content("/b/k", 1, 0, 100)
        r = p.fetch("HEAD", "/b/k?partNumber=1")
        assert r.status == 206 and r.get("content-length") == "100"
        r, _v = p.get_checked("/b/k", 1000)
        assert r.get("x-amz-mp-parts-count") is None
        assert p.fetch("HEAD", "/b/k").get("content-length") == "1000"
