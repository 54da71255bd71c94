"""Libraries that use the executor as it is."""

from __future__ import annotations

import math

import pytest

from hedgerow import Executor, LocalGrid


def test_dask_computes_on_an_executor(executor: Executor) -> None:
    dask = pytest.importorskip("dask")
    graph = dask.delayed(sum)([dask.delayed(math.factorial)(i) for i in range(6)])
    assert graph.compute(scheduler=executor) == 154


def test_dask_arrays_are_computed(executor: Executor) -> None:
    array = pytest.importorskip("dask.array")
    values = array.arange(100_000, chunks=20_000)
    assert int((values * 2).sum().compute(scheduler=executor)) == 9_999_900_000


def test_joblib_runs_on_a_grid(grid: LocalGrid) -> None:
    joblib = pytest.importorskip("joblib")
    import hedgerow.joblib  # noqa: F401 - registers the backend

    with joblib.parallel_config("hedgerow", grid=grid):
        squares = joblib.Parallel(n_jobs=2)(joblib.delayed(pow)(i, 2) for i in range(50))
        assert squares == [i * i for i in range(50)]
        with pytest.raises(ZeroDivisionError):
            joblib.Parallel(n_jobs=2)(joblib.delayed(divmod)(1, i) for i in (1, 0))


def test_arrays_come_and_go_without_copies(executor: Executor) -> None:
    numpy = pytest.importorskip("numpy")
    values = numpy.arange(500_000)

    def double(array):  # type: ignore[no-untyped-def]
        array *= 2
        return array

    result = executor.submit(double, values).result()
    assert int(result[-1]) == 999_998
    result[0] = 5
    assert int(values[-1]) == 499_999, "the argument is another array"
