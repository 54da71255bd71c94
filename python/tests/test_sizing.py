"""How many calls share a process."""

from __future__ import annotations

import pytest

from hedgerow._sizing import HOLD_S, CallTimes, plan


def times(mean: float, running: int = 0) -> CallTimes:
    return CallTimes(mean=mean, longest=mean, running=running)


@pytest.mark.parametrize("mean", [0.06, 1.0, 1000.0])
@pytest.mark.parametrize("count", [1, 7, 5000])
def test_long_calls_are_sent_at_once_and_alone(mean: float, count: int) -> None:
    assert plan(count, times(mean, running=99), 2, 0.0) == [1] * count


def test_unknown_calls_are_tried_alone_and_the_others_wait_for_a_second() -> None:
    assert plan(100, CallTimes(), 4, 0.0) == [1] * 4
    assert plan(100, CallTimes(running=4), 4, 0.5) == []
    assert plan(100, CallTimes(running=4), 4, HOLD_S) == [1] * 100


@pytest.mark.parametrize("mean", [1e-6, 1e-3, 0.04])
@pytest.mark.parametrize("count", [1, 10, 12_345])
@pytest.mark.parametrize("running", [0, 3, 50])
def test_nothing_waits_for_longer_than_a_second(mean: float, count: int, running: int) -> None:
    sizes = plan(count, times(mean, running), 2, HOLD_S)
    assert sum(sizes) == count
    assert max(sizes) * mean <= max(0.21, mean)


def test_short_calls_keep_all_processes_busy_and_start_no_more() -> None:
    sizes = plan(10_000, times(1e-4), 2, 0.0)
    assert len(sizes) == 4 and max(sizes) <= 2000
    assert plan(10_000, times(1e-4, running=4), 2, 0.0) == []
    assert plan(10_000, times(1e-4), 2, 0.0, most=3) == sizes[:3]
    # Little work is worth one process.
    assert plan(8, times(1e-4), 2, 0.0) == [8]


def test_a_long_call_is_remembered() -> None:
    known = CallTimes()
    for _ in range(100):
        known.note(0.001)
    assert known.is_short()
    known.note(1.0)
    assert not known.is_short()
