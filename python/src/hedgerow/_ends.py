"""The ends of a job's tasks as they come, over all streams that break meanwhile."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator
from typing import Any, Callable, Optional

from ._errors import GridError
from ._http import Stream

#: Pause before a stream that broke is opened again, seconds.
_AGAIN_S = 0.1


class Ends:
    """Iterates once over the ends of a job's tasks, until the job has ended or another thread closes this."""

    def __init__(self, open_behind: Callable[[int], Stream]) -> None:
        """``open_behind`` opens the stream behind so many ends."""
        self._open_behind = open_behind
        self._after = 0
        self._stream: Optional[Stream] = None
        self._closed = threading.Event()
        #: Whether the job has ended.
        self.over = False

    def close(self) -> None:
        """Ends the iteration, which waits for the grid."""
        self._closed.set()
        stream = self._stream
        if stream is not None:
            stream.end()

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Raises GridError where the stream cannot go on."""
        while not self._closed.is_set():
            try:
                self._stream = self._open_behind(self._after)
                if not self._closed.is_set():
                    yield from self._read(self._stream)
                if self.over:
                    return
            except GridError:
                if self._closed.is_set():
                    return
                raise
            except (OSError, http.client.HTTPException, ValueError, AttributeError):
                # The gateway is gone, or this was closed.
                pass
            finally:
                if self._stream is not None:
                    self._stream.close()
                    self._stream = None
            self._closed.wait(_AGAIN_S)

    def _read(self, stream: Stream) -> Iterator[dict[str, Any]]:
        for event in stream:
            if event.name == "problem":
                raise GridError(event.data["kind"], event.data["detail"])
            if event.name != "ends":
                continue
            yield from event.data["tasks"]
            self._after = event.data["next"]
            if event.data["over"]:
                self.over = True
                return
