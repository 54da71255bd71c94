"""Measures one large array as an argument of many calls on four workers, beside Dask and Ray where these are installed.

``HEDGEROW_BINARY=target/release/hedge PYTHONPATH=python/src python python/benchmarks/large_array.py --mib 100 --calls 100``

Each gets the array as callers would hand it over first: by name for all calls. The time is from there to the last result.
"""

from __future__ import annotations

import argparse
import sys
import time
from contextlib import ExitStack
from typing import Any, Callable

import numpy

#: Hands an array to so many calls of ``total`` and gives their results.
Spread = Callable[[Any, int], "list[float]"]
#: For calls before, after which all processes have started and have numpy.
SMALL = numpy.zeros(1)


def total(array: Any, number: int) -> float:
    """Reads all of it."""
    return float(array.sum()) + number


def hedgerow_spread(stack: ExitStack, put: bool, sandbox: bool = False) -> Spread:
    """On a local grid of four workers; the array is put once, or is an argument as it is. With a sandbox it travels as
    between machines.
    """
    from hedgerow import Executor, LocalGrid

    grid = stack.enter_context(LocalGrid(workers=4, cpus=1, sandbox=sandbox))
    mounts = [sys.prefix] if sandbox else []
    executor = stack.enter_context(Executor(grid=grid, preload=["numpy"], mounts=mounts))
    [future.result() for future in [executor.options(fresh=True).submit(total, SMALL, i) for i in range(4)]]

    def spread(array: Any, calls: int) -> list[float]:
        argument = executor.put(array) if put else array
        results = [future.result() for future in [executor.submit(total, argument, i) for i in range(calls)]]
        stores = grid._folder.glob("worker-*/state/worker/content/blobs/*/*")
        print(f"  the workers' stores hold {sum(path.stat().st_size for path in stores) >> 20} MiB")
        return results

    return spread


def dask_spread(stack: ExitStack) -> Spread:
    """On a local cluster of Dask with four processes."""
    from distributed import Client

    client = stack.enter_context(Client(n_workers=4, threads_per_worker=1, dashboard_address=None))
    client.gather([client.submit(total, SMALL, i) for i in range(20)])

    def spread(array: Any, calls: int) -> list[float]:
        there = client.scatter(array)
        return list(client.gather([client.submit(total, there, i, pure=False) for i in range(calls)]))

    return spread


def ray_spread(stack: ExitStack) -> Spread:
    """On a local cluster of Ray with four processes, which share memory."""
    import ray

    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False, logging_level="error")
    stack.callback(ray.shutdown)
    remote = ray.remote(total)
    ray.get([remote.remote(SMALL, i) for i in range(20)])

    def spread(array: Any, calls: int) -> list[float]:
        there = ray.put(array)
        return list(ray.get([remote.remote(there, i) for i in range(calls)]))

    return spread


def main() -> None:
    """Prints a line for each system."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--mib", type=int, default=100)
    parser.add_argument("--calls", type=int, default=100)
    arguments = parser.parse_args()
    systems: dict[str, Callable[[ExitStack], Spread]] = {
        "hedgerow put": lambda stack: hedgerow_spread(stack, put=True),
        "hedgerow": lambda stack: hedgerow_spread(stack, put=False),
        "hedgerow grid": lambda stack: hedgerow_spread(stack, put=True, sandbox=True),
        "dask": dask_spread,
        "ray": ray_spread,
    }
    for name, make in systems.items():
        with ExitStack() as stack:
            try:
                spread = make(stack)
            except ImportError:
                print(f"{name} is not installed")
                continue
            # Another array for each, so that nothing is there already.
            array = numpy.random.default_rng(len(name)).random(arguments.mib * (1 << 17))
            began = time.perf_counter()
            results = spread(array, arguments.calls)
            took = time.perf_counter() - began
            assert len(results) == arguments.calls and results[1] - results[0] == 1.0
            print(f"{name:13} {arguments.mib} MiB to {arguments.calls} calls: {took:6.2f} s")


if __name__ == "__main__":
    main()
