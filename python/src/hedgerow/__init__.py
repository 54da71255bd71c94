"""Durable calls on a grid of unreliable machines.

>>> from hedgerow import Executor
>>> with Executor() as executor:  # doctest: +SKIP
...     print(list(executor.map(abs, range(-3, 3))))
[3, 2, 1, 0, 1, 2]
"""

from concurrent.futures import as_completed, wait

from ._binary import find_hedge
from ._call import Call
from ._errors import (
    BinaryNotFound,
    CallFailed,
    DependencyFailed,
    GridError,
    HedgerowError,
    HedgerowWarning,
    JobEnded,
    PythonMismatch,
    RemoteError,
    RemoteTraceback,
)
from ._executor import Executor, run
from ._files import Files
from ._grid import Grid
from ._local import LocalGrid
from ._options import CallOptions
from ._showing import Picture, progress
from ._version import __version__

__all__ = [
    "BinaryNotFound",
    "Call",
    "CallFailed",
    "CallOptions",
    "DependencyFailed",
    "Executor",
    "Files",
    "Grid",
    "GridError",
    "HedgerowError",
    "HedgerowWarning",
    "JobEnded",
    "LocalGrid",
    "Picture",
    "PythonMismatch",
    "RemoteError",
    "RemoteTraceback",
    "__version__",
    "as_completed",
    "find_hedge",
    "progress",
    "run",
    "wait",
]
