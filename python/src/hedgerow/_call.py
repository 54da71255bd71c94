"""A call: the future that its caller has."""

from __future__ import annotations

from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Callable, Optional, TypeVar

from ._outcomes import Stored
from ._pickling import Referred

if TYPE_CHECKING:
    from ._engine import Engine
    from ._state import State, Submitted

T = TypeVar("T")

_OVER = ("CANCELLED", "CANCELLED_AND_NOTIFIED", "FINISHED")


class Call(Future, Referred):  # type: ignore[type-arg]
    """A future of a call on a grid. As an argument of another call it stands for its result.

    ``name`` is that of its function. ``task`` is the label of the task that runs it, for ``hedge explain JOB TASK`` and
    ``hedge logs JOB TASK``; None until it was sent.
    """

    def __init__(self, engine: Engine, number: int, name: str) -> None:
        super().__init__()
        self._engine: Optional[Engine] = engine
        #: Tells the executor's calls from those of others.
        self.state: State = engine.state
        self.number = number
        self.name = name
        self.task: Optional[str] = None
        #: The call as it was written, until it is started.
        self.held: Optional[Submitted] = None

    def start(self) -> Call:
        """Sends a call of ``Executor.call``, with all whose results it takes, at once. Others are sent already.

        Raises RuntimeError after the executor's shutdown.
        """
        engine = self._engine
        if engine is not None and self.held is not None:
            engine.start(self)
        return self

    def result(self, timeout: Optional[float] = None) -> Any:
        """What the call returned; raises what it raised, and as the base class does. Starts it where that is left."""
        self.start()
        value = super().result(timeout)
        return value.value() if isinstance(value, Stored) else value

    def exception(self, timeout: Optional[float] = None) -> Optional[BaseException]:
        """What the call raised. Starts it where that is left."""
        self.start()
        return super().exception(timeout)

    def add_done_callback(self, fn: Callable[[Any], Any]) -> None:
        """As the base class. Starts the call where that is left."""
        self.start()
        super().add_done_callback(fn)

    def log(self) -> str:
        """What the call has printed so far, to its standard output and then to its error output; with the calls that
        share its process. Raises GridError.
        """
        if self.task is None:
            return ""
        return self.state.log(self.task)

    def cancel(self, *, force: bool = False) -> bool:
        """Cancels a call that was not sent yet; with ``force`` also one that waits or runs on the grid.

        The process of a call that has one for itself is ended at once. True if the call is cancelled.
        """
        engine = self._engine
        if super().cancel():
            if engine is not None:
                engine.on_cancelled()
            return True
        if not force or engine is None or self.done():
            return self.cancelled()
        return engine.cancel_sent(self)

    def __reduce__(self) -> Any:
        raise TypeError("a future of a grid cannot be pickled; as an argument of a call of its executor it can")

    def __repr__(self) -> str:
        if self.held is not None:
            place = "not started"
        else:
            task = "" if self.task is None else f" as task {self.task} of job {self.state.job}"
            place = f"{_WORDS.get(str(getattr(self, '_state', '')), 'over')}{task}"
        return f"<hedgerow.Call {self.name}, {place}>"

    # For the engine: each says whether it decided the call.

    def finish(self, value: object) -> bool:
        """The call returned."""
        return self._decide(self.set_result, value)

    def fail(self, error: BaseException) -> bool:
        """The call raised, or cannot be run."""
        return self._decide(self.set_exception, error)

    def _decide(self, decide: Callable[[Any], None], outcome: object) -> bool:
        self._engine = None
        try:
            decide(outcome)
        except Exception:  # noqa: BLE001 - it was cancelled meanwhile
            return False
        return True

    def end_cancelled(self) -> bool:
        """The call was cancelled while it was on the grid. The base class knows no way from running to cancelled."""
        this: Any = self
        with this._condition:
            if this._state in _OVER:
                return False
            this._state = "CANCELLED_AND_NOTIFIED"
            for waiter in this._waiters:
                waiter.add_cancelled(this)
            this._condition.notify_all()
        this._invoke_callbacks()
        return True


#: States of the base class in other words. A call that was sent counts as running there.
_WORDS = {
    "PENDING": "waits to be sent",
    "RUNNING": "on the grid",
    "CANCELLED": "cancelled",
    "CANCELLED_AND_NOTIFIED": "cancelled",
    "FINISHED": "over",
}


def name_of(function: Any) -> str:
    """A name for calls of a function, for people."""
    while hasattr(function, "func") and not hasattr(function, "__name__"):
        # A functools.partial.
        function = function.func
    return str(getattr(function, "__name__", None) or type(function).__name__)
