"""The comparison of the Python client with requests and boto3 runs, and compares."""
import os
import re
import subprocess
import sys

import net
import pytest
from proxy import TOP, environment

pytestmark = pytest.mark.nosan


def test_the_comparison_runs_and_prints_ratios():
    p = subprocess.run([sys.executable, os.path.join(TOP, "tests", "bench", "python_client.py"), "--objects", "20", "--size", "1000",
                        "--threads", "3", "--rounds", "1", "--large", str(2 << 20)],
                       capture_output=True, text=True, timeout=60 * net.SLOW, env=environment({"AWS_EC2_METADATA_DISABLED": "true"}))
    assert p.returncode == 0, p.stdout + p.stderr
    assert len(re.findall(r"time x *\d", p.stdout)) == 9 and "requests.get().content" in p.stdout and "boto3" in p.stdout
