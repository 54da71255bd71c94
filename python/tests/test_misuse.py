"""Options that are wrong, arguments that change, and calls that are cancelled at any moment."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from pickle import PicklingError
from typing import Any

import pytest
from test_executor import add, until

from hedgerow import CallFailed, Executor, HedgerowWarning, LocalGrid


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
        {"fresh": "x"},
        {"by_reference": 1},
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
        fresh = executor.options(fresh=True)
        first = executor.submit(add, 0, 0)
        for number in range(1, 20):
            one = fresh if number % 3 == 0 else executor
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


def test_a_call_that_no_worker_can_take_is_said_once(grid: LocalGrid) -> None:
    with pytest.warns(HedgerowWarning, match="gpu") as caught:
        with Executor(grid=grid) as executor:
            future = executor.options(gpus=3).submit(add, 1, 2)
            until("the warning", lambda: [one for one in caught.list if one.category is HedgerowWarning])
            assert future.cancel(force=True)
    assert len([one for one in caught.list if one.category is HedgerowWarning]) == 1


def test_max_workers_is_how_many_run_at_once(grid: LocalGrid, tmp_path: Path) -> None:
    def watched(number: int) -> int:
        mark = tmp_path / str(number)
        mark.touch()
        together = len(list(tmp_path.iterdir()))
        time.sleep(0.05)
        mark.unlink()
        return together

    with Executor(2, grid=grid) as executor:
        fresh = executor.options(fresh=True)
        numbers = [fresh.submit(watched, number).result for number in range(6)]
        numbers += [executor.submit(watched, number).result for number in range(6, 12)]
        assert max(result(timeout=60) for result in numbers) <= 2


#: A script of a user: what it raises, and where, is known in its process alone.
SCRIPT = """
import traceback
from hedgerow import Executor

class Refused(Exception):
    def __init__(self, code, text):
        super().__init__(f"{code}: {text}")
        self.code = code

class Needs(Exception):
    def __init__(self, *, code):
        super().__init__("needs")
        self.code = code

def refuse(number):
    if number == 1:
        raise Refused(409, "conflict")  # this line
    raise Needs(code=number)

with Executor(local=True) as executor:
    for number, kind, code in ((1, Refused, 409), (2, Needs, 2)):
        try:
            executor.submit(refuse, number).result()
        except kind as error:
            assert error.code == code, vars(error)
            told = traceback.format_exc()
            assert "raise" in told and "in refuse" in told, told
    assert "# this line" in told or number == 2
"""


def test_exceptions_of_a_script_come_back_as_themselves(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    # The script is not there for the worker.
    reads = "import sys; path = sys.argv[1]; text = open(path).read(); import linecache; "
    reads += "linecache.cache[path] = (len(text), None, text.splitlines(True), path); import os; os.unlink(path); "
    reads += "exec(compile(text, path, 'exec'))"
    ended = subprocess.run(
        [sys.executable, "-c", reads, os.fspath(script)], capture_output=True, text=True, timeout=120, check=False
    )
    assert ended.returncode == 0, ended.stderr


def test_a_failed_call_names_its_function_and_its_log(executor: Executor) -> None:
    def dies() -> None:
        os.write(1, b"nearly done")
        os._exit(3)

    future = executor.submit(dies)
    with pytest.raises(CallFailed, match=r"^dies: .*exit code 3.*hedge logs \d+ dies-"):
        future.result()
    assert future.log() == "nearly done"
    assert "dies" in repr(future)


#: Starts a local grid and is killed.
KILLED = """
import sys, time
from hedgerow import LocalGrid

with LocalGrid(cpus=1) as grid:
    print(grid._folder, flush=True)
    time.sleep(1000)
"""


def test_a_killed_process_leaves_nothing_of_its_grid() -> None:
    with subprocess.Popen([sys.executable, "-c", KILLED], stdout=subprocess.PIPE, text=True) as client:
        assert client.stdout is not None
        folder = Path(client.stdout.readline().strip())
        assert folder.is_dir()
        client.kill()
    until("the folder to go", lambda: not list(folder.parent.glob(f"{folder.name}*")))


def test_closing_a_grid_ends_its_processes_though_another_keeps_their_pipes_open() -> None:
    grid = LocalGrid(cpus=1)
    pipes = [process.stdin.fileno() for process in grid._processes if process.stdin is not None]
    with subprocess.Popen(["sleep", "1000"], pass_fds=pipes) as other:
        grid.close()
        command_lines = (path for path in Path("/proc").glob("[0-9]*/cmdline"))
        left = [path for path in command_lines if grid._folder.name.encode() in read(path) and b"gateway" not in read(path)]
        other.kill()
    assert left == [] and not grid._folder.exists()


def read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def test_a_call_may_change_its_folder(executor: Executor) -> None:
    def leaves() -> str:
        os.chdir("/")
        return os.getcwd()

    assert executor.submit(leaves).result() == "/"
    assert [executor.submit(leaves).result() for _ in range(3)] == ["/"] * 3
    assert list(executor.map(lambda _: leaves(), range(20))) == ["/"] * 20


def test_functions_that_are_made_anew_for_each_call_are_forgotten(
    grid: LocalGrid, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hedgerow._sending._KINDS_MAX", 4)
    with Executor(grid=grid) as executor:
        for number in range(12):
            assert executor.submit(lambda one=number: one).result() == number
        assert len(executor._engine.state.kinds) <= 5
