"""Has joblib's own tests run with this package's backend beside its own: a plugin of pytest.

``PYTHONPATH=src:tests/suites python -m pytest -p suite_joblib --pyargs joblib.test.test_parallel -k hedgerow`` runs those that
are for any backend or for one of processes, and ``-k loky`` the same for joblib's default backend. CONTRIBUTING.md has the
counts, and why each that fails does.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from typing import Any, Optional

import joblib.parallel

from hedgerow import LocalGrid
from hedgerow.joblib import HedgerowBackend

_grid: Optional[LocalGrid] = None
_NAME = "joblib.test.test_parallel"
_OWN = 'PROCESS_BACKENDS = ["multiprocessing", "loky"]'


class LocalBackend(HedgerowBackend):
    """The backend on a grid that all tests share."""

    def __init__(self, nesting_level: Optional[int] = None, **arguments: Any) -> None:
        global _grid
        if _grid is None:
            _grid = LocalGrid()
        super().__init__(nesting_level, grid=_grid, **arguments)


joblib.parallel.BACKENDS["hedgerow"] = LocalBackend
os.environ["PYTHONPATH"] = f"{Path(__file__).parent / 'startup'}:{os.environ.get('PYTHONPATH', '')}"
# The lists of backends are made when the module is imported.
_spec = importlib.util.find_spec(_NAME)
assert _spec is not None and _spec.origin is not None
with open(_spec.origin, encoding="utf-8") as _file:
    _source = _file.read()
assert _source.count(_OWN) == 1, "joblib's tests list their backends in another way"
_module = importlib.util.module_from_spec(_spec)
sys.modules[_NAME] = _module
exec(compile(_source.replace(_OWN, _OWN[:-1] + ', "hedgerow"]'), _spec.origin, "exec"), _module.__dict__)


def pytest_unconfigure() -> None:
    """Ends the grid."""
    if _grid is not None:
        _grid.close()
