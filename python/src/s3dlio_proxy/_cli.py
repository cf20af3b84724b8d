"""A small command line, for machines that have the package but not s3dlio-cli: its verbs that only read.

    python -m s3dlio_proxy ls [-r] [--pattern RE] [--count-only] [s3://bucket[/prefix]]
    python -m s3dlio_proxy stat s3://bucket/key ...
    python -m s3dlio_proxy get s3://bucket/key [FILE | DIRECTORY | -] [--offset N] [--length N]
    python -m s3dlio_proxy stats [--since LABEL]
    python -m s3dlio_proxy cached [s3://bucket[/prefix]]
    python -m s3dlio_proxy health

Exit status: 0 done; 1 it, or some of it, failed; 2 wrong usage, nothing was done; 3 what was named is not there, or nothing
matched; 130 interrupted. Results go to standard output, with --json as JSON; one line for each failure to standard error.
Requests are signed when AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are set.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import stat
import sys
from collections.abc import Iterator
from typing import Any, BinaryIO, Optional

from . import _uri, errors
from ._transport import Retry
from ._types import ObjectInfo
from ._version import __version__
from .client import Client
from .sigv4 import Credentials

OK, FAILED, USAGE, NOT_THERE, INTERRUPTED = 0, 1, 2, 3, 130
_EPILOG = """\
Exit status: 0 done; 1 failed; 2 wrong usage; 3 what was named is not there, or nothing matched; 130 interrupted.
The endpoint is --endpoint-url, S3DLIO_PROXY_URL, AWS_ENDPOINT_URL or http://127.0.0.1:8080."""


def human(n: float) -> str:
    """A size for people: 1.5 MiB."""
    if n < 1024:
        return f"{n:.0f} B"
    for unit in ("KiB", "MiB", "GiB", "TiB", "PiB"):
        n /= 1024
        if n < 1024 or unit == "PiB":
            break
    return f"{n:.1f} {unit}"


def _plain(text: str) -> str:
    """A terminal must not act on what a key contains."""
    return "".join("?" if c < " " or "\x7f" <= c < "\xa0" else c for c in text) if sys.stdout.isatty() else text


def _show(value: Any) -> None:
    json.dump(value, sys.stdout, indent=2, default=str)
    print()


def _say(text: str) -> None:
    line = "".join(c if " " <= c != "\x7f" else "?" for c in text)
    print(f"s3dlio_proxy: {line}", file=sys.stderr)


def _document(o: ObjectInfo) -> dict[str, Any]:
    d: dict[str, Any] = {"uri": o.uri, "size": o.size}
    if o.is_prefix:
        return {"uri": o.uri, "is_prefix": True}
    for name in ("etag", "content_type", "storage_class", "version_id", "cache"):
        if getattr(o, name) is not None:
            d[name] = getattr(o, name)
    if o.last_modified:
        d["last_modified"] = o.last_modified.isoformat()
    if o.metadata:
        d["metadata"] = dict(o.metadata)
    return d


def _listed(client: Client, a: argparse.Namespace) -> Iterator[ObjectInfo]:
    found = client.list(a.uri, delimiter=None if a.recursive else "/")
    return (o for o in found if not a.pattern or a.pattern.search(o.key))


def _ls(client: Client, a: argparse.Namespace) -> int:
    if a.uri is None:
        return _ls_buckets(client, a)
    count = size = 0
    documents = []
    for o in _listed(client, a):
        count += 1
        size += o.size
        if a.count_only:
            continue
        if a.json:
            documents.append(_document(o))
        else:
            when = o.last_modified.strftime("%Y-%m-%d %H:%M:%S") if o.last_modified else ""
            print(f"{when:19}  {'PREFIX' if o.is_prefix else human(o.size):>10}  {_plain(o.uri)}")
    if a.count_only and a.json:
        _show({"count": count, "bytes": size})
    elif a.count_only:
        print(f"{count} objects, {human(size)}")
    elif a.json:
        _show(documents)
    return OK if count or a.count_only else NOT_THERE


