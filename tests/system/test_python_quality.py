"""The Python package under its own rules: types, style, the oldest Python, and what a wheel of it contains."""
import ast
import os
import subprocess
import sys
import zipfile

import pytest
from proxy import TOP

pytestmark = pytest.mark.nosan
PACKAGE = os.path.join(TOP, "python")


def sources():
    for where, _, names in os.walk(os.path.join(PACKAGE, "src")):
        for n in names:
            if n.endswith(".py"):
                yield os.path.join(where, n)


def tool(*arguments, **kw):
    p = subprocess.run([sys.executable, "-m", *arguments], cwd=PACKAGE, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                       timeout=170, **kw)
    assert p.returncode == 0, p.stdout + p.stderr


def test_mypy_strict_has_nothing_to_say(tmp_path):
    tool("mypy", "--cache-dir", str(tmp_path))


def test_ruff_has_nothing_to_say():
    tool("ruff", "check", "--no-cache", ".")


def test_it_is_written_for_python_3_9():
    for path in sources():
        with open(path, encoding="utf-8") as f:
            tree = ast.parse(f.read(), path, feature_version=(3, 9))
        assert ast.get_docstring(tree), path + " does not say what it is for"


def test_files_and_functions_are_short():
    for path in sources():
        with open(path, encoding="utf-8") as f:
            text = f.read()
        assert len(text.splitlines()) < 800, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                assert node.end_lineno - node.lineno < 60, "%s: %s" % (path, node.name)


def test_what_is_public_is_described():
    sys.path.insert(0, os.path.join(PACKAGE, "src"))
    import s3dlio_proxy
    for name in s3dlio_proxy.__all__:
        thing = getattr(s3dlio_proxy, name)
        if isinstance(thing, type):
            assert thing.__doc__, name
            for member, value in vars(thing).items():
                assert member.startswith("_") or not callable(value) or value.__doc__, "%s.%s" % (name, member)


def test_nothing_but_the_extras_is_imported_without_being_asked_for():
    code = ("import sys; sys.path.insert(0, %r); import s3dlio_proxy; "
            "print([m for m in ('fsspec', 'torch', 'tqdm', 'numpy', 'boto3', 'botocore') if m in sys.modules])"
            % os.path.join(PACKAGE, "src"))
    p = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert p.stdout == "[]\n", p.stdout + p.stderr


def test_a_wheel_has_the_sources_the_types_and_the_entry_point(tmp_path):
    os.makedirs(tmp_path / "out")
    code = "import os, sys; os.chdir(sys.argv[1]); from hatchling.build import build_wheel; print(build_wheel(sys.argv[2]))"
    p = subprocess.run([sys.executable, "-c", code, PACKAGE, str(tmp_path / "out")], capture_output=True, text=True, timeout=60)
    assert p.returncode == 0, p.stderr
    wheel = zipfile.ZipFile(tmp_path / "out" / p.stdout.split()[-1])
    names = set(wheel.namelist())
    assert {"s3dlio_proxy/py.typed", "s3dlio_proxy/client.py", "s3dlio_proxy/fsspec.py", "s3dlio_proxy/torch.py"} <= names
    meta = next(n for n in names if n.endswith("/entry_points.txt"))
    assert b"s3dlio = s3dlio_proxy.fsspec:" in wheel.read(meta)
    requires = wheel.read(next(n for n in names if n.endswith("/METADATA"))).decode()
    assert "Requires-Python: >=3.9" in requires and "Provides-Extra: torch" in requires
    # and installed, away from the sources, it is the command and the protocol that it says
    installed = str(tmp_path / "installed")
    tool("pip", "install", "-q", "--no-deps", "--no-index", "--disable-pip-version-check", "--target", installed, wheel.filename)
    code = ("import importlib.metadata as m, s3dlio_proxy, runpy, sys; assert s3dlio_proxy.__file__.startswith(sys.argv[1]); "
            "assert m.version('s3dlio-proxy') == s3dlio_proxy.__version__; "
            "assert [e for e in m.entry_points(group='fsspec.specs') if e.name == 's3dlio']; "
            "sys.argv = ['s3dlio_proxy', '--version']; runpy.run_module('s3dlio_proxy', run_name='__main__')")
    p = subprocess.run([sys.executable, "-c", code, installed], capture_output=True, text=True, timeout=60, cwd=tmp_path,
                       env={**os.environ, "PYTHONPATH": installed})
    assert p.returncode == 0 and p.stdout == "0.1.0\n", p.stdout + p.stderr
