"""The executor."""

from __future__ import annotations

import html
import sys
import weakref
from collections.abc import Sequence
from concurrent.futures import Executor as BaseExecutor
from dataclasses import replace
from typing import Any, Callable, Optional, Union

from ._bundle import MODULE
from ._call import Call
from ._engine import Engine
from ._errors import HedgerowError
from ._grid import Grid, Ticket
from ._local import LocalGrid, shared_local_grid
from ._options import CallOptions
from ._pickling import Functions, Shared, share
from ._showing import Picture, draw, show_job
from ._tasks import Settings
from ._trees import Mount, MountLike, check_interpreter, interpreter, read_mounts
from ._values import FORMATS

#: An open job whose client is gone for so long closes itself.
OPEN_TIMEOUT = "1h"


#: Modules of the standard library that the processes of all calls use, by way of cloudpickle too, which is sent along.
_PRELOADED = (
    "ast",
    "base64",
    "dataclasses",
    "dis",
    "inspect",
    "json",
    "logging",
    "mmap",
    "pickle",
    "platform",
    "select",
    "traceback",
    "typing",
    "uuid",
    "zipimport",
)


class Executor(BaseExecutor):
    """A ``concurrent.futures.Executor`` whose calls are tasks of one open job of a grid.

    Once a call is sent, which takes a second at most, it outlives this process: :meth:`attach` takes it over elsewhere.
    Functions and arguments are written with cloudpickle, modules that are not installed are sent along, and a future as an
    argument stands for its result. Short calls share a process; one that may share none says so with :meth:`options`.
    """

    def __init__(
        self,
        max_workers: Optional[int] = None,
        *,
        grid: Union[LocalGrid, Grid, None] = None,
        ticket: Ticket = None,
        local: bool = False,
        name: str = "python",
        python: Optional[str] = None,
        initializer: Optional[Callable[..., object]] = None,
        initargs: tuple[Any, ...] = (),
        result_format: str = "pickle",
        open_timeout: str = OPEN_TIMEOUT,
        options: Optional[CallOptions] = None,
        preload: Sequence[str] = (),
        mounts: Sequence[MountLike] = (),
    ) -> None:
        """Nothing is started before the first call.

        ``max_workers`` is how many processes run calls at once. Calls beyond that wait in this process, and are lost with
        it; without it all calls are sent, and the grid runs as many as its workers have room for.
        ``ticket`` is a file with a ticket of the grid, or its text; without it HEDGE_TICKET counts, else this machine's
        supervisor. ``local=True`` uses a grid of this process alone. ``python`` is the interpreter on workers, which is of
        the same version as this one: ``python3.X`` by default, on a local grid this interpreter. ``result_format`` says
        what calls return, and that nothing that a worker made is unpickled here: ``"json"``, what JSON can express;
        ``"arrow"``, tables, which come as ``pyarrow.Table``; ``"files"``, paths of files below the working directory, which
        come as :class:`Files`. ``open_timeout`` is how long the job
        stays open once this process is gone. ``preload`` names modules that workers have installed, like ``numpy``: an
        interpreter imports them once, and the processes of calls are forked from it. ``mounts`` names folders that calls
        see, read-only: a folder, at its own path, or ``(folder, path)``. They are packed when the first call is sent, and a
        worker fetches each once. If this interpreter is in one of them, as that of a virtual environment, calls run with
        it. A local grid without a sandbox has all folders at their own paths already.
        """
        if max_workers is not None and (isinstance(max_workers, bool) or not isinstance(max_workers, int)):
            raise TypeError(f"max_workers is a number, and not {max_workers!r}")
        if isinstance(preload, str):
            raise TypeError(f"preload is a list of names of modules: preload=[{preload!r}]")
        if max_workers is not None and max_workers <= 0:
            raise ValueError("max_workers must be greater than 0")
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        if result_format not in FORMATS:
            raise ValueError(f"result_format is one of {', '.join(FORMATS)}, and not {result_format!r}")
        if local and grid is None:
            grid = shared_local_grid()
        here = isinstance(grid, LocalGrid)
        # Calls run as this user, and see what this process sees.
        plain = isinstance(grid, LocalGrid) and not grid.sandbox
        trees = _trees(mounts, plain)
        if grid is None:
            grid = Grid(ticket)
        connection = grid.connect() if isinstance(grid, LocalGrid) else grid
        bundle = grid.bundle() if isinstance(grid, LocalGrid) and plain else None
        known = [] if bundle is None else ["cloudpickle", MODULE]
        settings = Settings(
            name=name,
            python=_interpreter(python, plain, trees),
            result_format=result_format,
            open_timeout=open_timeout,
            max_workers=max_workers,
            runtime={"runtime": "python", "preload": [*dict.fromkeys([*_PRELOADED, *known, *preload])]},
            bundle=bundle,
            mounts=trees,
            shared=grid.shared if isinstance(grid, LocalGrid) and plain else None,
        )
        self._engine = Engine(connection, settings, Functions(initializer, initargs))
        self._options = options or CallOptions()
        self._wanted_workers = max_workers
        self._local = here
        self._attached: list[Call] = []
        self._finalizer = weakref.finalize(self, self._engine.begin_shutdown)
        # What is not done when the interpreter ends is waited for elsewhere, after other code had its turn.
        self._finalizer.atexit = False

    @classmethod
    def attach(cls, job: int, **arguments: Any) -> Executor:
        """Takes over the job of an executor of another process, whether that is gone or not.

        The arguments are those of the executor. :attr:`futures` are its calls; more can be submitted while the job is open.
        Raises GridError.
        """
        executor = cls(**arguments)
        executor._attached = executor._engine.attach(job)
        return executor

    @property
    def futures(self) -> list[Call]:
        """The calls that an executor that was attached found, in the order in which they were submitted."""
        return list(self._attached)

    @property
    def job(self) -> int:
        """The number of the job, which is opened if it was not yet: for ``hedge job JOB`` and :meth:`attach`."""
        return self._engine.open()

    @property
    def _max_workers(self) -> int:
        """How many calls run at once; dask reads this."""
        return self._wanted_workers or self._engine.slots()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Call:
        """Has a call run and gives its future. Raises GridError where the grid cannot be reached at the first call."""
        return self._engine.submit(fn, args, kwargs, self._options)

    def call(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Call:
        """Writes a call that is sent later: once it is started, or its result or that of a call that takes it is asked for.

        Calls that take each other's results go to the grid together then, which so knows the whole graph from the start.
        """
        return self._engine.hold(fn, args, kwargs, self._options)

    def picture(self) -> Picture:
        """The calls and how they wait for each other, as a graph for Graphviz. Raises GridError."""
        return draw(self._engine.grid.groups(self.job))

    def options(self, **options: Any) -> WithOptions:
        """The same executor with options for the calls that are submitted through it: see :class:`CallOptions`."""
        return WithOptions(self, CallOptions(**options))

    def put(self, value: object) -> Shared:
        """Writes a value once that is to be an argument of many calls; each worker gets it once."""
        return share(value)

    def flush(self) -> None:
        """Waits until all calls that were submitted are durable on the grid."""
        self._engine.flush()

    def detach(self) -> None:
        """Ends this executor and lets its calls go on: :meth:`attach` takes them over."""
        self._engine.detach()
        self._finalizer.detach()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Takes no more calls. The job ends once its calls have; with ``wait`` that is waited for."""
        self._finalizer.detach()
        self._engine.begin_shutdown(cancel_futures=cancel_futures)
        if wait:
            self._engine.join()

    def __exit__(self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: object) -> None:
        """Waits for the calls, as the standard says; but after Ctrl-C their job goes on, and nothing is waited for."""
        if kind is None or not issubclass(kind, KeyboardInterrupt):
            return self.shutdown(wait=True)
        self._finalizer.detach()
        self._engine.abandon()
        if self._engine.job is not None and not self._local:
            job = self._engine.job
            note = f"job {job} goes on; hedgerow.Executor.attach({job}) takes it over, and `hedge cancel {job}` ends it"
            print(f"hedgerow: {note}", file=sys.stderr)

    def __repr__(self) -> str:
        job = "no job yet" if self._engine.job is None else f"job {self._engine.job}"
        return f"<hedgerow.Executor {self._engine.settings.name!r}, {job}, {self._engine.state.undecided} calls not done>"

    def _repr_html_(self) -> str:
        """For notebooks: the job's state."""
        if self._engine.job is None:
            return html.escape(repr(self))
        try:
            return show_job(self._engine.grid.job(self._engine.job))
        except HedgerowError as error:
            return html.escape(f"{self!r}: {error}")


class WithOptions(BaseExecutor):
    """An executor with options for its calls."""

    def __init__(self, executor: Executor, options: CallOptions) -> None:
        self._executor = executor
        self._options = options

    @property
    def _max_workers(self) -> int:
        return self._executor._max_workers

    @property
    def job(self) -> int:
        """As :attr:`Executor.job`."""
        return self._executor.job

    def options(self, **options: Any) -> WithOptions:
        """The same executor with these options and further ones."""
        return WithOptions(self._executor, replace(self._options, **options))

    def put(self, value: object) -> Shared:
        """As :meth:`Executor.put`."""
        return self._executor.put(value)

    def flush(self) -> None:
        """As :meth:`Executor.flush`."""
        self._executor.flush()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Call:
        """As :meth:`Executor.submit`, with these options."""
        return self._executor._engine.submit(fn, args, kwargs, self._options)

    def call(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Call:
        """As :meth:`Executor.call`, with these options."""
        return self._executor._engine.hold(fn, args, kwargs, self._options)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Shuts the executor down that this one is a view of."""
        self._executor.shutdown(wait, cancel_futures=cancel_futures)


def _trees(mounts: Sequence[MountLike], plain: bool) -> tuple[Mount, ...]:
    """The folders that are to be sent."""
    trees = read_mounts(mounts)
    if not plain:
        return trees
    for mount in trees:
        if mount.at != str(mount.folder):
            raise ValueError(f"a local grid without a sandbox shows no folder at another path: {mount.at}; leave it out")
    return ()


def _interpreter(python: Optional[str], plain: bool, trees: tuple[Mount, ...]) -> str:
    """The interpreter that runs calls."""
    if python is None:
        default = sys.executable if plain else f"python{sys.version_info[0]}.{sys.version_info[1]}"
        python = interpreter(trees) or default
    check_interpreter(python, trees)
    return python


def run(fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    """Runs one call on a grid of this process alone, which is started when it is first needed, and gives its result."""
    with Executor(local=True, name=getattr(fn, "__name__", "call")) as executor:
        return executor.submit(fn, *args, **kwargs).result()


