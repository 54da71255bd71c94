"""What became of a call, as the value or the exception that its caller gets."""

from __future__ import annotations

import linecache
import re
import sys
import threading
from concurrent.futures import BrokenExecutor
from typing import Any, Callable, Optional

from ._errors import CallFailed, GridError, PythonMismatch, RemoteError, RemoteTraceback
from ._values import Outcome, load, load_error, unpack

#: The line of a traceback that says where a frame is.
_FRAME = re.compile(r'  File "(.+)", line (\d+), in ')


class Stored:
    """A value that is on the grid, and comes here when it is asked for."""

    def __init__(self, fetch: Callable[[], Any], result_format: str) -> None:
        self._fetch: Optional[Callable[[], Any]] = fetch
        self._format = result_format
        self._lock = threading.Lock()
        self._value: Any = None

    def value(self) -> Any:
        """The value, which is fetched the first time. Raises GridError and what reading it raises."""
        with self._lock:
            if self._fetch is not None:
                try:
                    content = self._fetch()
                except GridError as error:
                    if error.kind == "unknown":
                        why = "the value is not on the grid any more: ask for it before the executor is shut down"
                        raise GridError("unknown", f"{why} ({error})") from error
                    raise
                _, parts = unpack(content)
                self._value = load(list(parts), self._format)
                self._fetch = None
            return self._value


def error_of(outcome: Outcome, result_format: str) -> BaseException:
    """What a call raised, with the worker's traceback as its cause; only the format ``pickle`` has anything unpickled."""
    if outcome.kind == "python":
        here = f"{sys.version_info[0]}.{sys.version_info[1]}"
        there, where = (bytes(part).decode(errors="replace") for part in outcome.parts)
        return PythonMismatch(
            f"the worker runs Python {there} ({where}) and this process Python {here}; the call was not run. Give the "
            f'executor an interpreter of this version, like python="python{here}", or use Python {there} here'
        )
    if len(outcome.parts) == 1:
        # The process of a call whose result is taken.
        return CallFailed("signalled", bytes(outcome.parts[0]).decode(errors="replace"))
    text, name = (bytes(part).decode(errors="replace") for part in outcome.parts[:2])
    error: BaseException = RemoteError(name)
    if result_format == "pickle" and len(outcome.parts) > 2:
        try:
            error = load_error(outcome.parts[2:]) or error
        except Exception:  # noqa: BLE001 - the text says what was raised
            pass
    error.__cause__ = RemoteTraceback(_with_source(text))
    if outcome.kind == "initializer":
        broken = BrokenExecutor(f"the initializer raised on a worker: {name}")
        broken.__cause__ = error
        return broken
    return error


def _with_source(text: str) -> str:
    """A traceback with the lines of code that the worker does not have, like those of a script or a notebook."""
    lines = text.splitlines()
    told = []
    for line, following in zip(lines, [*lines[1:], ""]):
        told.append(line)
        frame = _FRAME.match(line)
        if frame is not None and not following.startswith("    "):
            source = linecache.getline(frame[1], int(frame[2])).strip()
            if source:
                told.append(f"    {source}")
    return "\n".join(told) + "\n"
