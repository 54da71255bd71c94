"""Options that are wrong, arguments that change, and calls that are cancelled at any moment."""

from __future__ import annotations

import random
import time
from concurrent.futures import ThreadPoolExecutor
from pickle import PicklingError
from typing import Any

import pytest
from test_executor import add, until

from hedgerow import Executor, LocalGrid


@pytest.mark.parametrize(
    "options",
    [
        {"labels": ["x"]},
        {"labels": {"zone": 3}},
        {"env": {"MODE": 1}},
        {"retries": "2"},
        {"retries": -1},
        {"cpus": "two"},
        {"gpus": 0.5},
        {"memory": 1.5},
        {"memory": -5},
        {"time_limit": 0},
        {"alone": "x"},
    ],
)
def test_a_wrong_option_is_said_where_it_is_given(executor: Executor, options: dict[str, Any]) -> None:
    with pytest.raises((TypeError, ValueError), match=next(iter(options))):
        executor.options(**options)
    assert executor.submit(add, 1, 2).result() == 3


def test_wrong_arguments_of_an_executor_are_refused() -> None:
    with pytest.raises(TypeError, match="max_workers"):
        Executor(max_workers="2")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"preload=\['numpy'\]"):
        Executor(preload="numpy")


def test_arguments_are_as_they_were_when_the_call_was_submitted(executor: Executor) -> None:
    numbers = [0]
    futures = []
    for number in range(50):
        numbers[0] = number
        futures.append(executor.submit(sum, numbers))
    large = bytearray(100_000)
    large[0] = 1
    size = executor.submit(sum, large)
    large[1] = 1
    assert [future.result() for future in futures] == list(range(50))
    assert size.result() == 1


def test_a_call_is_cancelled_whenever_that_is_asked_for() -> None:
    with LocalGrid(cpus=30) as grid, Executor(grid=grid) as executor:
        seed = random.randrange(1 << 32)
        moments = random.Random(seed)
        executor.submit(add, 1, 2).result()
        for _ in range(30):
            future = executor.submit(time.sleep, 1000)
            time.sleep(moments.random() * 0.01)
            assert future.cancel(force=True), f"seed {seed}"
        job, connection = executor.job, grid.connect()
        until("the grid to end what was cancelled", lambda: connection.job(job)["running"] == 0)


def test_attached_futures_are_in_the_order_of_their_calls() -> None:
    with LocalGrid(cpus=4) as grid:
        executor = Executor(grid=grid)
        alone = executor.options(alone=True)
        first = executor.submit(add, 0, 0)
        for number in range(1, 20):
            one = alone if number % 3 == 0 else executor
            one.submit(add, number, first if number % 7 == 0 else 0)
        job = executor.job
        executor.detach()
        again = Executor.attach(job, grid=grid)
        assert [future.result() for future in again.futures] == list(range(20))
        again.shutdown()


def test_a_future_of_another_library_is_refused(executor: Executor) -> None:
    with ThreadPoolExecutor(1) as other:
        foreign = other.submit(add, 1, 2)
        with pytest.raises(PicklingError, match="another executor"):
            executor.submit(add, foreign, 1).result()


def test_options_add_up(executor: Executor) -> None:
    both = executor.options(env={"ONE": "1"}).options(retries=1)
    assert both._options.env == {"ONE": "1"} and both._options.retries == 1
    assert both.submit(len, both.put(b"123")).result() == 3
