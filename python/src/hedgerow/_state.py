"""What the threads of an executor share, under one lock."""

from __future__ import annotations

import threading
from collections import deque
from typing import Any, NamedTuple, Optional

from ._call import Call
from ._errors import GridError
from ._grid import Grid
from ._options import CallOptions
from ._pickling import Blob, Payload
from ._tasks import Kind, Ready, Task


class Submitted(NamedTuple):
    """A call as it was written when it was submitted."""

    call: Call
    functions: Optional[Blob]
    #: None where it could not be written.
    payload: Optional[Payload]
    options: CallOptions
    error: Optional[BaseException]


class State:
    """The calls of an executor that are not decided, and where each of them is."""

    def __init__(self, grid: Grid) -> None:
        self.grid = grid
        #: The number of the job; None until it is opened.
        self.job: Optional[int] = None
        #: Guards everything here, and is notified of each change that a thread may wait for.
        self.changed = threading.Condition()
        self.queue: deque[Submitted] = deque()
        #: Kinds of calls, by function and options.
        self.kinds: dict[Any, Kind] = {}
        #: Calls that have to be sent again.
        self.requeued: deque[Ready] = deque()
        #: Whether the sender has calls in hand: those that it took just now, or that it had held back.
        self.sending = False
        #: Tasks that were sent and have not ended, by label.
        self.tasks: dict[str, Task] = {}
        self.numbers = 0
        #: Calls that are not decided.
        self.undecided = 0
        #: No more calls are taken.
        self.closing = False
        #: The threads end.
        self.stopped = False
        #: What every call fails with from now on.
        self.broken: Optional[BaseException] = None
        #: Whether calls that are held back are to be looked at again.
        self.replan = False
        #: When a task ended or was sent the last time, seconds of the monotonic clock.
        self.moved_at = 0.0

    def log(self, task: str) -> str:
        """What a task has printed. Raises GridError."""
        if self.job is None:
            raise GridError("unknown", "no job was opened")
        return self.grid.log(self.job, task)

    def wake(self) -> None:
        """Has the sender look again at the calls that are held back."""
        with self.changed:
            self.replan = True
            self.changed.notify_all()

    def decided(self, count: int) -> None:
        """So many calls more are decided."""
        with self.changed:
            self.undecided -= count
            if self.undecided <= 0:
                self.changed.notify_all()

    def unsent(self) -> bool:
        """Whether calls are not on the grid yet."""
        return bool(self.queue or self.requeued or self.sending or any(kind.waits() for kind in self.kinds.values()))

    def unsent_calls(self) -> list[Call]:
        """These calls, but for those that the sender has in hand."""
        with self.changed:
            calls = [submitted.call for submitted in self.queue]
            calls += [ready.call for ready in self.requeued]
            kinds = self.kinds.values()
            return calls + [ready.call for kind in kinds for ready in (*kind.ready_alone, *kind.ready)]

    def fail_all(self, error: BaseException) -> None:
        """Fails all calls that are not decided; no more are taken."""
        with self.changed:
            self.broken = self.broken or error
            calls = self.unsent_calls() + [ready.call for task in self.tasks.values() for ready in task.calls]
            self.queue.clear()
            self.requeued.clear()
            self.tasks.clear()
            for kind in self.kinds.values():
                kind.ready.clear()
                kind.ready_alone.clear()
            self.changed.notify_all()
        self.decided(sum(call.fail(error) for call in calls))
