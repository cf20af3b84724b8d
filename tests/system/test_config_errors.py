"""A bad configuration: every error as `file:line:column: what, and what was expected`, exit status 2, nothing started."""
import re

import pytest
from proxy import run

GOOD = """\
workers: 1
caches:
  main: {memory: 64MiB}
origins:
  o:
    type: http
    endpoint: http://127.0.0.1:9
servers:
  - listen: ["127.0.0.1:18080"]
    routes:
      - {path: /, origin: o, cache: main}
"""

# (what replaces what, line, column or None, words of the message)
BAD = {
    "unknown_key": ("workers: 1", "wrkers: 1", 1, 1, ["wrkers"]),
    "unknown_nested_key": ("memory: 64MiB", "memroy: 64MiB", 3, 10, ["memroy"]),
    "wrong_type": ("workers: 1", "workers: many", 1, 10, ["many"]),
    "out_of_range": ("workers: 1", "workers: 100000", 1, 10, ["1", "1024"]),
    "zero": ("workers: 1", "workers: 0", 1, 10, ["0"]),
    "size_without_unit": ("64MiB", "64", 3, None, ["64"]),
    "size_nonsense": ("64MiB", "64QiB", 3, None, ["64QiB"]),
    "size_overflow": ("64MiB", "99999999999999999999GiB", 3, None, ["9999"]),
    "negative_size": ("64MiB", "-1MiB", 3, None, ["-1MiB"]),
    "too_small": ("64MiB", "1KiB", 3, None, ["1KiB"]),
    "duplicate_key": ("workers: 1", "workers: 1\nworkers: 2", 2, 1, ["workers"]),
    "unknown_origin": ("origin: o", "origin: p", 11, None, ["p"]),
    "unknown_cache": ("cache: main", "cache: mian", 11, None, ["mian"]),
    "unknown_type": ("type: http", "type: ftp", 6, 11, ["ftp", "http"]),
    "unknown_handler": ("origin: o, cache: main", "handler: nosuch", 11, None, ["nosuch"]),
    "bad_address": ('"127.0.0.1:18080"', '"localhost:18080"', 9, None, ["localhost:18080"]),
    "bad_port": ('"127.0.0.1:18080"', '"127.0.0.1:99999"', 9, None, ["99999"]),
    "bad_endpoint": ("http://127.0.0.1:9", "127.0.0.1:9", 7, None, ["127.0.0.1:9"]),
    "endpoint_with_user": ("http://127.0.0.1:9", "http://u:p@127.0.0.1:9", 7, None, []),
    "relative_path": ("path: /", "path: data", 11, None, ["data"]),
    "not_yaml": ("workers: 1", "workers: [1", None, None, []),
    "a_list_instead_of_a_map": ("caches:\n  main: {memory: 64MiB}", "caches: [1, 2]", 2, None, []),
    "missing_endpoint": ("    endpoint: http://127.0.0.1:9\n", "", None, None, ["endpoint"]),
    "missing_listen": ('listen: ["127.0.0.1:18080"]\n    routes', "routes", None, None, ["listen"]),
    "not_power_of_two": ("64MiB}", "64MiB, slice_size: 100KiB}", 3, None, ["100KiB"]),
    "bad_duration": ("64MiB}", "64MiB, fresh_for: 5parsecs}", 3, None, ["5parsecs"]),
    "wrong_for_this_type": ("type: http", "type: http\n    region: x", 7, None, ["region"]),
    "unset_variable": ("workers: 1", "workers: ${NO_SUCH_VARIABLE_HERE}", 1, None, ["NO_SUCH_VARIABLE_HERE"]),
    "bad_cidr": ("path: /,", "path: /, allow: [10.0.0.0/99],", 11, None, ["10.0.0.0/99"]),
    "bad_method": ("path: /,", "path: /, methods: [G T],", 11, None, []),
    "same_route_twice": ("cache: main}", "cache: main}\n      - {path: /, origin: o}", 12, None, []),
    "tabs": ("    type: http", "\ttype: http", None, None, []),
    "empty_value": ("endpoint: http://127.0.0.1:9", "endpoint:", 7, None, []),
    "disk_is_for_later": ("64MiB}", "64MiB, disk: [{path: /x, size: 1GiB}]}", 3, None, ["not supported yet"]),
    "http2_is_no_switch": ("type: http", "type: http\n    http2: on", 7, None, ["auto | off | prior-knowledge"]),
    "hedge_is_for_later": ("type: http", "type: http\n    fetch: {hedge: 100ms}", 7, None, ["not supported yet"]),
    "auto_window_is_for_later": ("type: http", "type: http\n    fetch: {max_in_flight: auto}", 7, None,
                                 ["not supported yet"]),
    "sigv4_is_for_later": ("cache: main", "cache: main, auth: sigv4", 11, None, ["not supported yet"]),
    "tls_listener_without_certificate": ('"127.0.0.1:18080"', '{address: "127.0.0.1:18080", tls: {verify: off}}',
                                         9, None, ["certificate: missing"]),
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("option", [[], ["--test"]], ids=["start", "test"])
def test_bad_configuration_is_told_with_its_place(tmp_path, name, option):
    old, new, line, column, words = BAD[name]
    assert old in GOOD
    f = tmp_path / "bad.yaml"
    f.write_text(GOOD.replace(old, new, 1))
    code, out, err = run(["-c", str(f), *option])
    assert code == 2, (code, err)
    found = [re.match(re.escape(str(f)) + r":(\d+):(\d+): (.+)", text) for text in err.splitlines()]
    found = [m for m in found if m]
    assert found, err
    if line:
        assert any(int(m[1]) == line for m in found), err
    if column:
        assert any((int(m[1]), int(m[2])) == (line, column) for m in found), err
    for w in words:
        assert any(w in m[3] for m in found), err


def test_several_errors_are_told_at_once(tmp_path):
    f = tmp_path / "bad.yaml"
    f.write_text(GOOD.replace("workers: 1", "wrkers: 1").replace("64MiB", "x").replace("type: http", "type: ftp"))
    code, out, err = run(["-c", str(f)])
    assert code == 2
    assert len([line for line in err.splitlines() if line.startswith(str(f) + ":")]) >= 3


def test_the_good_one_is_good(tmp_path):
    f = tmp_path / "good.yaml"
    f.write_text(GOOD)
    code, out, err = run(["-c", str(f), "--test"])
    assert code == 0, err


def test_variables_expand_with_defaults(tmp_path):
    f = tmp_path / "vars.yaml"
    f.write_text(GOOD.replace("64MiB", '"${S_MEM:-32MiB}"').replace("http://127.0.0.1:9", "http://${S_HOST}:9"))
    code, out, err = run(["-c", str(f), "--test"], env={"S_HOST": "127.0.0.1"})
    assert code == 0, err
    code, out, err = run(["-c", str(f), "--test"], env={"S_HOST": "127.0.0.1", "S_MEM": "rubbish"})
    assert code == 2 and ":3:" in err


@pytest.mark.parametrize("text", ["", "[]", "just text", "---\n---\n", "a: &x [*x]", "x" * 100000, "\x00", "a: b: c",
                                  "caches: " + "[" * 500, "%YAML 9.9\n---\na: 1"],
                         ids=["empty", "list", "scalar", "two_documents", "cycle", "long", "nul", "colons", "deep",
                              "version"])
def test_files_that_are_no_configuration(tmp_path, text):
    f = tmp_path / "odd.yaml"
    f.write_text(text)
    code, out, err = run(["-c", str(f), "--test"])
    assert code == 2 and err.strip()


def test_missing_and_unreadable_files(tmp_path):
    for f in (tmp_path / "absent.yaml", tmp_path):
        code, out, err = run(["-c", str(f), "--test"])
        assert code == 2 and str(f) in err
