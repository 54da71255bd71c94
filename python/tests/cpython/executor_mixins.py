"""The mixins of CPython's test_concurrent_futures against hedgerow.Executor."""

from __future__ import annotations

import unittest
from concurrent.futures import BrokenExecutor
from typing import Any

from test import test_concurrent_futures as suite

import hedgerow

#: Tests that are left out, with the reason.
LEFT_OUT = {
    "test_interpreter_shutdown": "what a call prints stays on the grid, for `hedge logs`",
    "test_hang_gh83386": "the same",
    "test_submit_after_interpreter_shutdown": "starts ThreadPoolExecutor or ProcessPoolExecutor by name",
}

_grid: Any = None


def setUpModule() -> None:
    global _grid
    _grid = hedgerow.LocalGrid(cpus=5)


def tearDownModule() -> None:
    _grid.close()


class GridMixin(suite.ExecutorMixin):
    """Makes the executor."""

    def executor_type(self, max_workers: int, **arguments: Any) -> hedgerow.Executor:
        return hedgerow.Executor(max_workers, grid=_grid, **arguments)


# `BaseTestCase` counts threads, and the grid's own stay between tests.
class SubmitTest(GridMixin, suite.ExecutorTest, unittest.TestCase):
    """Submitting and mapping."""


class ShutdownTest(GridMixin, suite.ExecutorShutdownTest, unittest.TestCase):
    """The end of executors."""


for _name, _why in LEFT_OUT.items():
    setattr(ShutdownTest, _name, unittest.skip(_why)(getattr(suite.ExecutorShutdownTest, _name)))


class WaitTest(GridMixin, suite.WaitTests, unittest.TestCase):
    """``wait``."""


class AsCompletedTest(GridMixin, suite.AsCompletedTests, unittest.TestCase):
    """``as_completed``."""


class InitializerTest(GridMixin, suite.InitializerMixin, unittest.TestCase):
    """What runs before calls."""


class FailingInitializerTest(GridMixin, unittest.TestCase):
    """As ``FailingInitializerMixin``, whose log of the worker's process is not here: the exception carries its traceback."""

    def setUp(self) -> None:
        self.executor_kwargs = {"initializer": suite.init_fail}
        super().setUp()

    def test_initializer(self) -> None:
        future = self.executor.submit(suite.get_init_status)
        with self.assertRaises(BrokenExecutor) as caught:
            future.result()
        self.assertIn("error in initializer", str(caught.exception))
        with self.assertRaises(BrokenExecutor):
            while True:
                self.executor.submit(suite.get_init_status).exception()
                if self.executor._engine.state.broken is not None:
                    self.executor.submit(suite.get_init_status)


class FutureTest(suite.FutureTests):
    """Futures; they make their own."""


if __name__ == "__main__":
    unittest.main()
