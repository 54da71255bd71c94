"""The thread that sends: it takes what was submitted meanwhile and adds it to the job with one request."""

from __future__ import annotations

import contextlib
import hashlib
import secrets
import threading
import time
from collections import deque
from typing import Any, Optional

from . import _bundle
from ._call import Call
from ._errors import DependencyFailed, GridError
from ._grid import Grid
from ._options import CallOptions
from ._pickling import Blob, Payload, blob
from ._sizing import HOLD_S, plan
from ._stall import Stall
from ._state import State, Submitted
from ._tasks import Kind, Ready, Settings, Task, label, write_task
from ._trees import bring

#: Calls that are taken up at once: their arguments are in memory twice meanwhile.
_TAKEN_MAX = 10_000
#: Tasks and bytes of files in one request, so that it stays well below the gateway's limit for a body.
_TASKS_MAX = 2_000
_BODY_BYTES_MAX = 16 << 20
#: Kinds of calls beyond which those are forgotten that have no calls.
_KINDS_MAX = 1_000
#: For so long the number of processes that the grid runs at once is taken as known, seconds.
_SLOTS_FOR_S = 10.0


class _Upstream(Exception):
    """A call takes the result of one that failed."""


class Sender:
    """Sends calls as tasks. All methods but :meth:`slots` are for its own thread."""

    def __init__(self, state: State, grid: Grid, settings: Settings, job: int) -> None:
        self._state = state
        self._grid = grid
        self._settings = settings
        self._job = job
        #: Tells the tasks of this client from those of others.
        self._nonce = secrets.token_hex(4)
        self._repeats = 0
        #: Calls that can be sent and are in no task yet.
        self._readies: dict[Call, Ready] = {}
        self._outbox: list[Task] = []
        self._kinds_max = _KINDS_MAX
        self._uploaded: dict[str, str] = {}
        #: Names of files that this machine's workers map, which are not uploaded.
        self._shared: set[str] = set()
        #: The trees of all calls, as files of a submission; none until they were brought to the gateway.
        self._trees: dict[str, dict[str, str]] = {}
        self._bundle = blob(_bundle.worker_bundle())
        self._slots, self._slots_at = 1, float("-inf")
        self._stall = Stall(state, grid, job)
        self.thread = threading.Thread(target=self._loop, name="hedgerow-send", daemon=True)

    def slots(self) -> int:
        """How many processes the grid runs at once."""
        now = time.monotonic()
        if now - self._slots_at >= _SLOTS_FOR_S:
            self._slots_at = now
            live = (worker for worker in self._grid.workers() if worker["liveness"] != "dead")
            self._slots = max(sum(worker["total"]["cpus_milli"] for worker in live) // 1000, 1)
        return min(self._slots, self._settings.max_workers or self._slots)

    # The loop

    def _loop(self) -> None:
        state = self._state
        while True:
            with state.changed:
                state.changed.wait_for(self._has_work, timeout=self._idle_left())
                if state.stopped:
                    return
                if state.closing and state.undecided <= 0:
                    break
                taken = [state.queue.popleft() for _ in range(min(len(state.queue), _TAKEN_MAX))]
                requeued = list(state.requeued)
                state.requeued.clear()
                state.sending = True
                state.replan = False
            self._work(taken, requeued)
            self._stall.look()
            # Nothing here may keep arguments alive while the thread waits.
            del taken, requeued
        with contextlib.suppress(GridError):
            self._grid.close_job(self._job)
        if self._settings.shared is not None:
            self._settings.shared.release(self._shared)
        self._grid.close()
        with state.changed:
            state.stopped = True
            state.changed.notify_all()

    def _work(self, taken: list[Submitted], requeued: list[Ready]) -> None:
        calls = [submitted.call for submitted in taken] + [ready.call for ready in requeued]
        try:
            for ready in requeued:
                self._add(ready)
            taken.reverse()
            while taken:
                self._prepare(taken.pop())
            self._plan()
            self._send(self._outbox)
        except Exception as error:  # noqa: BLE001 - no fault of this package may leave futures undecided
            self._state.fail_all(error)
            left = [call for call in calls if not call.done()]
            self._state.decided(sum(call.fail(error) for call in left))
        finally:
            calls.clear()
            self._outbox = []
            with self._state.changed:
                self._state.sending = False
                self._state.changed.notify_all()

    def _has_work(self) -> bool:
        state = self._state
        over = state.closing and state.undecided <= 0
        return bool(state.queue or state.requeued or state.replan or state.stopped or over)

    def _idle_left(self) -> Optional[float]:
        """How long there is nothing to do from now on unless something happens; None for ever."""
        since = [kind.held_since for kind in self._state.kinds.values() if kind.waits()]
        ends = [self._stall.due()]
        if since and not self._is_full():
            ends.append(min(since) + HOLD_S)
        known = [end for end in ends if end is not None]
        return max(min(known) - time.monotonic(), 0) if known else None

    # Calls

    def _prepare(self, submitted: Submitted) -> None:
        """Takes up a call, unless it cannot be run."""
        call, functions, payload, options, error = submitted
        if call.cancelled():
            return self._drop(call)
        if functions is None or payload is None:
            return self._refuse(call, error or RuntimeError("the call was not written"))
        try:
            self._check_dependencies(payload)
        except _Upstream as failed:
            upstream = DependencyFailed("a call whose result this one takes failed; it was not run")
            upstream.__cause__ = failed.__cause__
            return self._refuse(call, upstream)
        kind = self._kind(functions, options, call.name)
        alone = options.one_process() or bool(payload.blobs or payload.dependencies)
        self._add(Ready(call, kind, payload, alone))

    def _kind(self, functions: Blob, options: CallOptions, name: str) -> Kind:
        key = Kind.key_of(functions, options, name)
        with self._state.changed:
            return self._state.kinds.get(key) or Kind(functions, options, name, key=key)

    def _register(self, kind: Kind) -> Kind:
        """The kind that is known as this one; that is this one where none is. Only those that are known are planned."""
        kinds = self._state.kinds
        if len(kinds) >= self._kinds_max:
            # As where each call has a function of its own.
            for key in [key for key, known in kinds.items() if not known.waits() and known.times.running == 0]:
                del kinds[key]
            self._kinds_max = max(_KINDS_MAX, 2 * len(kinds))
        return kinds.setdefault(kind.key, kind)

    def _check_dependencies(self, payload: Payload) -> None:
        for other in payload.dependencies:
            if other.done() and (other.cancelled() or other.exception() is not None):
                raise _Upstream from (None if other.cancelled() else other.exception())

    def _add(self, ready: Ready) -> None:
        """A call can be sent."""
        ready.call.task = None
        self._readies[ready.call] = ready
        with self._state.changed:
            assert ready.kind is not None
            kind = ready.kind = self._register(ready.kind)
            if not kind.waits():
                kind.held_since = time.monotonic()
            kind.queue(ready.alone).append(ready)

    def _drop(self, call: Call) -> None:
        """A call was cancelled before it was sent."""
        call.set_running_or_notify_cancel()
        self._state.decided(1)

    def _refuse(self, call: Call, error: BaseException) -> None:
        if not call.running() and not call.set_running_or_notify_cancel():
            return self._state.decided(1)
        self._state.decided(int(call.fail(error)))

    # Tasks

    def _plan(self) -> None:
        """Puts calls into tasks, but for those that are held back."""
        with self._state.changed:
            kinds = [kind for kind in self._state.kinds.values() if kind.waits()]
        slots = self.slots() if kinds else 1
        for kind in kinds:
            if not self._is_full():
                self._plan_kind(kind, slots)

    def _plan_kind(self, kind: Kind, slots: int) -> None:
        """Puts calls of a kind into tasks. Touches only those calls, however many wait."""
        while not self._is_full() and (first := self._take(kind.ready_alone, 1)):
            self._assign(first)
        now = time.monotonic()
        sizes = plan(len(kind.ready), kind.times, slots, now - kind.held_since, self._room())
        for size in sizes:
            taken = self._take(kind.ready, size)
            self._assign_runs(taken)
            left = [ready for ready in taken if ready.call in self._readies]
            if left:
                with self._state.changed:
                    kind.ready.extendleft(reversed(left))
                break
        with self._state.changed:
            for queue in (kind.ready_alone, kind.ready):
                # They went along with calls that take their results.
                while queue and queue[0].call not in self._readies:
                    queue.popleft()
            if sizes and kind.waits():
                kind.held_since = now

    def _take(self, queue: deque[Ready], count: int) -> list[Ready]:
        """Takes the oldest calls that are in no task and were not cancelled, so many at most."""
        taken: list[Ready] = []
        while len(taken) < count:
            with self._state.changed:
                oldest = [queue.popleft() for _ in range(min(count - len(taken), len(queue)))]
            if not oldest:
                break
            for ready in oldest:
                if ready.call not in self._readies:
                    continue
                if ready.call.cancelled():
                    del self._readies[ready.call]
                    self._drop(ready.call)
                else:
                    taken.append(ready)
        return taken

    def _room(self) -> Optional[int]:
        """How many processes more may run calls; None for any number."""
        limit = self._settings.max_workers
        with self._state.changed:
            return None if limit is None else limit - len(self._state.tasks) - len(self._outbox)

    def _is_full(self) -> bool:
        """Whether no process more may run calls."""
        room = self._room()
        return room is not None and room <= 0

    def _assign_runs(self, readies: list[Ready]) -> None:
        """Makes a task of each run of consecutive numbers, which its label can name."""
        run: list[Ready] = []
        for ready in readies:
            if run and ready.call.number != run[-1].call.number + 1:
                if self._is_full():
                    return
                self._assign(run)
                run = []
            run.append(ready)
        if run and not self._is_full():
            self._assign(run)

    def _assign(self, readies: list[Ready]) -> None:
        """Makes a task of these calls, and before it of those whose results they take."""
        running = []
        for ready in readies:
            call = ready.call
            if self._readies.pop(call, None) is None:
                continue
            if (ready.sent and call.running()) or call.set_running_or_notify_cancel():
                running.append(ready)
            else:
                self._state.decided(1)
        if not running:
            return
        if len(running) > 1 and running[-1].call.number - running[0].call.number >= len(running):
            for ready in running:
                self._readies[ready.call] = ready
            return self._assign_runs(running)
        waits_for = []
        for ready in running:
            assert ready.payload is not None
            for other in ready.payload.dependencies:
                if other.task is None and other in self._readies:
                    self._assign([self._readies[other]])
                waits_for.append(other.task)
        kind = running[0].kind
        assert kind is not None
        name = label(kind.name, self._nonce, running[0].call.number, len(running), self._next_repeat(running))
        for ready in running:
            ready.call.task = name
        self._outbox.append(Task(name, kind, running, [other for other in waits_for if other is not None]))

    def _next_repeat(self, readies: list[Ready]) -> int:
        """0 for calls that are sent for the first time; else a number that makes their label a new one."""
        if not any(ready.sent for ready in readies):
            for ready in readies:
                ready.sent = True
            return 0
        self._repeats += 1
        return self._repeats

    # Requests

    def _send(self, tasks: list[Task]) -> None:
        """Adds tasks to the job, as many in one request as fit into it."""
        part: list[Task] = []
        size = 0
        for task in tasks:
            weight = sum(len(ready.payload.pickle) for ready in task.calls if ready.payload is not None)
            if part and (len(part) >= _TASKS_MAX or size + weight > _BODY_BYTES_MAX):
                self._extend(part)
                part, size = [], 0
            part.append(task)
            size += weight
        if part:
            self._extend(part)

    def _extend(self, tasks: list[Task]) -> None:
        with self._state.changed:
            for task in tasks:
                self._state.tasks[task.label] = task
                assert task.kind is not None
                task.kind.times.running += 1
        try:
            self._request(tasks)
            for task in tasks:
                task.written = None
            self._state.moved_at = time.monotonic()
            # A call that was cancelled meanwhile had no task yet that could be cancelled.
            over = [task.label for task in tasks if all(ready.call.done() for ready in task.calls)]
            if over:
                self._grid.cancel_tasks(self._job, over)
        except GridError as error:
            if error.kind == "unknown" and (self._uploaded or self._trees):
                # The gateway is another one, and does not have what was uploaded.
                self._uploaded.clear()
                self._trees.clear()
                left = self._retract(tasks)
                return self._extend(left) if left else None
            if error.kind == "bad" and len(tasks) > 1:
                # One of them is refused, and takes the others along.
                for task in self._retract(tasks):
                    self._extend([task])
                return
            for task in self._retract(tasks):
                self._state.decided(sum(ready.call.fail(error) for ready in task.calls))

    def _request(self, tasks: list[Task]) -> None:
        settings = self._settings
        written: list[Any] = []
        files: dict[str, Any] = {}
        if settings.bundle is None:
            files[_bundle.NAME] = self._file(self._bundle)
        if settings.mounts:
            self._trees = self._trees or bring(self._grid, settings.mounts)
            files.update(self._trees)
        for task in tasks:
            assert task.kind is not None
            blobs = [known for ready in task.calls if ready.payload is not None for known in ready.payload.blobs]
            for known in blobs:
                self._share(known)
            if task.written is None:
                # A request that is repeated has to say the same.
                task.written = write_task(task, settings, self._shared)
            table, own = task.written
            written.append(table)
            files.update(own)
            for known in [task.kind.functions, *blobs]:
                if known.name not in files and known.name not in self._shared:
                    files[known.name] = self._file(known)
        # The same tasks have the same key, so that repeating the request adds nothing, whatever came of the first one.
        labels = "\n".join(task.label for task in tasks)
        key = hashlib.blake2b(labels.encode(), digest_size=16).hexdigest()
        self._grid.extend(self._job, written, files, key)

    def _share(self, known: Blob) -> None:
        """Writes an argument where this machine's workers find it, if they share files and it is large."""
        shared = self._settings.shared
        if shared is None or known.name in self._shared or known.name in self._uploaded:
            return
        if shared.hold(known):
            self._shared.add(known.name)

    def _file(self, known: Blob) -> dict[str, str]:
        found = self._uploaded.get(known.name)
        if found is None:
            found = self._uploaded[known.name] = self._grid.upload(known.content)
        return {"blake3": found}

    def _retract(self, tasks: list[Task]) -> list[Task]:
        """Tasks are not part of the job: gives those whose calls are not decided."""
        with self._state.changed:
            left = [task for task in tasks if self._state.tasks.pop(task.label, None) is not None]
            for task in left:
                assert task.kind is not None
                task.kind.times.running -= 1
        return left
