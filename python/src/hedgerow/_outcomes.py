"""What became of a call, as the value or the exception that its caller gets."""

from __future__ import annotations

import json
import pickle
import sys
from concurrent.futures import BrokenExecutor
from typing import Any

from ._errors import CallFailed, PythonMismatch, RemoteError, RemoteTraceback
from ._worker import Outcome


def value_of(outcome: Outcome, result_format: str) -> Any:
    """What a call returned. Raises what reading it raises."""
    if result_format == "json":
        return json.loads(bytes(outcome.parts[0]))
    return pickle.loads(outcome.parts[0], buffers=outcome.parts[1:])


def error_of(outcome: Outcome, result_format: str) -> BaseException:
    """What a call raised, with the worker's traceback as its cause; nothing is unpickled for the format ``json``."""
    if outcome.kind == "python":
        here = f"{sys.version_info[0]}.{sys.version_info[1]}"
        there, where = (bytes(part).decode(errors="replace") for part in outcome.parts)
        return PythonMismatch(
            f"the worker runs Python {there} ({where}) and this process Python {here}; the call was not run. Give the "
            f'executor an interpreter of this version, like python="python{here}", or use Python {there} here'
        )
    if len(outcome.parts) == 1:
        return CallFailed("signalled", bytes(outcome.parts[0]).decode(errors="replace"))
    text, name = (bytes(part).decode(errors="replace") for part in outcome.parts[:2])
    error: BaseException = RemoteError(name)
    if result_format != "json" and len(outcome.parts) > 2:
        try:
            raised = pickle.loads(outcome.parts[2], buffers=outcome.parts[3:])
            if isinstance(raised, BaseException):
                error = raised
        except Exception:  # noqa: BLE001 - the text says what was raised
            pass
    if outcome.kind == "initializer":
        broken = BrokenExecutor(f"the initializer raised on a worker: {name}")
        broken.__cause__ = error
        error.__cause__ = RemoteTraceback(text)
        return broken
    error.__cause__ = RemoteTraceback(text)
    return error
