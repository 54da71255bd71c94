"""The examples in the documentation run as they are printed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def examples() -> list[tuple[str, str]]:
    """Each example in Python, with a name."""
    found = []
    for page in ("README.md", "python/README.md", "docs/python.md", "docs/workflows.md"):
        text = (ROOT / page).read_text()
        blocks = re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
        found += [(f"{page}-{number}", block) for number, block in enumerate(blocks)]
    return found


@pytest.mark.parametrize(("name", "code"), examples(), ids=[name for name, _ in examples()])
def test_an_example_runs_as_printed(name: str, code: str, tmp_path: Path) -> None:
    for library in ("joblib", "parsl"):
        if library in code:
            pytest.importorskip(library)
    script = tmp_path / "example.py"
    script.write_text(code)
    ended = subprocess.run(
        [sys.executable, os.fspath(script)], capture_output=True, text=True, timeout=120, check=False, cwd=tmp_path
    )
    assert ended.returncode == 0, ended.stderr
