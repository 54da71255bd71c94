"""Measures calls that do nothing, beside ProcessPoolExecutor, and Dask, Ray and HyperQueue where these are installed, all on
two processes.

``HEDGEROW_BINARY=target/release/hedge PYTHONPATH=python/src python python/benchmarks/calls.py --count 10000 --rounds 3``

Each round runs all of them one after another, so that what else the machine does meets all alike.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from typing import Any, Callable

#: Runs a function with each argument, all at once, and gives the results.
Many = Callable[[Callable[[int], int], range], "list[int]"]


def nothing(number: int) -> int:
    """Does nothing."""
    return number


def hedgerow_many(cleanup: list[Callable[[], Any]]) -> Many:
    """On a local grid."""
    from hedgerow import Executor, LocalGrid

    grid = LocalGrid(cpus=2)
    executor = Executor(grid=grid)
    cleanup += [grid.close, executor.shutdown]
    return lambda function, numbers: [future.result() for future in [executor.submit(function, i) for i in numbers]]


def pool_many(cleanup: list[Callable[[], Any]]) -> Many:
    """In the standard library's process pool."""
    pool = ProcessPoolExecutor(2)
    cleanup.append(pool.shutdown)
    return lambda function, numbers: [future.result() for future in [pool.submit(function, i) for i in numbers]]


def dask_many(cleanup: list[Callable[[], Any]]) -> Many:
    """On a local cluster of Dask."""
    from distributed import Client

    client = Client(n_workers=2, threads_per_worker=1, dashboard_address=None)
    cleanup.append(client.close)
    return lambda function, numbers: client.gather([client.submit(function, i, pure=False) for i in numbers])


def ray_many(cleanup: list[Callable[[], Any]]) -> Many:
    """On a local cluster of Ray."""
    import ray

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
    cleanup.append(ray.shutdown)
    remote = ray.remote(nothing)
    return lambda _, numbers: ray.get([remote.remote(i) for i in numbers])


def hyperqueue_many(cleanup: list[Callable[[], Any]]) -> Many:
    """On a local cluster of HyperQueue, whose Python functions have no results: it is waited for their end alone."""
    from hyperqueue import Job
    from hyperqueue.client import PythonEnv
    from hyperqueue.cluster import LocalCluster, WorkerConfig

    cluster = LocalCluster(worker_config=WorkerConfig(cores=2))
    cleanup.append(cluster.stop)
    client = cluster.client(python_env=PythonEnv(sys.executable))

    def many(function: Callable[[int], int], numbers: range) -> list[int]:
        with tempfile.TemporaryDirectory() as folder:
            job = Job(folder)
            for number in numbers:
                job.function(function, args=(number,))
            client.wait_for_jobs([client.submit(job)])
        return list(numbers)

    return many


#: Calls at most for those that start an interpreter for each.
FEW = {"hyperqueue": 300}
#: Those whose client asks once a second whether calls have ended: the time of one call would be that second.
ASK_EACH_SECOND = {"hyperqueue"}


def main() -> None:
    """Prints calls per second, and the time of one call at a time."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    cleanup: list[Callable[[], Any]] = []
    systems: dict[str, Many] = {}
    makers = {"hedgerow": hedgerow_many, "pool": pool_many, "dask": dask_many, "ray": ray_many}
    makers["hyperqueue"] = hyperqueue_many
    for name, make in makers.items():
        try:
            systems[name] = make(cleanup)
        except ImportError:
            print(f"{name} is not installed")
    rates: dict[str, list[float]] = {name: [] for name in systems}
    for name, many in systems.items():
        many(nothing, range(min(100, FEW.get(name, 100))))
    for _ in range(arguments.rounds):
        for name, many in systems.items():
            count = min(arguments.count, FEW.get(name, arguments.count))
            began = time.perf_counter()
            assert len(many(nothing, range(count))) == count
            rates[name].append(count / (time.perf_counter() - began))
    for name, many in systems.items():
        rate = statistics.median(rates[name])
        if name in ASK_EACH_SECOND:
            print(f"{name:10} {rate:9.0f} calls a second; one at a time is not measured, as its client asks once a second")
            continue
        singles = []
        for number in range(100):
            began = time.perf_counter()
            many(nothing, range(number, number + 1))
            singles.append(time.perf_counter() - began)
        print(f"{name:10} {rate:9.0f} calls a second; one at a time {statistics.median(singles) * 1e3:8.2f} ms")
    for end in reversed(cleanup):
        end()


if __name__ == "__main__":
    main()
