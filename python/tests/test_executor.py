"""What callers rely on: values, exceptions, limits, cancellation, dependencies."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import threading
import time
from collections import deque
from pathlib import Path
from typing import Any

import pytest

from hedgerow import (
    CallFailed,
    DependencyFailed,
    Executor,
    GridError,
    LocalGrid,
    RemoteError,
    RemoteTraceback,
    as_completed,
    run,
    wait,
)
from hedgerow._tasks import parse_label


class Counting(deque):  # type: ignore[type-arg]
    """A queue that counts what is taken from it."""

    taken = 0

    def popleft(self) -> Any:
        self.taken += 1
        return super().popleft()


class OwnError(Exception):
    """Defined in a module that workers do not have."""


def add(one: int, other: int) -> int:
    return one + other


def fails(text: str) -> None:
    raise OwnError(text)


def crash(how: str) -> None:
    if how == "exit":
        os._exit(7)
    os.kill(os.getpid(), signal.SIGKILL)


def mark_and_wait(folder: str) -> None:
    Path(folder, str(os.getpid())).touch()
    time.sleep(1000)


def until(what: str, done):  # type: ignore[no-untyped-def]
    """Asks again and again until there is an answer."""
    deadline = time.monotonic() + 60
    while True:
        found = done()
        if found:
            return found
        assert time.monotonic() < deadline, f"waited too long for {what}"
        time.sleep(0.02)


def test_values_come_back_and_map_keeps_the_order(executor: Executor) -> None:
    assert executor.submit(add, 1, other=2).result() == 3
    assert list(executor.map(add, range(300), range(300))) == [2 * i for i in range(300)]
    factor = 7
    assert executor.submit(lambda value: value * factor, 6).result() == 42
    futures = [executor.submit(add, i, i) for i in range(5)]
    assert sorted(future.result() for future in as_completed(futures)) == [0, 2, 4, 6, 8]
    assert wait(futures).not_done == set()


def test_what_a_call_raises_is_raised_here_with_the_traceback_of_the_worker(executor: Executor) -> None:
    future = executor.submit(fails, "on purpose")
    with pytest.raises(OwnError, match="on purpose") as caught:
        future.result()
    assert isinstance(caught.value.__cause__, RemoteTraceback)
    assert "in fails" in str(caught.value.__cause__)
    # One of many that share a process costs no other.
    outcomes = [executor.submit(add if i % 3 else fails, *((i, i) if i % 3 else ("x",))) for i in range(60)]
    assert sum(future.exception() is None for future in outcomes) == 40


@pytest.mark.parametrize(("how", "kind", "why"), [("exit", "exited", "exit code 7"), ("kill", "signalled", "signal 9")])
def test_a_crash_fails_its_call_alone(executor: Executor, how: str, kind: str, why: str) -> None:
    # Short calls share processes by now.
    list(executor.map(add, range(100), range(100)))
    futures = [executor.submit(add, 1, 1), executor.submit(crash, how), executor.submit(add, 2, 2)]
    with pytest.raises(CallFailed, match=why) as caught:
        futures[1].result()
    assert caught.value.kind == kind
    assert (futures[0].result(), futures[2].result()) == (2, 4)


def test_a_job_whose_failures_were_told_is_done(grid: LocalGrid) -> None:
    with Executor(grid=grid) as executor:
        crashed, job = executor.submit(crash, "kill"), executor.job
        with pytest.raises(CallFailed):
            crashed.result()
    state = grid.connect().job(job)
    assert (state["state"], state["failed"]) == ("done", 1)


def test_a_crash_beside_short_calls_costs_none_of_them(executor: Executor) -> None:
    def odd(number: int) -> int:
        if number == 77:
            os.kill(os.getpid(), signal.SIGSEGV)
        return number

    list(executor.map(odd, range(20)))
    futures = [executor.submit(odd, i) for i in range(200)]
    for number, future in enumerate(futures):
        if number == 77:
            with pytest.raises(CallFailed, match="signal 11"):
                future.result()
        else:
            assert future.result() == number


def test_a_long_call_among_short_ones_is_run_alone_and_holds_up_none(executor: Executor, tmp_path: Path) -> None:
    def mostly_short(number: int) -> int:
        if number == 3:
            while not (tmp_path / "go").exists():
                time.sleep(0.01)
        return number

    list(executor.map(mostly_short, range(100, 140)))
    futures = [executor.submit(mostly_short, i) for i in range(10)]
    assert [future.result(timeout=60) for future in futures if future is not futures[3]] == [0, 1, 2, 4, 5, 6, 7, 8, 9]
    assert not futures[3].done()
    (tmp_path / "go").touch()
    assert futures[3].result(timeout=60) == 3


def test_limits_fail_the_call_with_the_reason(executor: Executor) -> None:
    def hungry() -> int:
        held = bytearray(400 << 20)
        time.sleep(30)
        return len(held)

    with pytest.raises(CallFailed, match=r"options\(memory=") as caught:
        executor.options(memory="100 MiB").submit(hungry).result()
    assert caught.value.kind == "memory-limit"
    with pytest.raises(CallFailed) as caught:
        executor.options(time_limit=0.2).submit(time.sleep, 1000).result()
    assert caught.value.kind == "time-limit"
    assert executor.submit(add, 1, 1).result() == 2


def test_retries_are_for_crashes(executor: Executor, tmp_path: Path) -> None:
    def third_time() -> int:
        tries = len(list(tmp_path.iterdir()))
        (tmp_path / str(tries)).touch()
        if tries < 2:
            os._exit(1)
        return tries

    assert executor.options(retries=2).submit(third_time).result() == 2


def test_a_running_call_is_cancelled_and_its_process_is_gone(executor: Executor, tmp_path: Path) -> None:
    took = []
    while not took or (min(took) > 0.1 and len(took) < 10):
        folder = tmp_path / str(len(took))
        folder.mkdir()
        future = executor.submit(mark_and_wait, str(folder))
        (pid,) = until("the call to run", lambda folder=folder: [int(path.name) for path in folder.iterdir()])
        assert not future.cancel()
        process = os.pidfd_open(pid)
        began = time.monotonic()
        assert future.cancel(force=True)
        assert future.cancelled()
        assert select.select([process], [], [], 60)[0], "its process goes on"
        took.append(time.monotonic() - began)
        os.close(process)
    assert min(took) <= 0.1, took
    assert executor.submit(add, 1, 1).result() == 2


def test_futures_are_arguments(executor: Executor) -> None:
    first = executor.submit(add, 1, 2)
    second = executor.submit(add, first, 10)
    third = executor.submit(sum, [first, second, 100])
    assert third.result() == 116
    assert second.result() == 13
    failed = executor.submit(fails, "early")
    with pytest.raises((OwnError, DependencyFailed)):
        executor.submit(add, failed, 1).result()
    crashed = executor.submit(crash, "exit")
    with pytest.raises(DependencyFailed):
        executor.submit(add, crashed, 1).result()
    with Executor(local=True) as other:
        with pytest.raises(Exception, match="another executor"):
            other.submit(add, first, 1).result()


def test_large_arguments_and_results_travel_apart(executor: Executor) -> None:
    large = bytes(range(256)) * 4096
    assert executor.submit(len, large).result() == len(large)
    assert executor.submit(bytes.upper, b"a" * 300_000).result() == b"A" * 300_000
    shared = executor.put(large)
    assert list(executor.map(lambda value, at: value[at], [shared] * 5, range(5))) == [0, 1, 2, 3, 4]


def test_asyncio_awaits_calls(executor: Executor) -> None:
    async def both() -> int:
        loop = asyncio.get_running_loop()
        one = await asyncio.wrap_future(executor.submit(add, 1, 2))
        return one + await loop.run_in_executor(executor, add, 3, 4)

    assert asyncio.run(both()) == 10


def test_json_results_are_never_unpickled(grid: LocalGrid) -> None:
    with Executor(grid=grid, result_format="json") as executor:
        assert executor.submit(lambda: {"a": [1, None]}).result() == {"a": [1, None]}
        with pytest.raises(RemoteError, match="OwnError: told"):
            executor.submit(fails, "told").result()
        with pytest.raises(RemoteError, match="not JSON serializable"):
            executor.submit(lambda: {1, 2}).result()


def test_what_cannot_be_pickled_fails_its_call(executor: Executor) -> None:
    with pytest.raises(TypeError, match="pickle"):
        executor.submit(len, [threading.Lock()]).result()
    with pytest.raises(TypeError, match="pickle"):
        executor.submit(threading.Lock).result()


def test_another_interpreter_is_refused_with_what_to_do(grid: LocalGrid) -> None:
    with Executor(grid=grid, python="python-of-nobody") as executor:
        with pytest.raises(CallFailed, match="argument `python`") as caught:
            executor.submit(add, 1, 1).result()
        assert caught.value.kind == "not-started"


def test_calls_outlive_the_executor_and_another_takes_them_over(grid: LocalGrid, tmp_path: Path) -> None:
    def gated(number: int) -> int:
        while not (tmp_path / "go").exists():
            time.sleep(0.02)
        return number * number

    executor = Executor(grid=grid)
    futures = [executor.submit(gated, i) for i in range(6)]
    job = executor.job
    executor.detach()
    assert not any(future.done() for future in futures)
    (tmp_path / "go").touch()
    with Executor.attach(job, grid=grid) as again:
        assert [future.result() for future in again.futures] == [0, 1, 4, 9, 16, 25]
        assert again.submit(add, 2, 2).result() == 4
    # The job is closed, and its results are still there.
    with Executor.attach(job, grid=grid) as late:
        assert [future.result() for future in late.futures] == [0, 1, 4, 9, 16, 25, 4]


def test_calls_that_were_held_back_are_durable_after_a_flush(grid: LocalGrid) -> None:
    for _ in range(10):
        with Executor(grid=grid) as executor:
            # Of calls whose times are unknown a few are tried first; the others are sent once one of these has ended.
            futures = [executor.submit(add, number, 1) for number in range(50)]
            executor.flush()
            labels = [parse_label(group["id"]) for group in grid.grid.groups(executor.job)]
            assert sum(label[3] for label in labels if label is not None) == 50
            assert [future.result() for future in futures] == list(range(1, 51))


def test_a_job_that_is_cancelled_fails_its_calls(grid: LocalGrid) -> None:
    with Executor(grid=grid) as executor:
        future = executor.submit(time.sleep, 1000)
        executor.flush()
        grid.grid.cancel_job(executor.job)
        with pytest.raises(Exception, match="cancelled"):
            future.result()


def test_a_grid_that_is_not_there_is_said_at_the_first_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.delenv("HEDGE_TICKET", raising=False)
    with pytest.raises(GridError, match="LocalGrid"):
        Executor().submit(add, 1, 1)


def test_run_needs_nothing() -> None:
    assert run(add, 20, 22) == 42


def test_calls_that_wait_for_a_process_are_not_looked_at_again_with_each_end(grid: LocalGrid) -> None:
    calls = 4_000
    with Executor(2, grid=grid) as executor:
        slow = [executor.submit(time.sleep, 0.001) for _ in range(3)]
        assert [call.result(timeout=60) for call in slow] == [None] * 3
        state = executor._engine.state
        with state.changed:
            (kind,) = state.kinds.values()
            queue = kind.ready = Counting(kind.ready)
        wait([executor.submit(time.sleep, 0.001) for _ in range(calls)], timeout=120)
        assert calls <= queue.taken < 2 * calls