def _ls_buckets(client: Client, a: argparse.Namespace) -> int:
    buckets = client.list_buckets()
    if a.count_only:
        if a.json:
            _show({"count": len(buckets)})
        else:
            print(f"{len(buckets)} buckets")
    elif a.json:
        _show([{"uri": f"s3://{b.name}", "created": b.created.isoformat() if b.created else None} for b in buckets])
    else:
        for b in buckets:
            print(f"{b.created.strftime('%Y-%m-%d %H:%M:%S') if b.created else '':19}  {_plain('s3://' + b.name)}")
    return OK


def _stat(client: Client, a: argparse.Namespace) -> int:
    code, documents = OK, []
    for uri in a.uris:
        try:
            o = client.stat(uri)
        except errors.Error as e:
            bad = _failed(e)
            code = bad if code in (OK, bad) else FAILED
            continue
        documents.append(_document(o))
        if not a.json:
            for name, value in documents[-1].items():
                text = f"{value} ({human(value)})" if name == "size" else str(value)
                print(f"{name + ':':15} {_plain(text)}")
    if a.json:
        _show(documents)
    return code


def _is_special(path: str) -> bool:
    """A device, a pipe: bytes go into it, and no file takes its place."""
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


def _get(client: Client, a: argparse.Namespace) -> int:
    if a.target == "-":
        _pour(client, a, sys.stdout.buffer)
    elif _is_special(a.target):
        with open(a.target, "wb") as target:
            _pour(client, a, target)
    else:
        bar = sys.stderr.isatty() and not a.quiet
        try:
            client.download(a.uri, a.target, offset=a.offset, length=a.length, progress=True if bar else None)
        except ImportError:   # no tqdm: then without a bar
            client.download(a.uri, a.target, offset=a.offset, length=a.length)
    return OK


def _pour(client: Client, a: argparse.Namespace, target: BinaryIO) -> None:
    with client.open(a.uri, "rb") as f:
        f.seek(a.offset)
        left = a.length
        while left is None or left > 0:
            data = f.read(1 << 20 if left is None else min(left, 1 << 20))
            if not data:
                break
            target.write(data)
            left = None if left is None else left - len(data)


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for k, v in value.items():
            yield from _leaves(v, f"{path}.{k}" if path else str(k))
    else:
        yield path, value


def _stats(client: Client, a: argparse.Namespace) -> int:
    stats = client.stats(since=a.since)
    if a.json:
        _show(stats)
        return OK
    for name, value in _leaves(stats):
        print(f"{_plain(name):44} {_plain(str(value))}")
    return OK


def _cached(client: Client, a: argparse.Namespace) -> int:
    count, documents = 0, []
    for o in client.objects(a.uri):
        count += 1
        if a.json:
            documents.append({**o.raw, "uri": o.uri})
        else:
            print(f"{human(o.cached):>10}  {100 * o.fraction:5.1f} %  {o.age_s:8.0f} s  {'pinned' if o.pinned else '':6}  "
                  f"{_plain(o.uri)}")
    if a.json:
        _show(documents)
    return OK if count else NOT_THERE


def _health(client: Client, a: argparse.Namespace) -> int:
    ready = client.ready()
    if a.json:
        _show({"ready": ready, "url": client.url})
    elif ready:
        print(f"{client.url} is ready")
    else:
        _say(f"{client.url} is not ready, or does not answer")
    return OK if ready else FAILED


def _number(text: str) -> int:
    if not re.fullmatch(r"\d{1,18}", text):
        raise argparse.ArgumentTypeError(f"expected a number of bytes, got {text!r}")
    return int(text)


