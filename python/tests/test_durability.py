"""Calls survive the end of their client, of workers and of the leader, and each is delivered once."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from hedgerow import Executor, Grid, LocalGrid

CALLS = 1000

#: Submits calls, says which job has them and then how many are done, and is killed.
CLIENT = """
import sys, time
from hedgerow import Executor, Grid

def work(number):
    time.sleep(0.002)
    return number * 3

executor = Executor(grid=Grid(sys.argv[1], state=sys.argv[2]))
futures = [executor.submit(work, number) for number in range(int(sys.argv[3]))]
executor.flush()
print(executor.job, flush=True)
for done, future in enumerate(futures):
    future.result()
    print(done + 1, flush=True)
"""


#: Waits for a call that never returns.
WAITING = """
import sys, time
from hedgerow import Executor, Grid

with Executor(grid=Grid(sys.argv[1], state=sys.argv[2])) as executor:
    future = executor.submit(time.sleep, 1000)
    executor.flush()
    print(executor.job, flush=True)
    future.result()
"""


def kill_one(grid: LocalGrid, rolls: random.Random = random.Random(7)) -> None:
    """Kills one of the workers that are there."""
    alive = [worker for worker in grid.workers if worker.poll() is None]
    os.killpg(rolls.choice(alive).pid, signal.SIGKILL)


def slowly(number: int) -> int:
    import time

    time.sleep(0.01)
    return number + 1


def test_a_client_is_killed_and_another_has_all_results(grid: LocalGrid, tmp_path: Path) -> None:
    state = tmp_path / "state"
    command = [sys.executable, "-c", CLIENT, grid.ticket, os.fspath(state), str(CALLS)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as client:
        assert client.stdout is not None
        job = int(client.stdout.readline())
        for line in client.stdout:
            if int(line) >= CALLS // 2:
                break
        client.send_signal(signal.SIGKILL)
    with Executor.attach(job, grid=Grid(grid.ticket, state=state)) as executor:
        assert [future.result() for future in executor.futures] == [3 * number for number in range(CALLS)]


def test_workers_are_killed_and_no_call_is_lost_or_delivered_twice() -> None:
    delivered: list[int] = []
    lock = threading.Lock()
    rolls = random.Random(7)

    def note(number: int) -> None:
        with lock:
            delivered.append(number)

    with LocalGrid(workers=3, cpus=1) as grid, Executor(grid=grid) as executor:
        futures = []
        for number in range(600):
            future = executor.submit(slowly, number)
            future.add_done_callback(lambda _, number=number: note(number))  # type: ignore[misc]
            futures.append(future)
        for at in (100, 300, 450):
            futures[at].result(timeout=120)
            kill_one(grid, rolls)
            grid.add_worker()
        assert [future.result(timeout=120) for future in futures] == list(range(1, 601))
    assert sorted(delivered) == list(range(600))


def test_the_leader_is_killed_in_the_middle_of_a_map() -> None:
    with LocalGrid(workers=2, cpus=1, supervisors=3) as grid, Executor(grid=grid) as executor:
        results = []
        for value in executor.map(slowly, range(400), timeout=120):
            results.append(value)
            if len(results) == 100:
                os.killpg(grid.supervisors[0].pid, signal.SIGKILL)
        assert results == list(range(1, 401))
        assert executor.submit(slowly, 1).result(timeout=60) == 2


def test_a_gateway_is_killed_and_the_calls_go_on(grid: LocalGrid) -> None:
    with Executor(grid=grid) as executor:
        futures = [executor.submit(slowly, number) for number in range(200)]
        futures[0].result()
        socket = executor._engine.grid._socket
        pids = subprocess.run(["pgrep", "-f", f"gateway.*{socket}"], capture_output=True, text=True, check=True)
        for pid in pids.stdout.split():
            os.kill(int(pid), signal.SIGKILL)
        assert [future.result(timeout=60) for future in futures] == list(range(1, 201))


def test_ctrl_c_waits_for_nothing_and_says_how_to_go_on(grid: LocalGrid, tmp_path: Path) -> None:
    command = [sys.executable, "-c", WAITING, grid.ticket, os.fspath(tmp_path / "state")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as client:
        assert client.stdout is not None
        job = int(client.stdout.readline())
        client.send_signal(signal.SIGINT)
        _, told = client.communicate(timeout=30)
    assert client.returncode != 0
    assert f"job {job} goes on" in told and "KeyboardInterrupt" in told
    again = Grid(grid.ticket, state=tmp_path / "state")
    assert again.job(job)["state"] in ("running", "waiting")
    again.cancel_job(job)


def test_a_call_that_holds_up_others_is_run_again_by_the_client_that_took_it_over(grid: LocalGrid, tmp_path: Path) -> None:
    def mostly_short(number: int) -> int:
        while number == 3 and not (tmp_path / "go").exists():
            time.sleep(0.01)
        return number

    executor = Executor(grid=grid)
    assert list(executor.map(mostly_short, range(100, 140))) == list(range(100, 140))
    for number in range(10):
        executor.submit(mostly_short, number)
    job = executor.job
    executor.detach()
    with Executor.attach(job, grid=grid) as again:
        futures = again.futures[-10:]
        assert [future.result(timeout=60) for future in futures if future is not futures[3]] == [0, 1, 2, 4, 5, 6, 7, 8, 9]
        assert not futures[3].done()
        (tmp_path / "go").touch()
        assert futures[3].result(timeout=60) == 3


def test_a_result_that_is_lost_with_its_worker_is_made_again() -> None:
    with LocalGrid(workers=1, cpus=1) as grid, Executor(grid=grid) as executor:
        future = executor.submit(os.urandom, 128 << 20)
        executor.flush()
        next(iter(grid.connect().ends(executor.job)))
        # Nobody else has the whole of it by now, and when the call runs again it has another result.
        kill_one(grid)
        grid.add_worker()
        assert len(future.result(timeout=120)) == 128 << 20
