"""Has dask's own tests compute on an executor of this package: a plugin of pytest.

``PYTHONPATH=src:tests/suites python -m pytest -p suite_dask --pyargs dask.tests.test_base dask.tests.test_delayed``. With ``HEDGEROW_SUITE=threads`` they compute on dask's threads
instead, which is what to compare with. CONTRIBUTING.md has the counts, and why each that fails does.
"""

from __future__ import annotations

import os
from typing import Any

import dask
import dask.array.utils
import dask.bag.utils

from hedgerow import Executor, LocalGrid

_grid = None if os.environ.get("HEDGEROW_SUITE") == "threads" else LocalGrid(cpus=4)
_executor = None if _grid is None else Executor(grid=_grid, preload=["dask.array", "dask.bag"])
scheduler: Any = _executor or "threads"
dask.config.set(scheduler=scheduler)
# The default appends to files of one machine.
dask.config.set({"dataframe.shuffle.method": "tasks"})


def _with_scheduler(function: Any) -> None:
    """A comparison that computes one after another by default does it with this scheduler."""
    defaults = function.__defaults__ or ()
    function.__defaults__ = tuple(scheduler if value == "sync" else value for value in defaults)


_with_scheduler(dask.array.utils.assert_eq)
_with_scheduler(dask.bag.utils.assert_eq)


def pytest_unconfigure() -> None:
    """Ends the executor and its grid."""
    if _executor is not None and _grid is not None:
        _executor.shutdown()
        _grid.close()
