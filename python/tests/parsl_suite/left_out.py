"""A plugin of pytest that leaves out the files in LEFT_OUT: Parsl's own hook answers before `--ignore` can."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

_FILES = os.environ["LEFT_OUT"].split(os.pathsep)


@pytest.hookimpl(tryfirst=True)
def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Ignores the files, and leaves others to Parsl."""
    return True if os.fspath(collection_path) in _FILES else None
