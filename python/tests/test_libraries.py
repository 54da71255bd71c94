"""Libraries that use the executor as it is."""

from __future__ import annotations

import math
import threading
from typing import Any

import pytest
from test_durability import kill_one
from test_executor import until

from hedgerow import Executor, LocalGrid


def test_dask_computes_on_an_executor(executor: Executor) -> None:
    dask = pytest.importorskip("dask")
    graph = dask.delayed(sum)([dask.delayed(math.factorial)(i) for i in range(6)])
    assert graph.compute(scheduler=executor) == 154


def test_dask_arrays_are_computed(executor: Executor) -> None:
    array = pytest.importorskip("dask.array")
    values = array.arange(100_000, chunks=20_000)
    assert int((values * 2).sum().compute(scheduler=executor)) == 9_999_900_000


def test_dask_groups_a_bag_by_tasks(executor: Executor) -> None:
    dask = pytest.importorskip("dask")
    bag = pytest.importorskip("dask.bag")
    numbers = bag.from_sequence(range(12), npartitions=3)
    with dask.config.set({"dataframe.shuffle.method": "tasks"}):
        groups = dict(numbers.groupby(lambda number: number % 2).compute(scheduler=executor))
    assert {key: sorted(values) for key, values in groups.items()} == {0: [0, 2, 4, 6, 8, 10], 1: [1, 3, 5, 7, 9, 11]}


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


def kill_one_soon(grid: LocalGrid, executor: Executor) -> threading.Thread:
    """Kills a worker once calls have run."""

    def kill() -> None:
        connection = grid.connect()
        until("calls to run", lambda: connection.job(executor.job)["done"] > 2)
        kill_one(grid)

    # It ends with the process where the calls fail.
    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    return thread


def test_a_dask_array_is_computed_though_a_worker_is_killed() -> None:
    array = pytest.importorskip("dask.array")
    values = array.random.default_rng(7).random((300, 300), chunks=(100, 100))
    total = (values @ values.T).sum(axis=0)
    expected = total.compute(scheduler="sync")
    with LocalGrid(workers=3, cpus=1) as grid, Executor(grid=grid, preload=["dask.array"]) as executor:
        killer = kill_one_soon(grid, executor)
        found = total.compute(scheduler=executor)
        killer.join()
    assert (abs(found - expected) < 1e-6).all()


def test_a_grid_search_is_the_same_though_a_worker_is_killed() -> None:
    sklearn: Any = pytest.importorskip("sklearn", reason="needs scikit-learn; see CONTRIBUTING.md")
    import joblib
    import numpy
    from sklearn.datasets import load_iris
    from sklearn.model_selection import GridSearchCV
    from sklearn.svm import SVC

    import hedgerow.joblib  # noqa: F401 - registers the backend

    assert sklearn.__version__
    features, labels = load_iris(return_X_y=True)
    wanted = {"C": [0.01, 0.1, 1, 10], "gamma": [0.01, 0.1, 1]}
    local = GridSearchCV(SVC(), wanted, cv=5).fit(features, labels)
    with LocalGrid(workers=3, cpus=1) as grid, Executor(grid=grid, preload=["joblib", "sklearn"]) as executor:
        killer = kill_one_soon(grid, executor)
        with joblib.parallel_config("hedgerow", executor=executor, n_jobs=3):
            remote = GridSearchCV(SVC(), wanted, cv=5).fit(features, labels)
        killer.join()
    assert remote.best_params_ == local.best_params_
    scores = "mean_test_score", "std_test_score", "rank_test_score"
    assert all(numpy.array_equal(remote.cv_results_[name], local.cv_results_[name]) for name in scores)


def test_batches_are_run_with_their_modules_preloaded() -> None:
    pytest.importorskip("joblib")
    numpy = pytest.importorskip("numpy")
    from hedgerow.joblib import _preloadable

    class Batch:
        items = [(numpy.linalg.norm, (), {}), (math.sqrt, (), {})]

    found = _preloadable(Batch())
    assert found and all(module.partition(".")[0] == "numpy" for module in found)
