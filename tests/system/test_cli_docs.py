"""What s3dlio-cli says of itself: help of every command, the man page, README.md, what make install installs."""
import os
import re
import shutil
import subprocess

import cli as cli_module
import pytest
from proxy import BINARY, TOP

pytestmark = [pytest.mark.nosan, pytest.mark.ways("h1")]


def read(*path):
    with open(os.path.join(TOP, *path), encoding="utf-8") as f:
        return f.read()


def run(*args):
    return cli_module.run(args, env={"S3DLIO_PROXY_URL": "http://127.0.0.1:1"})


def commands():
    text = run("--help").ok().out
    table = text[text.index("Commands:\n") + 10:text.index("\nOptions of every command")]
    return dict(re.match(r"  (\S+?)(?:, (\S+))?\s{2,}", line).groups() for line in table.splitlines())


def test_every_command_explains_itself_by_both_names():
    found = commands()
    assert len(found) >= 10 and found["ls"] == "list" and found["rm"] == "delete"
    for name, alias in found.items():
        text = run(name, "--help").ok().out
        assert text.startswith("Usage: s3dlio-cli %s [OPTION]..." % name) and "--endpoint-url" in text
        if alias:
            assert run(alias, "--help").ok().out == text
        assert max(map(len, text.splitlines())) <= 124, text


def test_help_and_version_go_to_standard_output_and_a_missing_command_does_not():
    assert run("--version").ok().out.startswith("s3dlio-cli ") and run("-h").ok().out == run("--help").ok().out
    ran = run().failed(cli_module.USAGE, "Usage:")
    assert ran.out == ""
    for args in (["nonsense"], ["--nonsense"], ["ls", "--nonsense"], ["-Z"], ["ls", "-rZ"], ["--retries", "x", "ls"], ["--retries"],
                 ["ls", "--json=1"], ["ls", "-r", "-r"], ["--progress", "x", "ls"], ["--timeout", "5", "ls"], ["--http2", "3", "ls"],
                 ["--endpoint-url", "ftp://x", "ls"], ["--retries", "101", "ls"], ["ls", "--json", "--json"]):
        ran = run(*args).failed(cli_module.USAGE)
        assert ran.err.count("\n") == 1 and ran.out == "", (args, ran)


def test_options_may_be_written_in_all_ways():
    for args in (["-q", "ls", "--retries", "0"], ["ls", "--retries=0", "-qv"], ["--retries", "0", "-v", "ls", "-r1q", "s3://b"],
                 ["ls", "--retries", "0", "-rp", "x", "s3://b"], ["ls", "--retries", "0", "-rpx", "--", "s3://b"]):
        run(*args).failed(cli_module.FAILED, "refused")


def test_an_endpoint_that_is_wrong_is_not_shown_as_it_may_hold_a_password():
    ran = run("--endpoint-url", "http://user:secret@host/ x", "ls").failed(cli_module.USAGE)
    assert "secret" not in ran.err


def test_the_man_page_is_what_the_binary_prints():
    assert run("--help=man").ok().out == read("man", "s3dlio-cli.1"), "make it anew: ./s3dlio-cli --help=man > man/s3dlio-cli.1"


def test_the_man_page_renders_without_warnings_and_has_every_option():
    if not shutil.which("groff"):
        pytest.skip("no groff here")
    p = subprocess.run(["groff", "-man", "-Tascii", "-ww", "-P-c", os.path.join(TOP, "man", "s3dlio-cli.1")], capture_output=True, text=True,
                       check=False)
    assert p.returncode == 0 and p.stderr == "", p.stderr
    text = re.sub(".\b", "", p.stdout)
    for name in commands():
        assert re.search("^ +%s" % re.escape(name), text, re.M), name
        for option in re.findall("--[a-z0-9-]+", run(name, "--help").out):
            assert option in text, (name, option)


def test_the_readme_has_every_command():
    text = read("README.md")
    table = text[text.index("\n## s3dlio-cli"):]
    missing = [name for name in commands() if not re.search(r"[`(]%s[ `]" % re.escape(name), table)]
    assert not missing


def test_examples_in_the_documents_are_commands_with_their_options():
    text = read("README.md") + read("man", "s3dlio-cli.1").replace("\\-", "-")
    found = commands()
    lines = re.findall(r"^ *s3dlio-cli ([a-z][a-z-]*)(.*?)(?:  #.*|;.*)?$", text, re.M)
    assert len(lines) >= 8
    for name, rest in lines:
        assert name in found, name
        usage = run(name, "--help").out
        for option in re.findall(r"(?<=\s)--[a-z0-9-]+", rest):
            assert option in usage, (name, option)


@pytest.fixture(scope="module")
def dest(tmp_path_factory):
    build = os.path.dirname(BINARY)
    if not os.path.exists(os.path.join(build, "Makefile")):
        pytest.skip("S3P_BINARY is not in a build directory")
    d = tmp_path_factory.mktemp("dest")
    env = {k: v for k, v in os.environ.items() if not k.startswith("MAKE")}
    subprocess.run(["make", "-C", build, "install", "DESTDIR=%s" % d], check=True, capture_output=True, env=env)
    return d


def test_install_puts_the_cli_its_page_and_completions_where_they_are_looked_for(dest):
    there = {os.path.relpath(os.path.join(r, f), dest) for r, _, files in os.walk(dest) for f in files}
    for name in ("bin/s3dlio-cli", "man/man1/s3dlio-cli.1", "bash-completion/completions/s3dlio-cli", "zsh/site-functions/_s3dlio-cli",
                 "fish/vendor_completions.d/s3dlio-cli.fish"):
        found = [f for f in there if f.endswith("/" + name)]
        assert len(found) == 1, (name, there)
        if "completion" in name or "site-functions" in name:
            shell = "bash" if "bash" in name else "zsh" if "zsh" in name else "fish"
            with open(os.path.join(dest, found[0])) as f:
                assert f.read() == run("completion", shell).ok().out
