"""What can go wrong, as exceptions. All of them say what happened, what was kept, and what to do."""

from __future__ import annotations

from concurrent.futures import BrokenExecutor


class HedgerowError(Exception):
    """Base of all errors of this package."""


class HedgerowWarning(UserWarning):
    """Something that the user should know, and that nothing fails of."""


class BinaryNotFound(HedgerowError):
    """The program ``hedge`` is not installed, or is of another version than this package."""


class GridError(HedgerowError):
    """The gateway or the grid refused a request, or cannot be reached.

    ``kind`` is one of the words of docs/gateway.md: ``bad``, ``unknown``, ``not-allowed``, ``busy``, ``unreachable``,
    ``local``.
    """

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(detail)
        self.kind = kind

    def __reduce__(self) -> tuple[type[GridError], tuple[str, str]]:
        return GridError, (self.kind, str(self))


class CallFailed(HedgerowError):
    """The process of a call ended before the call returned: it crashed, or went beyond a limit.

    The text names the function; ``log()`` of the call's future has what it printed.

    ``kind`` is one of ``exited``, ``signalled``, ``time-limit``, ``memory-limit``, ``disk-limit``, ``not-started``,
    ``output``, ``machine``, ``lost``.
    """

    def __init__(self, kind: str, why: str) -> None:
        super().__init__(why)
        self.kind = kind

    def __reduce__(self) -> tuple[type[CallFailed], tuple[str, str]]:
        return CallFailed, (self.kind, str(self))


class DependencyFailed(HedgerowError):
    """A call was not run because a call whose result it takes failed, which is the ``__cause__``."""


class PythonMismatch(HedgerowError, BrokenExecutor):
    """A worker has another version of Python than this process, so that neither can read the other's objects."""


class JobEnded(HedgerowError):
    """The job of an executor ended before a call did."""


class RemoteError(HedgerowError):
    """A call raised something that cannot be brought here; its text is that of the worker's traceback."""


class RemoteTraceback(Exception):
    """The worker's traceback: the ``__cause__`` of what a call raised."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return "\n" + self.text
