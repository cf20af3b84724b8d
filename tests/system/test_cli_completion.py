"""Completion of s3dlio-cli's command line: what could come next, and bash's script that asks for it."""
import os
import pty
import re
import select
import shutil
import subprocess
import time

import cli as cli_module
import net
import pytest

pytestmark = pytest.mark.ways("h1")
BASH = shutil.which("bash")
BREAKS = " \t\n\"'><=;|&(:"


@pytest.fixture
def files(cli, start, tmp_path):
    root = tmp_path / "root"
    for name in ("b/dir/sub/x", "b/dir/k1", "b/dir/k2", "b/d space/k", "b/dx:y=z", "b/$(touch gone)", "b/it's", "b/new\nline", "data/k",
                 "b2/k"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    p = start({"type": "file", "root": str(root)})
    (tmp_path / "cli/local file").write_text("x")
    (tmp_path / "cli/locals").mkdir()
    return cli.to(p)


def words(cli, *line):
    """What could stand at the end of the line: ([candidates], what of local files)."""
    ran = cli_module.run(["completion", "words", "--", "s3dlio-cli", *line], env=address(cli), cwd=cli.tmp).ok()
    assert ran.err == ""
    *candidates, rest = ran.out.split("\n")[:-1]
    return [c.split("\t")[0] for c in candidates], rest


def address(cli):
    """The proxy by the environment; the protocol is chosen, and a CA told, on the line."""
    return {"S3DLIO_PROXY_URL": cli.url, **({"AWS_CA_BUNDLE": cli.ca} if cli.ca else {})}


# ---- what could come next

def test_commands_and_options(files):
    every = words(files, "")[0]
    assert {"ls", "stat", "rm", "warm", "purge", "cached", "mark", "completion"} <= set(every) and "list" not in every
    assert words(files, "ca") == (["cached"], ":none") and "list" in words(files, "li")[0]
    assert words(files, "--end") == (["--endpoint-url"], ":none") and words(files, "--v")[0] == ["--verbose", "--version"]
    assert words(files, "ls", "--re")[0] == ["--recursive", "--region", "--retries"]
    assert words(files, "rm", "--dry") == (["--dry-run"], ":none") and words(files, "ls", "--dry")[0] == []
    assert words(files, "nonsense", "--p")[0] == ["--profile", "--progress"]
    assert words(files, "ls", "--", "--re") == ([], ":none")


def test_values_of_options(files):
    assert words(files, "--http2", "") == (["auto", "off", "prior-knowledge"], ":none")
    assert words(files, "ls", "--progress=p") == (["--progress=plain"], ":none")
    assert words(files, "--op-log", "") == ([], ":files") and words(files, "--ca-file=x") == ([], ":files")
    assert words(files, "warm", "--prefix", "s3://b/dir/s")[0] == ["s3://b/dir/sub/"]
    assert words(files, "warm", "--manifest=s3://b/dir/k")[0] == ["--manifest=s3://b/dir/k1", "--manifest=s3://b/dir/k2"]
    assert words(files, "ls", "-p", "s3://b/")[0] == [] and words(files, "ls", "-rp", "")[0] == []
    assert words(files, "bench", "")[0] == ["get", "put", "mixed"] and words(files, "bench", "put", "")[0] == ["s3://"]
    assert words(files, "get", "") == (["s3://"], ":files") and words(files, "put", "") == (["s3://"], ":files")
    assert words(files, "cp", "s3://b/dir/k1", "") == (["s3://"], ":files") and words(files, "download", "x")[1] == ":dirs"
    assert words(files, "completion", "") == (["bash", "zsh", "fish"], ":none")


@pytest.mark.ways("h1", "h2tls", san=("h1",))
def test_buckets_and_keys_as_the_proxy_lists_them(files):
    assert words(files, "ls", "") == (["s3://"], ":none") and words(files, "ls", "s3:")[0] == ["s3://"]
    assert words(files, "ls", "s3://") == (["s3://b/", "s3://b2/", "s3://data/"], ":none")
    assert words(files, "stat", "s3://b/dir/") [0] == ["s3://b/dir/k1", "s3://b/dir/k2", "s3://b/dir/sub/"]
    assert sorted(words(files, "rm", "-r", "s3://b/d")[0]) == ["s3://b/d space/", "s3://b/dir/", "s3://b/dx:y=z"]
    assert words(files, "ls", "s3://b/dir/k1", "s3://")[0] == []            # takes one operand
    assert words(files, "delete-bucket", "s3://da")[0] == ["s3://data"]
    assert "s3://b/new" not in "".join(words(files, "stat", "s3://b/n")[0])  # could not be typed


@pytest.mark.ways("h1", "h2tls", san=("h1",))
def test_the_line_says_where_the_proxy_is(files):
    url = files.url
    nowhere = {"S3DLIO_PROXY_URL": "http://127.0.0.1:1"}
    for line in (["--endpoint-url", url, "ls"], ["--endpoint-url=" + url, "ls"], ["ls", "--endpoint-url", url]):
        line = line + (["--ca-file", files.ca] if files.ca else [])
        ran = cli_module.run(["completion", "words", "--", "s3dlio-cli", *line, "s3://b/dir/k1"], env=nowhere)
        assert ran.ok().out == "s3://b/dir/k1\n:none\n"
    began = time.monotonic()
    ran = cli_module.run(["completion", "words", "--", "s3dlio-cli", "ls", "s3://b/"], env=nowhere)
    assert ran.ok().out == ":none\n" and ran.err == "" and time.monotonic() - began < 10 * net.SLOW


def test_a_server_that_says_nothing_is_not_waited_for(cli, s3ish, origin):
    origin.on(never=True)
    cli.to(s3ish())
    ran = cli_module.run(["completion", "words", "--", "s3dlio-cli", "ls", "s3://b/"], env=address(cli), timeout=15)
    assert ran.ok().out == ":none\n" and ran.err == ""


def test_odd_lines(files):
    for line in (["-"], ["--"], ["--", "--"], ["-x", ""], ["--endpoint-url"], ["--endpoint-url", ""], ["ls", "--json=x"], ["="], ["--=", "--="],
                 ["ls", "s3:///"], ["ls", "s3://../x"], ["ls", "-"], ["rm", "-rp", "x", "-"], ["--retries", "x", "ls", "s3://b/"]):
        words(files, *line)


# ---- bash

def cut(line):
    """A line as bash cuts it into COMP_WORDS."""
    found = re.findall(r"""[:=><;|&(]+|(?:\\.|'[^']*'?|"[^"]*"?|[^\s:=><;|&(\\'"])+""", line)
    return found + ([""] if re.search(r"(?<!\\)\s$", line) else [])


SCRIPT = r"""
set -u
eval "$("$1" completion bash)"
COMP_WORDBREAKS=$2 COMP_LINE=$3 COMP_POINT=${#3}
shift 3
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
_s3dlio_cli "${COMP_WORDS[0]}" "${COMP_WORDS[COMP_CWORD]}" ""
((${#COMPREPLY[@]})) && printf '%s\n' "${COMPREPLY[@]}"
exit 0
"""


def bash(cli, line):
    """COMPREPLY for a line behind the program's name."""
    line = cli_module.BINARY + " " + line
    p = subprocess.run([BASH, "--norc", "--noprofile", "-c", SCRIPT, "bash", cli_module.BINARY, BREAKS, line, *cut(line)],
                       env=cli_module.environment(address(cli)), capture_output=True, text=True, timeout=30 * net.SLOW, cwd=cli.tmp)
    assert p.returncode == 0 and p.stderr == "", p
    return p.stdout.split("\n")[:-1]


def test_bash_puts_words_together_again_and_quotes_what_it_gives(files):
    assert bash(files, "ca") == ["cached"]
    assert bash(files, "ls --recu") == ["--recursive"]
    assert bash(files, "ls s") == ["s3://"]
    assert bash(files, "ls s3:") == ["//"]
    assert bash(files, "ls s3://") == ["//b/", "//b2/", "//data/"]
    assert bash(files, "-v ls  -r s3://b/dir/") == ["//b/dir/k1", "//b/dir/k2", "//b/dir/sub/"]
    assert bash(files, "stat s3://b/d\\ ") == ["//b/d\\ space/"]
    assert bash(files, "stat s3://b/dx:") == ["y=z"]
    assert bash(files, "stat s3://b/dx:y=") == ["z"]
    assert bash(files, "stat \"s3://b/d s") == ["s3://b/d space/"]
    assert bash(files, "stat 's3://b/dir/k1' s3://b/dir/k2") == ["//b/dir/k2"]
    assert bash(files, "stat s3://b/it") == ["//b/it\\'s"]
    assert bash(files, "warm --prefix=s3://b/dir/s") == ["//b/dir/sub/"]
    assert bash(files, "--progress=b") == ["bar"]


def test_bash_never_runs_what_a_key_says(files):
    assert bash(files, "stat s3://b/\\$") == ["//b/\\$\\(touch\\ gone\\)"]
    assert bash(files, "stat 's3://b/$") == []
    bash(files, "stat s3://b/$(touch gone")
    assert not os.path.exists(files.tmp / "gone")


def test_bash_completes_local_files_where_they_are_meant(files):
    assert bash(files, "--op-log loc") == ["local file", "locals"]


def test_a_bash_at_work(files):
    """Keys typed into a real one."""
    pid, fd = pty.fork()
    if pid == 0:
        env = cli_module.environment({**address(files), "TERM": "dumb", "PS1": "ready> ", "PATH": os.path.dirname(cli_module.BINARY) + ":/usr/bin:/bin",
                                      "INPUTRC": "/dev/null", "HISTFILE": None})
        try:
            os.chdir(files.tmp)
            os.execve(BASH, ["bash", "--norc", "--noprofile", "-i"], env)
        finally:
            os._exit(127)
    seen = b""

    def until(text, what):
        nonlocal seen
        end = time.monotonic() + 20 * net.SLOW
        while text not in seen:
            if select.select([fd], [], [], 0.1)[0]:
                seen += os.read(fd, 65536)
            assert time.monotonic() < end, (what, seen)
        seen = seen[seen.index(text) + len(text):]

    try:
        until(b"ready> ", "the prompt")
        os.write(fd, b"bind 'set enable-bracketed-paste off'; PS1='$ '; source <(s3dlio-cli completion bash); echo is\"\"loaded\n")
        until(b"isloaded", "the script")
        os.write(fd, b"s3dlio-cli compl\t")
        until(b"completion ", "a command")
        os.write(fd, b"\x15s3dlio-cli stat s3://b/d\\ \t")
        until(b"d\\ space/", "a prefix with a space")
        os.write(fd, b"\t --json\n")
        until(b'"uri":"s3://b/d space/k"', "the command it made")
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
        os.close(fd)


@pytest.mark.parametrize("shell, flags", [("bash", ["-n"]), ("zsh", ["-f", "-n"]), ("fish", ["-n"])])
@pytest.mark.nosan
def test_scripts_parse(shell, flags, tmp_path):
    script = tmp_path / "script"
    script.write_text(cli_module.run(["completion", shell]).ok().out)
    if shutil.which(shell):
        p = subprocess.run([shutil.which(shell), *flags, str(script)], capture_output=True, text=True, timeout=30 * net.SLOW)
        assert p.returncode == 0 and p.stderr == "", p.stderr
    assert "completion words --" in script.read_text()


def test_other_shells_are_refused():
    assert cli_module.run(["completion", "tcsh"]).failed(cli_module.USAGE, "bash, zsh or fish").out == ""
    cli_module.run(["completion"]).failed(cli_module.USAGE)
