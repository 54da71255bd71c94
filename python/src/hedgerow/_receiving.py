"""The thread that receives: it reads the ends of tasks as they come, and decides the futures of their calls."""

from __future__ import annotations

import base64
import contextlib
import functools
import threading
import time
from collections import deque
from concurrent.futures import BrokenExecutor
from typing import Any, Optional

from ._errors import CallFailed, DependencyFailed, GridError, HedgerowError, JobEnded
from ._grid import Grid
from ._options import CallOptions
from ._outcomes import Stored, error_of
from ._pickling import Payload, blob
from ._sizing import SHORT_S
from ._state import State
from ._tasks import Kind, Ready, Settings, Task, results_file, values_file
from ._values import Outcome, load, unpack_outcomes

#: Results that are fetched at once.
_FETCHES_MAX = 4
#: Words for what happened to a task, where its own reason needs some.
_HINTS = {
    "not-started": "; name the interpreter that workers have with the argument `python` of the executor",
    "memory-limit": "; allow more with options(memory=…)",
    "time-limit": "; allow more with options(time_limit=…)",
}


class Receiver:
    """Decides the futures of calls."""

    def __init__(self, state: State, grid: Grid, settings: Settings, job: int) -> None:
        self._state = state
        self._grid = grid
        self._settings = settings
        self._job = job
        self._ends = grid.ends(job)
        self._fetches: deque[tuple[Task, dict[str, Any]]] = deque()
        self._fetching = 0
        self.thread = threading.Thread(target=self._loop, name="hedgerow-receive", daemon=True)

    def close(self) -> None:
        """Ends the thread, which waits for the grid."""
        self._ends.close()

    def _loop(self) -> None:
        try:
            for end in self._ends:
                if self._state.stopped:
                    return
                self._on_end(end)
            if self._ends.over and not self._state.stopped:
                self._on_over()
        except Exception as error:  # noqa: BLE001 - no fault of this package may leave futures undecided
            if not self._state.stopped:
                self._state.fail_all(error)

    def _on_over(self) -> None:
        """The job has ended: what is not decided by now, or about to be fetched, never is."""
        with self._state.changed:
            self._state.changed.wait_for(lambda: self._fetching == 0 and not self._fetches)
            left = self._state.undecided > 0
        if left:
            with contextlib.suppress(GridError):
                view = self._grid.job(self._job)
                why = f"job {self._job} is {view['state']}: {view.get('why') or 'it was ended'}"
                return self._state.fail_all(JobEnded(f"{why}; the call was not run to its end"))
            self._state.fail_all(JobEnded(f"job {self._job} has ended; the call was not run to its end"))

    # Tasks

    def _on_end(self, end: dict[str, Any]) -> None:
        with self._state.changed:
            task = self._state.tasks.get(end["task"])
            if task is None or task.fetched:
                # It is none of ours, or known already.
                return
            del self._state.tasks[task.label]
            self._state.moved_at = time.monotonic()
            if task.kind is not None:
                task.kind.times.running -= 1
                if task.kind.waits() or self._settings.max_workers is not None:
                    self._state.replan = True
                    self._state.changed.notify_all()
        if end["end"] != "done":
            return self._on_failed(task, end["end"], end["why"])
        files = {file["path"]: file for file in end["files"]}
        file, task.values = files.get(results_file(task.label)), files.get(values_file(task.label))
        if file is None:
            return self._settle_all(task, HedgerowError(f"task {task.label} left no outcomes of its calls"))
        if file["base64"] is not None:
            return self._on_outcomes(task, bytearray(base64.b64decode(file["base64"])))
        with self._state.changed:
            # Until it is decided the task is known, so that everything finds its calls.
            self._state.tasks[task.label] = task
            task.fetched = True
            self._fetches.append((task, file))
            if self._fetching >= _FETCHES_MAX:
                return
            self._fetching += 1
        threading.Thread(target=self._fetch_loop, name="hedgerow-fetch", daemon=True).start()

    def _fetch_loop(self) -> None:
        while True:
            with self._state.changed:
                if not self._fetches or self._state.stopped:
                    self._fetching -= 1
                    self._state.changed.notify_all()
                    return
                task, file = self._fetches.popleft()
            try:
                content = self._grid.download(self._job, task.label, file)
            except Exception as error:  # noqa: BLE001 - whatever happens, the calls are decided
                self._forget(task)
                self._settle_all(task, error)
            else:
                self._forget(task)
                self._on_outcomes(task, content)
            del task, file

    def _forget(self, task: Task) -> None:
        with self._state.changed:
            self._state.tasks.pop(task.label, None)

    def _on_failed(self, task: Task, kind: str, why: str) -> None:
        if kind == "cancelled":
            self._state.decided(sum(ready.call.end_cancelled() for ready in task.calls))
            cause: Optional[BaseException] = None
        elif len(task.calls) > 1 and all(ready.payload is not None for ready in task.calls):
            # One of them ended the process: by themselves the others do not fail with it.
            return self._requeue(task.calls)
        else:
            cause = self._call_failed(task, task.calls[0], kind, why)
            self._settle_all(task, cause)
        self._fail_dependents(task, cause)

    def _call_failed(self, task: Task, ready: Ready, kind: str, why: str) -> CallFailed:
        hint = "" if kind == "not-started" and "preload" in why else _HINTS.get(kind, "")
        where = f"the future's log() has what it printed, and so has `hedge logs {self._job} {task.label}`"
        return CallFailed(kind, f"{ready.call.name}: {why}{hint}; {where}")

    def _fail_dependents(self, failed: Task, cause: Optional[BaseException]) -> None:
        """Tasks that wait for one that failed never start."""
        with self._state.changed:
            waiting = [task for task in self._state.tasks.values() if failed.label in task.waits_for]
            for task in waiting:
                del self._state.tasks[task.label]
                if task.kind is not None:
                    task.kind.times.running -= 1
        for task in waiting:
            error = DependencyFailed("a call whose result this one takes failed; it was not run")
            error.__cause__ = cause
            self._settle_all(task, error)
            self._fail_dependents(task, error)

    def _settle_all(self, task: Task, error: BaseException) -> None:
        self._state.decided(sum(ready.call.fail(error) for ready in task.calls))

    def _requeue(self, readies: list[Ready], alone: bool = True) -> None:
        with self._state.changed:
            for ready in readies:
                ready.alone = ready.alone or alone
                self._state.requeued.append(ready)
            self._state.changed.notify_all()

    # Outcomes

    def _on_outcomes(self, task: Task, content: bytearray) -> None:
        try:
            outcomes, functions = unpack_outcomes(content)
        except (ValueError, KeyError, IndexError) as error:
            why = f"what task {task.label} left are no outcomes of calls: {error}"
            return self._settle_all(task, HedgerowError(why))
        calls = {ready.call.number: ready for ready in task.calls}
        decided = 0
        for outcome in outcomes:
            ready = calls.pop(outcome.call, None)
            if ready is None:
                continue
            if outcome.kind == "returned":
                self._on_returned(task, ready, outcome, functions)
            else:
                decided += self._decide(task, ready, outcome)
        if calls:
            silent = HedgerowError(f"task {task.label} said nothing of this call; it was not run to its end")
            decided += sum(ready.call.fail(silent) for ready in calls.values())
        self._state.decided(decided)

    def _decide(self, task: Task, ready: Ready, outcome: Outcome) -> bool:
        if ready.kind is not None and outcome.kind in ("ok", "error"):
            with self._state.changed:
                ready.kind.times.note(outcome.seconds)
        if outcome.kind == "stored":
            return self._store(task, ready)
        if outcome.kind == "crashed":
            why = bytes(outcome.parts[0]).decode(errors="replace")
            return ready.call.fail(self._call_failed(task, ready, "signalled", why))
        if outcome.kind != "ok":
            error = error_of(outcome, self._settings.result_format)
            if isinstance(error, BrokenExecutor) and outcome.kind in ("initializer", "python"):
                self._break_later(error)
            return ready.call.fail(error)
        try:
            value = load(outcome.parts, self._settings.result_format)
        except BaseException as error:  # noqa: BLE001 - whatever unpickling raises is the caller's to see
            return ready.call.fail(error)
        return ready.call.finish(value)

    def _store(self, task: Task, ready: Ready) -> bool:
        """The value of a call stays where it is until it is asked for."""
        values = task.values
        if values is None:
            return ready.call.fail(HedgerowError(f"task {task.label} did not say where the value of this call is"))
        if values["base64"] is not None:
            content = bytearray(base64.b64decode(values["base64"]))
            return ready.call.finish(Stored(lambda: content, self._settings.result_format))
        fetch = functools.partial(self._grid.download, self._job, task.label, values)
        return ready.call.finish(Stored(fetch, self._settings.result_format))

    def _break_later(self, error: BaseException) -> None:
        """All calls would fail with this: those that are not decided do, once this task is dealt with."""
        threading.Thread(target=self._state.fail_all, args=(error,), name="hedgerow-break", daemon=True).start()

    def _on_returned(self, task: Task, ready: Ready, outcome: Outcome, functions: Optional[memoryview]) -> None:
        """A call was not run, or took too long beside others: it is sent again."""
        slow = outcome.seconds > 0
        if ready.kind is not None:
            if slow:
                with self._state.changed:
                    ready.kind.times.note(max(outcome.seconds, 2 * SHORT_S))
            return self._requeue([ready], alone=slow)
        with self._state.changed:
            others = self._state.tasks.values()
            if any(ready.call is known.call for other in others for known in other.calls):
                # The client that sent it has sent it again.
                return
        # Another client's: the worker gave back what is needed to send it again.
        known = blob(bytes(functions or b""))
        again = Ready(ready.call, Kind(known, CallOptions(), ready.call.name), Payload(bytes(outcome.parts[0]), [], [], []), alone=True)
        again.sent = True
        self._requeue([again])

