"""The documents and the code say the same: the reference is the binary's own, what ARCHITECTURE.md names is there and
every source file is named in it, rooms include downwards only, and the example of MODULES.md compiles."""
import os
import re
import shutil
import subprocess

import pytest
from proxy import TOP, run

pytestmark = pytest.mark.nosan

SOURCES = ("src", "modules")
# The floors of ARCHITECTURE.md, and what a room may use besides its own and the floors below.
FLOORS = [["base"], ["io"], ["http", "s3", "cache", "conf", "module"], ["origin"], ["proxy"]]
BESIDE = {"s3": {"http"}, "conf": {"http", "s3"}}


def read(*path):
    with open(os.path.join(TOP, *path), encoding="utf-8") as f:
        return f.read()


def files(tops, endings):
    for top in tops:
        for where, _, names in os.walk(os.path.join(TOP, top)):
            for n in names:
                if n.endswith(endings):
                    yield os.path.relpath(os.path.join(where, n), TOP)


def in_backticks(text):
    text = re.sub(r"```.*?```", "", text, flags=re.S)
    return set(re.findall(r"`([^`\n]+)`", text))


def test_the_configuration_reference_is_what_the_binary_prints():
    code, out, err = run(["--help-config=markdown"])
    assert code == 0, err
    assert out == read("docs", "CONFIGURATION.md"), \
        "make it anew: ./s3dlio-proxy --help-config=markdown > docs/CONFIGURATION.md"


@pytest.mark.parametrize("document", ["ARCHITECTURE.md", "README.md", "docker/README.md", "docs/MODULES.md"])
def test_paths_that_a_document_names_exist(document):
    text = read(document)
    here = os.path.dirname(os.path.join(TOP, document))
    tops = [d for d in os.listdir(TOP) if os.path.isdir(os.path.join(TOP, d)) and d[0] != "."]
    missing = set()
    for name in in_backticks(text):
        if re.fullmatch(r"(%s)/[\w./-]*" % "|".join(map(re.escape, tops)), name):
            if not os.path.exists(os.path.join(TOP, name)) and name != "modules/hello/hello.c":
                missing.add(name)
    for link in re.findall(r"\]\(([^)#:]+)\)", text):
        if not os.path.exists(os.path.join(here, link)):
            missing.add(link)
    assert not missing


def test_files_that_the_architecture_names_exist():
    there = {os.path.basename(f) for f in files(SOURCES + ("tests", "python"), (".c", ".h", ".py"))}
    named = {os.path.basename(n) for n in in_backticks(read("ARCHITECTURE.md")) if re.fullmatch(r"[\w./-]+\.(c|h|py)", n)}
    assert named and named <= there, named - there


def test_every_source_file_is_named_in_the_architecture():
    named = {os.path.basename(n) for n in in_backticks(read("ARCHITECTURE.md"))}
    ours = [*files(SOURCES, (".c",)), *(f for f in files(["python"], (".py",)) if not os.path.basename(f).startswith(("__", "_version")))]
    missing = [f for f in ours if os.path.basename(f) not in named]
    assert not missing, "name them in the table of files"


@pytest.mark.parametrize("document", ["ARCHITECTURE.md", "docs/MODULES.md"])
def test_names_that_a_document_gives_are_in_the_code(document):
    code = "".join(read(f) for f in files((*SOURCES, "python"), (".c", ".h", ".py"))) + read("Makefile.am")
    words = set(re.findall(r"\w+", code))
    named = {w for n in in_backticks(read(document)) for w in re.findall(r"\w+", n) if re.fullmatch(r"[a-zA-Z]\w*_\w+", w)}
    known = {os.path.splitext(os.path.basename(f))[0] for f in files(SOURCES + ("tests", "python"), (".c", ".h", ".py"))}
    missing = {w for w in named if w not in words and w not in known and w != "s3p_hello_module"}
    assert named and not missing


def test_rooms_include_downwards_only():
    upwards = []
    for floor, rooms in enumerate(FLOORS):
        below = {r for f in FLOORS[:floor] for r in f}
        for room in rooms:
            allowed = below | {room} | BESIDE.get(room, set())
            for f in files([os.path.join("src", room)], (".c", ".h")):
                for used in re.findall(r'^#include "(\w+)/', read(f), re.M):
                    if used not in allowed:
                        upwards.append("%s includes %s/" % (f, used))
    for f in files(["modules"], (".c", ".h")):
        for used in re.findall(r'^#include "([^"]+)"', read(f), re.M):
            if used != "s3p_module.h":
                upwards.append("%s includes %s" % (f, used))
    assert not upwards


def test_the_example_module_compiles(tmp_path):
    compiler = shutil.which("gcc") or shutil.which("cc") or shutil.which("clang")
    assert compiler
    example = re.search(r"```c\n(.*?)```", read("docs", "MODULES.md"), re.S)[1]
    source = tmp_path / "hello.c"
    source.write_text(example)
    p = subprocess.run([compiler, "-std=c11", "-Wall", "-Wextra", "-Werror", "-I", os.path.join(TOP, "src", "module"), "-c",
                        str(source), "-o", str(tmp_path / "hello.o")], capture_output=True, text=True, check=False)
    assert p.returncode == 0, p.stderr
