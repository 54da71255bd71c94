"""A grid as this package uses it: its gateway, started where none runs, and the requests about open jobs."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import http.client
import json
import os
import subprocess
import tempfile
import threading
import time
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Callable, Optional, TypeVar, Union

from ._binary import find_hedge
from ._ends import Ends
from ._errors import GridError
from ._http import Event, Http
from ._transfer import download_file, upload_file
from ._version import __version__

#: A gateway that this package started ends by itself once nobody has used it for so long.
_EXIT_WHEN_IDLE = "60s"
#: How long a gateway that was started may take to listen: as long as it waits for a supervisor that leads.
_STARTS_WITHIN_S = 30.0
#: For so long requests are repeated where the gateway is gone or no supervisor leads.
PATIENCE_S = 60.0
#: Pause between two tries, seconds.
_PAUSE_S = 0.1
#: Longest path of a Unix socket, bytes.
_SOCKET_BYTES_MAX = 100
#: States of a task that has not ended.
_OPEN_STATES = ("waiting", "ready", "running")

T = TypeVar("T")
#: What names a grid: a file with a ticket, or the ticket itself; None for HEDGE_TICKET, or this machine's supervisor.
Ticket = Union[str, "os.PathLike[str]", None]


class Grid:
    """A connection to a grid, through a gateway on this machine. May be used by several threads."""

    def __init__(self, ticket: Ticket = None, *, state: Optional[os.PathLike[str]] = None) -> None:
        """``state`` is the folder that ``hedge --dir`` takes. Nothing is started before the first request."""
        self._env = dict(os.environ)
        if ticket is not None:
            self._env["HEDGE_TICKET"] = os.fspath(ticket)
        self._state = state
        self._socket = self._socket_path()
        self._http = Http(str(self._socket))
        self._starting = threading.Lock()

    def close(self) -> None:
        """Closes connections; the gateway ends once nobody uses it."""
        self._http.close()

    # Requests

    def request(self, method: str, path: str, value: object = None) -> Any:
        """The JSON that the gateway answers with, repeated until it and a supervisor that leads are there.

        Raises GridError.
        """
        return self._insist(lambda: self._http.json(method, path, value))

    def open_job(self, job: Mapping[str, object], key: str) -> int:
        """Opens a job and gives its number."""
        accepted = self.request("POST", "/v1/jobs/open", {"job": job, "key": key})
        return int(accepted["job"])

    def extend(self, job: int, tasks: Sequence[object], files: Mapping[str, object], key: str) -> None:
        """Adds tasks to an open job; returns once they are durable. ``key`` names the extension."""
        value = {"job": {"task": tasks}, "files": files, "key": key}
        self.request("POST", f"/v1/jobs/{job}/extend", value)

    def close_job(self, job: int) -> None:
        """Lets an open job end once its tasks have."""
        self.request("POST", f"/v1/jobs/{job}/close")

    def cancel_job(self, job: int) -> None:
        """Ends a job at once."""
        self.request("POST", f"/v1/jobs/{job}/cancel")

    def cancel_tasks(self, job: int, tasks: Sequence[str]) -> None:
        """Gives up tasks that have not ended, and ends their processes."""
        self.request("POST", f"/v1/jobs/{job}/tasks/cancel", {"tasks": list(tasks)})

    def release(self, job: int, tasks: Sequence[str]) -> None:
        """Lets the grid drop what tasks left."""
        self.request("POST", f"/v1/jobs/{job}/release", {"tasks": list(tasks)})

    def job(self, job: int) -> dict[str, Any]:
        """A job's view, as ``hedge job JOB --json`` prints it."""
        return dict(self.request("GET", f"/v1/jobs/{job}"))

    def workers(self) -> list[dict[str, Any]]:
        """The workers, as ``hedge workers --json`` prints them."""
        return list(self.request("GET", "/v1/workers"))

    def groups(self, job: int) -> Iterator[dict[str, Any]]:
        """All groups of a job."""
        yield from self._pages(f"/v1/jobs/{job}/groups", "groups")

    def tasks(self, job: int, state: str) -> Iterator[dict[str, Any]]:
        """The tasks of a job that are in a state: ``waiting``, ``running``, ``done`` or ``failed``."""
        yield from self._pages(f"/v1/jobs/{job}/tasks", "tasks", f"state={state}&")

    def log(self, job: int, task: str) -> str:
        """What a task has printed so far, to its standard output and then to its error output."""
        output = self.request("GET", f"/v1/jobs/{job}/tasks/{urllib.parse.quote(task)}/log")
        return str(output["stdout"] + output["stderr"])

    def _pages(self, path: str, what: str, query: str = "") -> Iterator[dict[str, Any]]:
        position: Optional[int] = 0
        while position is not None:
            page = self.request("GET", f"{path}?{query}from={position}")
            yield from page[what]
            position = page["next"]

    def upload(self, content: Union[bytes, memoryview]) -> str:
        """Brings content to the gateway and gives its hash."""
        form = "application/octet-stream"
        answer = self._insist(lambda: self._http.request("POST", "/v1/blobs", bytes(content), form))
        return str(json.loads(answer)["blake3"])

    def download(self, job: int, task: str, file: Mapping[str, Any]) -> bytearray:
        """A file that a task left, as its end or a list of results has it, in memory that may be changed.

        Where it was lost with its worker, this waits until the task has run again, and gives what it left then. Raises
        GridError.
        """
        return self._of_task(job, task, file, lambda path: self._http.request("GET", path))

    def upload_file(self, path: Path) -> str:
        """Brings a file to the gateway and gives its hash. Raises GridError and OSError."""
        with open(path, "rb") as file:
            return self._insist(lambda: upload_file(str(self._socket), file))

    def download_file(self, job: int, task: str, file: Mapping[str, Any], target: Path) -> None:
        """As :meth:`download`, to the file ``target``. Raises GridError and OSError."""
        with open(target, "wb") as written:
            self._of_task(job, task, file, lambda path: download_file(str(self._socket), path, written))

    def _of_task(self, job: int, task: str, file: Mapping[str, Any], get: Callable[[str], T]) -> T:
        """What ``get`` makes of the path of a file that a task left."""
        name = urllib.parse.quote(task)
        while True:
            try:
                return self._insist(functools.partial(get, f"/v1/jobs/{job}/blobs/{file['blake3']}?task={name}"))
            except GridError as error:
                if error.kind != "unknown":
                    raise
                file = self._made_again(job, name, file, error)

    def _made_again(self, job: int, task: str, lost: Mapping[str, Any], error: GridError) -> dict[str, Any]:
        """The file that a task left when it ran again. Raises ``error`` where it does not run again."""
        while True:
            view = self.request("GET", f"/v1/jobs/{job}/tasks/{task}")
            for file in self._pages(f"/v1/jobs/{job}/results", "files", f"task={task}&"):
                if file["path"] == lost["path"] and file["blake3"] != lost["blake3"]:
                    return file
            if view["tasks"][0]["state"] not in _OPEN_STATES:
                raise error
            time.sleep(_PAUSE_S)

    def ends(self, job: int) -> Ends:
        """The ends of a job's tasks, each once, as they come."""
        path = f"/v1/jobs/{job}/ends"
        return Ends(lambda after: self._insist(lambda: self._http.stream(path, str(after))))

    # The gateway

    def _insist(self, ask: Callable[[], T]) -> T:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                return ask()
            except GridError as error:
                if error.kind not in ("busy", "unreachable") or time.monotonic() >= deadline:
                    raise
            except (OSError, http.client.HTTPException) as error:
                if time.monotonic() >= deadline:
                    raise GridError("unreachable", f"the gateway at {self._socket} is gone: {error}") from error
                self._start()
            time.sleep(_PAUSE_S)

    def _socket_path(self) -> Path:
        """Where the gateway for this grid, this user and this version listens."""
        ticket = self._env.get("HEDGE_TICKET", "")
        if ticket and os.path.exists(ticket):
            ticket = Path(ticket).read_text().strip()
        state = os.fspath(self._state) if self._state is not None else self._env.get("XDG_STATE_HOME", "")
        named = hashlib.blake2b("\0".join((ticket, state, __version__)).encode(), digest_size=8).hexdigest()
        folder = Path(self._env.get("XDG_RUNTIME_DIR") or tempfile.gettempdir())
        folder = folder / f"hedgerow-{os.getuid()}"
        folder.mkdir(mode=0o700, exist_ok=True)
        about = folder.stat()
        if about.st_uid != os.getuid() or about.st_mode & 0o077:
            raise GridError("local", f"the folder {folder} belongs to another user or is open to others; remove it")
        path = folder / f"{named}.sock"
        if len(os.fsencode(path)) > _SOCKET_BYTES_MAX:
            raise GridError("local", f"the path {path} is too long for a socket; set XDG_RUNTIME_DIR or TMPDIR to a shorter one")
        return path

    def _start(self) -> None:
        """Starts a gateway unless one listens meanwhile."""
        with self._starting, _locked(Path(f"{self._socket}.lock")):
            with contextlib.suppress(OSError, http.client.HTTPException, GridError):
                self._http.json("GET", "/v1")
                return
            self._spawn()

    def _spawn(self) -> None:
        command = [os.fspath(find_hedge()), "gateway", "--json", "--socket", str(self._socket)]
        command += ["--exit-when-idle", _EXIT_WHEN_IDLE]
        if self._state is not None:
            command += ["--dir", os.fspath(self._state)]
        with tempfile.TemporaryFile() as log:
            self._spawn_logged(command, log)

    def _spawn_logged(self, command: list[str], log: IO[bytes]) -> None:
        process = subprocess.Popen(
            command,
            env=self._env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            # Ctrl-C in a terminal is for the program, not for the gateway that others may use too.
            start_new_session=True,
        )
        assert process.stdout is not None
        timer = threading.Timer(_STARTS_WITHIN_S, process.kill)
        timer.start()
        try:
            listens = process.stdout.readline()
        finally:
            timer.cancel()
            process.stdout.close()
        # A thread takes the exit status, so that no zombie stays.
        threading.Thread(target=process.wait, name="hedgerow-gateway", daemon=True).start()
        if not listens:
            log.seek(0)
            why = _error_in(log.read().decode(errors="replace")) or "it did not listen in time"
            raise GridError(
                "unreachable",
                f"the gateway did not start: {why}. Nothing was submitted; name a grid by a ticket, or use "
                "hedgerow.LocalGrid for one on this machine",
            )


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Holds a lock among this user's processes, whose file is gone afterwards."""
    while True:
        with open(path, "a", encoding="ascii") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            try:
                current = os.path.samestat(os.stat(path), os.fstat(lock.fileno()))
            except FileNotFoundError:
                current = False
            if not current:
                # The one before has removed it, and others hold a new one.
                continue
            try:
                yield
            finally:
                path.unlink()
            return


def _error_in(log: str) -> str:
    """The last error that a program told, which is JSON or text."""
    lines = [line for line in log.splitlines() if line.strip()]
    if not lines:
        return ""
    try:
        return str(json.loads(lines[-1])["error"]).rstrip(".")
    except (ValueError, KeyError, TypeError):
        return lines[-1].rstrip(".")


__all__ = ["Event", "Grid", "GridError", "PATIENCE_S", "Ticket"]
