"""The work behind an executor, which knows nothing of it, so that the executor can be collected."""

from __future__ import annotations

import os
import secrets
import threading
import weakref
from collections.abc import Sequence
from typing import Any, Callable, Optional

from ._call import Call, name_of
from ._errors import GridError
from ._grid import Grid
from ._options import CallOptions
from ._pickling import Blob, Functions, Payload, write_call
from ._receiving import Receiver
from ._sending import Sender
from ._state import State, Submitted
from ._tasks import Ready, Settings, Task, parse_label


class Engine:
    """Takes calls for one open job, with a thread that sends and one that receives."""

    def __init__(self, grid: Grid, settings: Settings, functions: Functions) -> None:
        self.grid = grid
        self.settings = settings
        self.state = State(grid)
        self._functions = functions
        self._process = os.getpid()
        self._opening = threading.Lock()
        self._sender: Optional[Sender] = None
        self._receiver: Optional[Receiver] = None

    @property
    def job(self) -> Optional[int]:
        """The number of the job; None until it is opened."""
        return self.state.job

    def open(self) -> int:
        """Opens the job and starts the threads where that has not happened. Raises GridError."""
        with self._opening:
            if self.job is None:
                # Each failure is told by the future of a call.
                qos = {"open_timeout": self.settings.open_timeout, "tolerate_failures": True}
                job = {"name": self.settings.name, "qos": qos}
                self._start(self.grid.open_job(job, secrets.token_hex(16)))
            assert self.job is not None
            return self.job

    def attach(self, job: int) -> list[Call]:
        """Takes over a job; gives its calls in the order in which they were submitted."""
        calls: dict[tuple[str, int], Call] = {}
        groups = list(self.grid.groups(job))
        for group in groups:
            parsed = parse_label(group["id"])
            if parsed is None:
                continue
            name, nonce, first, count = parsed
            readies = []
            for number in range(first, first + count):
                call = calls.get((nonce, number))
                if call is None:
                    call = calls[nonce, number] = Call(self, number, name)
                    call.set_running_or_notify_cancel()
                call.task = group["id"]
                readies.append(Ready(call, None, None, alone=True, sent=True))
                self.state.numbers = max(self.state.numbers, number + 1)
            waits_for = [groups[at]["id"] for at in group["waits_for"]]
            self.state.tasks[group["id"]] = Task(group["id"], None, readies, waits_for)
        self.state.undecided = len(calls)
        self._start(job)
        # Tasks are in the order in which they were sent, which is another one where calls share processes.
        return [call for _, call in sorted(calls.items(), key=lambda entry: (entry[0][1], entry[0][0]))]

    def submit(
        self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], options: CallOptions
    ) -> Call:
        """Takes a call. Raises RuntimeError after the shutdown, and what broke the executor."""
        submitted = self._written(function, args, kwargs, options)
        state = self.state
        with state.changed:
            self._check_open()
            order = self._in_order(submitted) if submitted.payload and submitted.payload.dependencies else [submitted]
            self._enqueue(order)
        return submitted.call

    def hold(
        self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], options: CallOptions
    ) -> Call:
        """Writes a call that is sent once it is started. Raises as :meth:`submit` does."""
        submitted = self._written(function, args, kwargs, options)
        submitted.call.held = submitted
        return submitted.call

    def start(self, call: Call) -> None:
        """Takes a call that was held, with all whose results it takes, at once. Raises as :meth:`submit` does."""
        with self.state.changed:
            if call.held is not None:
                self._check_open()
                self._enqueue(self._in_order(call.held))

    def _written(
        self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], options: CallOptions
    ) -> Submitted:
        if self._process != os.getpid():
            raise RuntimeError("this executor belongs to the process that made it; make another one in this process")
        state = self.state
        if self.job is None and not state.closing:
            self.open()
        with state.changed:
            self._check_open()
            call = Call(self, state.numbers, name_of(function))
            state.numbers += 1
        # Here and not by the sender, because the caller may change the arguments afterwards.
        functions, payload, error = self._write(function, args, kwargs)
        return Submitted(call, functions, payload, options, error)

    @staticmethod
    def _in_order(last: Submitted) -> list[Submitted]:
        """A call behind all calls whose results it takes and that are held."""
        order: list[Submitted] = []
        seen: set[Call] = set()
        stack = [(last, False)]
        while stack:
            submitted, upstream_is_in = stack.pop()
            if upstream_is_in:
                order.append(submitted)
                continue
            if submitted.call in seen:
                continue
            seen.add(submitted.call)
            stack.append((submitted, True))
            if submitted.payload is not None:
                held = (other.held for other in reversed(submitted.payload.dependencies))
                stack.extend((other, False) for other in held if other is not None)
        return order

    def _enqueue(self, order: list[Submitted]) -> None:
        state = self.state
        idle = not state.queue
        for submitted in order:
            submitted.call.held = None
        state.undecided += len(order)
        state.queue.extend(order)
        if idle:
            state.changed.notify_all()

    def _check_open(self) -> None:
        if self.state.broken is not None:
            raise self.state.broken
        if self.state.closing:
            raise RuntimeError("cannot schedule new futures after shutdown")

    def _write(
        self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Optional[Blob], Optional[Payload], Optional[BaseException]]:
        """Writes a call's function and arguments, or gives why that is impossible, which is for its future."""
        try:
            functions = self._functions.of(function)
            payload = write_call(function if functions is None else None, args, kwargs, self._number_of)
            return functions or self._functions.none(), payload, None
        except Exception as error:  # noqa: BLE001 - whatever pickling raises is the caller's to see
            return None, None, error

    def _number_of(self, future: Any) -> Optional[int]:
        known = isinstance(future, Call) and future.state is self.state
        return future.number if known else None

    def flush(self) -> None:
        """Waits until all calls that were submitted are durable, a second at most. Raises what broke the executor."""
        state = self.state
        with state.changed:
            state.changed.wait_for(lambda: state.broken is not None or not state.unsent())
            if state.broken is not None:
                raise state.broken

    def on_cancelled(self) -> None:
        """A call was cancelled before it was sent."""
        self.state.wake()

    def cancel_sent(self, call: Call) -> bool:
        """Cancels a call that was sent; ends its process unless others share it."""
        if not call.end_cancelled():
            return call.cancelled()
        self.state.decided(1)
        with self.state.changed:
            task = self.state.tasks.get(call.task or "")
            over = task is not None and all(ready.call.done() for ready in task.calls)
        if over and task is not None and self.job is not None:
            try:
                self.grid.cancel_tasks(self.job, [task.label])
            except GridError as error:
                # The request that adds the task is under way: the sender cancels it behind that.
                if error.kind != "unknown":
                    raise
        return True

    def begin_shutdown(self, *, cancel_futures: bool = False) -> None:
        """Takes no more calls; the job is closed once those that it has are decided."""
        with self.state.changed:
            self.state.closing = True
            self.state.changed.notify_all()
        if cancel_futures and self._sender is not None and self.job is not None:
            self._cancel_waiting(self._sender, self.job)

    def _cancel_waiting(self, sender: Sender, job: int) -> None:
        """Cancels calls, but for the oldest ones: as many as the grid runs at once count as running."""
        waiting = [task["task"] for task in self.grid.tasks(job, "waiting")]
        with self.state.changed:
            waiting = [task for task in waiting if task in self.state.tasks]
            free = max(sender.slots() - (len(self.state.tasks) - len(waiting)), 0)
            unsent = self.state.unsent_calls()
        if waiting[free:]:
            self.grid.cancel_tasks(job, waiting[free:])
        for call in unsent[max(free - len(waiting), 0) :]:
            call.cancel()

    def join(self) -> None:
        """Waits until all calls are decided and the job is closed."""
        if self._process != os.getpid():
            return
        sender, receiver = self._sender, self._receiver
        if sender is not None and threading.current_thread() not in (sender.thread, receiver and receiver.thread):
            sender.thread.join()
            assert receiver is not None
            receiver.close()
            receiver.thread.join()

    def detach(self) -> None:
        """Ends without the calls, which go on: another process may attach to the job. Raises as :meth:`flush` does."""
        self.flush()
        with self.state.changed:
            self.state.closing = self.state.stopped = True
            self.state.changed.notify_all()
        self.join()

    def abandon(self) -> None:
        """Ends without waiting for anything; calls that were not sent are lost."""
        with self.state.changed:
            self.state.closing = self.state.stopped = True
            self.state.changed.notify_all()
        if self._receiver is not None:
            self._receiver.close()
        _running.discard(self)

    def slots(self) -> int:
        """How many processes the grid runs at once. Raises GridError."""
        self.open()
        assert self._sender is not None
        return self._sender.slots()

    def preload(self, modules: Sequence[str]) -> None:
        """Has interpreters import these modules too before the processes of calls that are sent from now on are forked."""
        known = self.settings.runtime["preload"]
        new = [module for module in modules if module not in known]
        if new:
            # In one step, because the sender reads it.
            self.settings.runtime["preload"] = [*known, *new]

    def _start(self, job: int) -> None:
        self.state.job = job
        self._sender = Sender(self.state, self.grid, self.settings, job)
        self._receiver = Receiver(self.state, self.grid, self.settings, job)
        self._sender.thread.start()
        self._receiver.thread.start()
        _running.add(self)


_running: weakref.WeakSet[Engine] = weakref.WeakSet()


def _finish_all() -> None:
    """Before the interpreter ends, what was submitted is waited for, as it is by the executors of the standard library."""
    engines = list(_running)
    for engine in engines:
        engine.begin_shutdown()
    for engine in engines:
        engine.join()


_at_exit: Any = getattr(threading, "_register_atexit", None)
if _at_exit is not None:
    _at_exit(_finish_all)

