"""How often the grid is asked why calls wait."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from hedgerow import _stall
from hedgerow._grid import Grid
from hedgerow._state import State


def test_a_job_in_which_nothing_moves_is_asked_about_once_a_minute_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1_000.0
    asked: list[float] = []

    def job(_: int) -> dict[str, Any]:
        asked.append(now)
        return {"waits": []}

    monkeypatch.setattr(_stall.time, "monotonic", lambda: now)
    state = State(cast(Any, None))
    state.tasks["one"] = cast(Any, None)
    state.moved_at = now
    stall = _stall.Stall(state, cast(Grid, SimpleNamespace(job=job)), 1)
    while now < 1_300.0:
        due = stall.due()
        assert due is not None
        now = max(due, now + 0.001)
        stall.look()
    assert [at - 1_000.0 for at in asked] == [3.0, 6.0, 12.0, 24.0, 48.0, 96.0, 156.0, 216.0, 276.0, 336.0]
