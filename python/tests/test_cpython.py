"""CPython's own tests of executors, as Debian's libpython3.11-testsuite has them, against this one.

They run with Debian's interpreter, of whose standard library they are a part. Tests that are left out are listed with the
reason; there are no others.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PYTHON = Path("/usr/bin/python3.11")
SUITE = Path("/usr/lib/python3.11/test/test_concurrent_futures.py")
HERE = Path(__file__).resolve().parent


@pytest.mark.skipif(not (PYTHON.exists() and SUITE.exists()), reason="needs Debian's libpython3.11-testsuite")
def test_cpythons_own_tests_pass() -> None:
    import cloudpickle

    packages = Path(cloudpickle.__file__).parents[1]
    env = dict(os.environ, PYTHONPATH=f"{HERE.parent / 'src'}:{HERE / 'cpython'}:{packages}")
    command = [os.fspath(PYTHON), "-m", "unittest", "executor_mixins"]
    ended = subprocess.run(command, env=env, capture_output=True, text=True, timeout=600, check=False)
    sys.stdout.write(ended.stderr)
    assert ended.returncode == 0, ended.stderr
