"""HTTP over the gateway's Unix socket, with nothing but the standard library."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Optional

from ._errors import GridError

#: How long a connection may bring nothing, seconds. Streams carry a comment every 15 s.
STALLS_FOR_S = 60.0
#: Idle connections that are kept: as many as threads that ask at once.
_IDLE_MAX = 8
#: A body that is longer is not copied behind its head, bytes.
_ONE_PIECE_BYTES = 64 << 10
#: Longest line of a stream, bytes: an event is one line, and holds about 4 MiB of results in Base64.
_LINE_BYTES_MAX = 64 << 20


class UnixConnection(http.client.HTTPConnection):
    """A connection to a Unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=STALLS_FOR_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self.sock.settimeout(self.timeout)
            self.sock.connect(self._path)
        except BaseException:
            self.sock.close()
            raise


@dataclass(frozen=True)
class Event:
    """A server-sent event."""

    name: str
    id: Optional[str]
    data: Any


class Http:
    """Requests to one gateway; may be used by several threads."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._idle: list[UnixConnection] = []
        self._lock = threading.Lock()

    def close(self) -> None:
        """Closes the connections that nobody uses."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def request(self, method: str, path: str, body: bytes = b"", form: str = "application/json") -> bytearray:
        """The body of the response, in memory that may be changed.

        Raises GridError for a problem, OSError or HTTPException where the gateway is gone. A request on a connection that
        turns out to be closed is repeated on a new one: all requests here are harmless to repeat.
        """
        while True:
            with self._lock:
                reused = bool(self._idle)
                connection = self._idle.pop() if reused else UnixConnection(self.path)
            try:
                response = _ask(connection, method, path, body, form)
                content = _read(response)
            except (OSError, http.client.HTTPException):
                connection.close()
                if reused:
                    continue
                raise
            except BaseException:
                connection.close()
                raise
            break
        with self._lock:
            if not response.will_close and len(self._idle) < _IDLE_MAX:
                self._idle.append(connection)
            else:
                connection.close()
        if response.status >= 400:
            raise problem(response.status, bytes(content))
        return content

    def json(self, method: str, path: str, value: object = None) -> Any:
        """The same with JSON in both directions; None for an empty response."""
        body = b"" if value is None else json.dumps(value, separators=(",", ":")).encode()
        content = self.request(method, path, body)
        return json.loads(content) if content else None

    def stream(self, path: str, last_id: Optional[str]) -> Stream:
        """Opens a stream of events behind the one with this id."""
        return Stream(self.path, path, last_id)


class Stream:
    """A stream of server-sent events."""

    def __init__(self, socket_path: str, path: str, last_id: Optional[str]) -> None:
        self._connection = UnixConnection(socket_path)
        headers = {} if last_id is None else {"Last-Event-ID": last_id}
        try:
            self._connection.request("GET", path, headers=headers)
            self._socket = self._connection.sock
            self._response = self._connection.getresponse()
            if self._response.status >= 400:
                raise problem(self._response.status, self._response.read())
        except BaseException:
            self._connection.close()
            raise

    def __iter__(self) -> Iterator[Event]:
        name, ident, data = "message", None, ""
        while True:
            line = self._response.readline(_LINE_BYTES_MAX)
            if not line:
                return
            text = line.decode().rstrip("\r\n")
            if not text:
                if data:
                    yield Event(name, ident, json.loads(data))
                name, ident, data = "message", None, ""
                continue
            field, _, value = text.partition(": ")
            if field == "event":
                name = value
            elif field == "id":
                ident = value
            elif field == "data":
                data += value

    def end(self) -> None:
        """Ends the iteration, from any thread."""
        with contextlib.suppress(OSError):
            if self._socket is not None:
                self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Gives the connection up, for the thread that reads."""
        self._response.close()
        self._connection.close()


def _ask(
    connection: UnixConnection, method: str, path: str, body: bytes, form: str
) -> http.client.HTTPResponse:
    """Sends a request as one piece, unless it is long: the gateway would wake up for its head alone otherwise."""
    if connection.sock is None:
        connection.connect()
    head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {form}\r\nContent-Length: {len(body)}\r\n\r\n"
    if len(body) <= _ONE_PIECE_BYTES:
        connection.sock.sendall(head.encode("ascii") + body)
    else:
        connection.sock.sendall(head.encode("ascii"))
        connection.sock.sendall(body)
    response = http.client.HTTPResponse(connection.sock, method=method)
    response.begin()
    return response


def _read(response: http.client.HTTPResponse) -> bytearray:
    length = response.length
    if length is None:
        return bytearray(response.read())
    content = bytearray(length)
    view, filled = memoryview(content), 0
    while filled < length:
        count = response.readinto(view[filled:])
        if count == 0:
            raise http.client.IncompleteRead(bytes(view[:filled]), length - filled)
        filled += count
    # Lets the connection go on to its next request.
    response.read()
    return content


def problem(status: int, content: bytes) -> GridError:
    """What the gateway said went wrong."""
    try:
        told = json.loads(content)
        return GridError(str(told["kind"]), str(told["detail"]))
    except (ValueError, KeyError, TypeError):
        return GridError("local", f"the gateway answered with status {status}: {content[:200].decode(errors='replace')}")