def _pattern(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as e:
        raise argparse.ArgumentTypeError(f"expected a regular expression: {e}") from None


def _prefix(text: str) -> str:
    try:
        _uri.split(text)
    except ValueError as e:
        raise argparse.ArgumentTypeError(str(e)) from None
    return text


def _object(text: str) -> str:
    try:
        _uri.split_object(text)
    except ValueError as e:
        raise argparse.ArgumentTypeError(str(e)) from None
    return text


def _parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--endpoint-url", metavar="URL")
    common.add_argument("--admin-path", metavar="PATH", default="/_s3dlio/", help="default: %(default)s")
    common.add_argument("--retries", metavar="N", type=int, default=4, help="default: %(default)s")
    common.add_argument("--timeout", metavar="SECONDS", type=float, default=60.0,
                        help="the longest silence of an answer; default: %(default)s")
    common.add_argument("--json", action="store_true", help="print JSON")
    common.add_argument("-q", "--quiet", action="store_true", help="no progress bar")
    p = argparse.ArgumentParser(prog="python -m s3dlio_proxy", description="Reads through s3dlio-proxy, and what it says.",
                                epilog=_EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--version", action="version", version=__version__)
    verbs = p.add_subparsers(required=True, metavar="VERB")

    def verb(name: str, run: Any, about: str, *aliases: str) -> argparse.ArgumentParser:
        v = verbs.add_parser(name, parents=[common], help=about, description=about, epilog=_EPILOG, aliases=[*aliases],
                             formatter_class=argparse.RawDescriptionHelpFormatter)
        v.set_defaults(run=run)
        return v

    v = verb("ls", _ls, "List objects below a prefix, or the buckets.", "list")
    v.add_argument("uri", metavar="s3://BUCKET[/PREFIX]", nargs="?", type=_prefix)
    v.add_argument("-r", "--recursive", action="store_true", help="all levels, not one")
    v.add_argument("--pattern", metavar="RE", type=_pattern, help="only keys that contain a match")
    v.add_argument("--count-only", action="store_true", help="how many, and their size")
    v = verb("stat", _stat, "Tell size, ETag and metadata of objects.")
    v.add_argument("uris", metavar="s3://BUCKET/KEY", nargs="+", type=_object)
    v = verb("get", _get, "Copy an object to a file, below its own name into a directory, or to standard output.")
    v.add_argument("uri", metavar="s3://BUCKET/KEY", type=_object)
    v.add_argument("target", metavar="TARGET", nargs="?", default="-", help="default: -, standard output")
    v.add_argument("--offset", metavar="BYTES", type=_number, default=0, help="from there on")
    v.add_argument("--length", metavar="BYTES", type=_number, help="so many, or to the object's end")
    v = verb("stats", _stats, "Tell the proxy's counters.")
    v.add_argument("--since", metavar="LABEL", help="what was counted since that mark")
    v = verb("cached", _cached, "List what is cached of a prefix: bytes, share of the object, age.")
    v.add_argument("uri", metavar="s3://BUCKET[/PREFIX]", nargs="?", type=_prefix)
    verb("health", _health, "Ask whether the proxy is up and can serve.")
    return p


def _failed(e: Exception) -> int:
    _say(str(e))
    return NOT_THERE if isinstance(e, errors.NotFoundError) else FAILED


def main(arguments: Optional[list[str]] = None) -> int:
    """Runs one command; the exit status."""
    try:
        a = _parser().parse_args(arguments)
    except SystemExit as e:   # argparse has said why
        return e.code if isinstance(e.code, int) else USAGE
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure:
            reconfigure(errors="surrogateescape" if stream is sys.stdout else "backslashreplace")
    try:
        client = Client(a.endpoint_url, credentials=Credentials.from_environment(), timeout=(min(5.0, a.timeout), a.timeout),
                        retries=Retry(attempts=a.retries + 1), admin_path=a.admin_path)
    except ValueError as e:
        _say(str(e))
        return USAGE
    try:
        with client:
            code: int = a.run(client, a)
        sys.stdout.flush()
        return code
    except BrokenPipeError as e:
        if isinstance(e, errors.Error):
            return _failed(e)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())   # the reader left; that is its right
        return OK
    except (OSError, ValueError) as e:
        return _failed(e)
    except KeyboardInterrupt:
        return INTERRUPTED
