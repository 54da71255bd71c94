"""A call: the future that its caller has."""

from __future__ import annotations

from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Callable, Optional, TypeVar

from ._pickling import Referred

if TYPE_CHECKING:
    from ._engine import Engine
    from ._state import State

T = TypeVar("T")

_OVER = ("CANCELLED", "CANCELLED_AND_NOTIFIED", "FINISHED")


class Call(Future, Referred):  # type: ignore[type-arg]
    """A future of a call on a grid. As an argument of another call it stands for its result.

    ``task`` is the label of the task that runs it, for ``hedge explain JOB TASK`` and ``hedge logs JOB TASK``; None until it
    was sent.
    """

    def __init__(self, engine: Engine, number: int) -> None:
        super().__init__()
        self._engine: Optional[Engine] = engine
        #: Tells the executor's calls from those of others.
        self.state: State = engine.state
        self.number = number
        self.task: Optional[str] = None

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
