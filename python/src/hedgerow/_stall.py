"""Says once why calls wait, where nothing moves."""

from __future__ import annotations

import time
import warnings
from typing import Optional

from ._errors import GridError, HedgerowWarning
from ._grid import Grid
from ._state import State

#: If no task ended and none was sent for so long, the grid is asked why, seconds; each time twice as long.
_AFTER_S = 3.0
_AFTER_MAX_S = 60.0


class Stall:
    """Looks why calls wait that the grid has; for the sender's thread."""

    def __init__(self, state: State, grid: Grid, job: int) -> None:
        self._state = state
        self._grid = grid
        self._job = job
        self._next = 0.0
        self._warned = False

    def due(self) -> Optional[float]:
        """When to look, on the monotonic clock; None where nothing waits, or it was said."""
        if self._warned or not self._state.tasks:
            return None
        return max(self._state.moved_at + _AFTER_S, self._next)

    def look(self) -> None:
        """Warns if calls wait for something that the grid can name."""
        with self._state.changed:
            due, tasks = self.due(), len(self._state.tasks)
        now = time.monotonic()
        if due is None or due > now:
            return
        self._next = now + min(now - self._state.moved_at, _AFTER_MAX_S)
        try:
            reasons = self._grid.job(self._job)["waits"]
        except GridError:
            return
        if not reasons:
            return
        self._warned = True
        told = f"{tasks} tasks of job {self._job} are not done, and nothing has moved for a while: {'; '.join(reasons)}"
        try:
            warnings.warn(f"{told}. They go on by themselves once that changes.", HedgerowWarning, stacklevel=1)
        except HedgerowWarning:
            # Warnings are errors here, and this thread has nobody to raise it to.
            return
