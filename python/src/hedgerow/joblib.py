"""A backend for joblib: scikit-learn, and whatever else uses ``joblib.Parallel``, on a grid.

>>> import joblib, hedgerow.joblib
>>> with joblib.parallel_config("hedgerow", local=True):  # doctest: +SKIP
...     print(joblib.Parallel(n_jobs=4)(joblib.delayed(abs)(i) for i in (-1, 2)))
[1, 2]

Importing this module registers the backend ``hedgerow``. The arguments beside ``n_jobs`` are those of
:class:`hedgerow.Executor`, or ``executor`` with one that exists.
"""

from __future__ import annotations

from typing import Any, Callable, Optional

from joblib.parallel import (
    AutoBatchingMixin,
    ParallelBackendBase,
    SequentialBackend,
    register_parallel_backend,
)

from ._call import Call
from ._executor import Executor


class HedgerowBackend(AutoBatchingMixin, ParallelBackendBase):  # type: ignore[misc]
    """Runs the batches of a ``joblib.Parallel`` as calls of an executor."""

    supports_retrieve_callback = True
    default_n_jobs = -1

    def __init__(self, nesting_level: Optional[int] = None, **arguments: Any) -> None:
        super().__init__(nesting_level=nesting_level, inner_max_num_threads=arguments.pop("inner_max_num_threads", None))
        self._given: Optional[Executor] = arguments.pop("executor", None)
        self._arguments = arguments
        self._executor: Optional[Executor] = None
        self._calls: set[Call] = set()

    def effective_n_jobs(self, n_jobs: Optional[int]) -> int:
        """How many calls run at once; a negative number counts from all that the grid runs."""
        if n_jobs == 0:
            raise ValueError("n_jobs == 0 in Parallel has no meaning")
        if n_jobs is None:
            return 1
        return n_jobs if n_jobs > 0 else max(self._started()._engine.slots() + 1 + n_jobs, 1)

    def configure(self, n_jobs: int = 1, parallel: Any = None, **_: Any) -> int:
        """Called before the first call of a ``Parallel``; gives how many calls run at once."""
        self.parallel = parallel
        return self.effective_n_jobs(n_jobs)

    def submit(self, func: Callable[[], Any], callback: Optional[Callable[[Any], Any]] = None) -> Call:
        """Has a batch run."""
        executor = self._started()
        if self._given is None and not self._calls:
            executor._engine.preload(_preloadable(func))
        call = executor.submit(func)
        self._calls.add(call)
        call.add_done_callback(self._calls.discard)
        if callback is not None:
            call.add_done_callback(callback)
        return call

    def retrieve_result_callback(self, out: Call) -> Any:
        """What a batch returned."""
        return out.result()

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """Cancels all batches, running ones too; the executor is as good as before."""
        for call in list(self._calls):
            call.cancel(force=True)
        self.reset_batch_stats()

    def terminate(self) -> None:
        """Called after the last call of a ``Parallel``."""
        executor, self._executor = self._executor, None
        if executor is not None and executor is not self._given:
            executor.shutdown(wait=False)
        self.reset_batch_stats()

    def get_nested_backend(self) -> Any:
        """Inside a call nothing is parallel: the grid's other workers are not reached from there."""
        return SequentialBackend(nesting_level=(self.nesting_level or 0) + 1), None

    def _started(self) -> Executor:
        if self._executor is None:
            self._executor = self._given or Executor(**{"name": "joblib", "preload": ("joblib",), **self._arguments})
        return self._executor


#: Packages that an interpreter may import before it is forked: they start no threads and keep no files open.
_FORKABLE = ("numpy", "pandas", "scipy", "sklearn")


def _preloadable(batch: Any) -> list[str]:
    """Modules that the worker imports for a batch in any case, and may import before."""
    found: dict[str, None] = {}
    for function, _, _ in getattr(batch, "items", ()):
        for module in (type(function).__module__, getattr(function, "__module__", None)):
            if isinstance(module, str) and module.partition(".")[0] in _FORKABLE:
                found[module] = None
    return list(found)


register_parallel_backend("hedgerow", HedgerowBackend)
