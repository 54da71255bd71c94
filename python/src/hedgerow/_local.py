"""A grid on this machine alone, which ends with the process that started it."""

from __future__ import annotations

import atexit
import json
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from typing import Callable, Optional

from ._binary import find_hedge
from ._bundle import write_modules
from ._errors import GridError
from ._grid import Grid
from ._shared import SharedFiles

#: How long a process of the grid may take to start, seconds.
_STARTS_WITHIN_S = 30.0
#: Runs a command until standard input closes, which the end of this process does in any case. What it leaves, and the
#: folder of the whole grid, are worth nothing then. The folder is moved first, so that nothing is made in it anew.
_LEASH = """
folder=$1; shift
"$@" </dev/null & child=$!
read _
kill -9 $child 2>/dev/null; wait $child
mv "$folder" "$folder.$$" 2>/dev/null && { rm -rf "$folder.$$" || { sleep 1; rm -rf "$folder.$$"; }; } 2>/dev/null
"""


class LocalGrid:
    """A supervisor and a worker on this machine.

    Tasks run as this user without a sandbox, as they would in a process pool; ``sandbox=True`` runs them as on other
    machines, where they see system folders and what is sent along. The grid ends with :meth:`close`, with the
    ``with`` statement, or with this process, and all its state with it.
    """

    def __init__(
        self, workers: int = 1, *, cpus: Optional[int] = None, supervisors: int = 1, sandbox: bool = False
    ) -> None:
        """``cpus`` are those of each worker; all of this machine by default. Three supervisors survive the loss of one."""
        self._folder = Path(tempfile.mkdtemp(prefix="hedgerow-"))
        self._hedge = os.fspath(find_hedge())
        self._cpus = cpus if cpus is not None else os.cpu_count() or 1
        self.sandbox = sandbox
        #: Where calls without a sandbox find large arguments.
        self.shared = SharedFiles(self._folder / "shared")
        self._processes: list[subprocess.Popen[bytes]] = []
        self._closed = threading.Lock()
        self._bundling = threading.Lock()
        atexit.register(self.close)
        try:
            self.supervisors = [self._supervisor(0)]
            self.supervisors += [self._supervisor(number) for number in range(1, supervisors)]
            self._await("the supervisors of a local grid", lambda: self._voters() >= supervisors)
            #: The processes of the workers.
            self.workers = [self._worker(number) for number in range(workers)]
            self.ticket = self._ticket("client")
            self.grid = self.connect()
            self._await("the workers of a local grid", lambda: self._live_workers() >= workers)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> LocalGrid:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def connect(self) -> Grid:
        """Another connection to this grid."""
        return Grid(self.ticket, state=self._folder / "client")

    def bundle(self) -> str:
        """A folder with what runs calls: interpreters of workers import it once, and not for each call."""
        folder = self._folder / "python"
        with self._bundling:
            if not folder.exists():
                write_modules(folder)
        return os.fspath(folder)

    def add_worker(self) -> subprocess.Popen[bytes]:
        """Starts another worker."""
        self.workers.append(self._worker(len(self.workers)))
        return self.workers[-1]

    def close(self) -> None:
        """Ends all processes and removes all state."""
        if not self._closed.acquire(blocking=False):
            return
        atexit.unregister(self.close)
        for process in self._processes:
            if process.stdin is not None:
                process.stdin.close()
        for process in reversed(self._processes):
            # A process that was forked from this one may keep their standard input open.
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        if hasattr(self, "grid"):
            self.grid.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _supervisor(self, number: int) -> subprocess.Popen[bytes]:
        command = ["supervisor", "--listen", "127.0.0.1:0", "--json"]
        if number > 0:
            command += ["--join", self._ticket("supervisor")]
        return self._start(f"supervisor-{number}", command, listens=True)

    def _worker(self, number: int) -> subprocess.Popen[bytes]:
        command = ["worker", "--listen", "127.0.0.1:0", "--dedicated", "--task-priority", "normal"]
        command += [] if self.sandbox else ["--no-sandbox"]
        command += ["--cpus", str(self._cpus), "--join", self._ticket("worker")]
        return self._start(f"worker-{number}", command, listens=False)

    def _start(self, name: str, args: list[str], *, listens: bool) -> subprocess.Popen[bytes]:
        folder = self._folder / name
        folder.mkdir()
        env = {name: value for name, value in os.environ.items() if name != "HEDGE_TICKET"}
        out, log = folder / "out", folder / "log"
        with open(out, "wb") as stdout, open(log, "wb") as stderr:
            process = subprocess.Popen(
                ["sh", "-c", _LEASH, "sh", os.fspath(self._folder), self._hedge, *args, "--dir", os.fspath(folder / "state")],
                env=env,
                stdin=subprocess.PIPE,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
            )
        self._processes.append(process)
        deadline = time.monotonic() + _STARTS_WITHIN_S
        while listens and b"\n" not in out.read_bytes():
            if process.poll() is not None or time.monotonic() > deadline:
                raise GridError("local", f"a local grid did not start: {log.read_text(errors='replace').strip()}")
            time.sleep(0.01)
        return process

    def _ticket(self, role: str) -> str:
        """Path of a file with a ticket of this role."""
        path = self._folder / f"{role}.ticket"
        if not path.exists():
            state = self._folder / "supervisor-0" / "state"
            command = [self._hedge, "ticket", role, "--out", os.fspath(path), "--dir", os.fspath(state)]
            ended = subprocess.run(command, capture_output=True, text=True, check=False)
            if ended.returncode != 0:
                raise GridError("local", f"a local grid did not start: {ended.stderr.strip()}")
        return os.fspath(path)

    def _voters(self) -> int:
        state = self._folder / "supervisor-0" / "state"
        command = [self._hedge, "members", "--json", "--dir", os.fspath(state)]
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        members = json.loads(ended.stdout) if ended.returncode == 0 else []
        return sum(member["place"] not in (None, "learner") for member in members)

    def _live_workers(self) -> int:
        return sum(worker["liveness"] == "live" for worker in self.grid.workers())

    def _await(self, what: str, here: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _STARTS_WITHIN_S
        while not here():
            if time.monotonic() > deadline:
                logs = "\n".join(path.read_text(errors="replace") for path in self._folder.glob("*/log"))
                raise GridError("local", f"{what} did not start: {logs.strip()}")
            time.sleep(0.02)


_shared: Optional[LocalGrid] = None
_shared_lock = threading.Lock()


def shared_local_grid() -> LocalGrid:
    """The local grid of this process, started when it is first asked for."""
    global _shared
    with _shared_lock:
        if _shared is None or _shared._closed.locked():
            _shared = LocalGrid()
        return _shared
