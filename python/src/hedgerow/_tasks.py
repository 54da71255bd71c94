"""Tasks of a job as the executor makes them: their names, and how they are written as a job file."""

from __future__ import annotations

import base64
import os
import re
import sys
from collections import deque
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any, Optional

from . import _bundle
from ._call import Call
from ._options import CallOptions
from ._pickling import Blob, Payload
from ._shared import SharedFiles
from ._sizing import CallTimes
from ._trees import Mount, tables
from ._values import pack

#: Packed calls up to this size, in Base64, are the task's standard input, bytes: it costs no file.
_STDIN_BYTES = 12_000
_LABEL = re.compile(r"([A-Za-z0-9_]+)-([0-9a-f]{8})-(\d+)-(\d+)(?:-\d+)?")
#: Longest name of a function in a label.
_NAME_MAX = 40


@dataclass(frozen=True)
class Settings:
    """What holds for all calls of an executor."""

    name: str
    python: str
    #: One of ``_values.FORMATS``.
    result_format: str
    open_timeout: str
    #: How many processes have calls at once, where the user says so.
    max_workers: Optional[int]
    #: Further keys of each task.
    runtime: dict[str, Any]
    #: A folder of workers with what is in the file of ``_bundle``, which is brought to them where this is None.
    bundle: Optional[str] = None
    #: Folders that calls see.
    mounts: tuple[Mount, ...] = ()
    #: Where workers find large arguments; None where these are brought to them.
    shared: Optional[SharedFiles] = None


@dataclass
class Kind:
    """Calls of one function with the same options."""

    functions: Blob
    options: CallOptions
    #: The name of the function.
    name: str
    times: CallTimes = field(default_factory=CallTimes)
    #: Calls that were not sent yet, oldest first: those that may share a process, and those that have one of their own.
    ready: deque[Ready] = field(default_factory=deque)
    ready_alone: deque[Ready] = field(default_factory=deque)
    #: Since when the oldest of them waits, seconds of the monotonic clock.
    held_since: float = 0.0
    #: Tells kinds apart.
    key: tuple[object, ...] = ()

    def __post_init__(self) -> None:
        self.key = self.key or self.key_of(self.functions, self.options, self.name)

    @staticmethod
    def key_of(functions: Blob, options: CallOptions, name: str) -> tuple[object, ...]:
        """The key of a kind that need not exist."""
        return functions.name, name, options.key()

    def queue(self, alone: bool) -> deque[Ready]:
        """The calls that were not sent yet and do, or do not, have a process of their own."""
        return self.ready_alone if alone else self.ready

    def waits(self) -> bool:
        """Whether calls of it were not sent yet."""
        return bool(self.ready or self.ready_alone)


@dataclass
class Ready:
    """A call that can be sent."""

    call: Call
    kind: Optional[Kind]
    #: None for a call that another client sent.
    payload: Optional[Payload]
    #: Whether it has a process of its own.
    alone: bool
    #: Whether it was part of a task before.
    sent: bool = False


@dataclass
class Task:
    """Calls that share a process."""

    label: str
    kind: Optional[Kind]
    calls: list[Ready]
    #: Labels of the tasks whose results it takes.
    waits_for: list[str] = field(default_factory=list)
    #: The task as a table of a job file, and the files that it brings along, once it was written.
    written: Optional[tuple[dict[str, Any], dict[str, Any]]] = None
    #: Whether it is done, and its results are on their way.
    fetched: bool = False
    #: The file with the value that stays on the grid, once it is done.
    values: Optional[dict[str, Any]] = None


def label(name: str, nonce: str, first: int, count: int, repeats: int) -> str:
    """The id of a task with ``count`` calls of a function that have consecutive numbers. ``repeats`` tells it from
    earlier ones.
    """
    again = f"-{repeats}" if repeats else ""
    return f"{_word(name)}-{nonce}-{first}-{count}{again}"


def _word(name: str) -> str:
    return re.sub(r"\W+", "_", name, flags=re.ASCII).strip("_")[:_NAME_MAX] or "call"


def parse_label(text: str) -> Optional[tuple[str, str, int, int]]:
    """The function's name, the nonce of the client, the number of the first call, and how many calls; None for other
    tasks.
    """
    found = _LABEL.fullmatch(text)
    return None if found is None else (found[1], found[2], int(found[3]), int(found[4]))


def results_file(task: str) -> str:
    """Where a task leaves the outcomes of its calls."""
    return f"r-{task}"


def values_file(task: str) -> str:
    """Where a task leaves a value that stays on the grid."""
    return f"v-{task}"


def write_task(task: Task, settings: Settings, shared: Collection[str] = ()) -> tuple[dict[str, Any], dict[str, Any]]:
    """A task as a table of a job file, and the files that it brings along, which are not those that are ``shared``."""
    kind = task.kind
    assert kind is not None
    payloads = [ready.payload for ready in task.calls if ready.payload is not None]
    blobs = {blob.name: blob for payload in payloads for blob in payload.blobs}
    names = [[_results_of(call) for call in payload.dependencies] for payload in payloads]
    calls = [
        [ready.call.number, [blob.name for blob in payload.buffers], taken]
        for ready, payload, taken in zip(task.calls, payloads, names)
    ]
    header = {
        "python": f"{sys.version_info[0]}.{sys.version_info[1]}",
        "calls": calls,
        "deadline": kind.times.deadline(len(calls)) if len(calls) > 1 else None,
        "format": settings.result_format,
        "functions": kind.functions.name,
        "shared": None if settings.shared is None else os.fspath(settings.shared.folder),
        "values": values_file(task.label) if kind.options.by_reference else None,
    }
    packed = base64.b64encode(b"".join(pack(header, [payload.pickle for payload in payloads]))).decode()
    results = results_file(task.label)
    command = [settings.python, "-c", _bundle.START, results]
    inputs: list[Any] = [kind.functions.name, *(name for name in blobs if name not in shared)]
    if settings.bundle is None:
        inputs.append(_bundle.NAME)
    inputs += [{"task": other} for other in dict.fromkeys(task.waits_for)]
    written: dict[str, Any] = {"id": task.label, "command": command, "inputs": inputs, "outputs": [results]}
    if header["values"] is not None:
        written["outputs"].append(header["values"])
    if len(calls) == 1:
        # What calls of this function took tells what another one is likely to take.
        written["kind"] = f"python {_word(kind.name)}"
    if settings.mounts:
        written["mounts"] = tables(settings.mounts)
    files: dict[str, Any] = {}
    if len(packed) <= _STDIN_BYTES:
        written["stdin"] = {"text": packed}
    else:
        name = f"c-{task.label}"
        files[name] = {"base64": packed}
        inputs.append(name)
        command.append(name)
    environment = {"PYTHONPATH": settings.bundle or _bundle.NAME, "PYTHONUNBUFFERED": "1", **(kind.options.env or {})}
    return {**written, "env": environment, **kind.options.task(), **settings.runtime}, files


def _results_of(call: Call) -> list[str]:
    assert call.task is not None
    return [results_file(call.task), values_file(call.task)]
