"""The benchmark runs and measures something. How fast is not a test's business."""
import os
import re
import subprocess
import sys

import pytest
from proxy import BINARY

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


@pytest.mark.heavy
@pytest.mark.nosan
def test_the_benchmark_compares_with_nginx():
    out = subprocess.run([sys.executable, os.path.join(TOP, "tests", "bench", "run"), "--proxy", BINARY, "--rounds", "1", "--seconds",
                          "0.5", "--ways", "h1,h2c,tls2", "--sizes", "64k"], capture_output=True, text=True, timeout=120)
    assert out.returncode == 0, out.stdout + out.stderr
    rows = re.findall(r"^(h1|h2c|tls2) +64k .* ([\d.]+) \[", out.stdout, re.M)
    assert [r[0] for r in rows] == ["h1", "h2c", "tls2"], out.stdout
    assert all(float(r[1]) > 0 for r in rows)
    assert re.search(r"^cold .*: [\d.]+x; first byte", out.stdout, re.M), out.stdout
