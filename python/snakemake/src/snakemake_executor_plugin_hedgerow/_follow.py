"""The thread that learns of the ends of tasks the moment they are recorded, and fetches what they left."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Callable, Optional

from hedgerow import Grid, GridError

#: Tasks whose files are fetched at once.
_FETCHES = 4


class Ended:
    """How a task ended."""

    def __init__(self, why: str = "", log: Optional[Path] = None) -> None:
        #: Why it failed, a clause; empty for a task that is done and whose files are here.
        self.why = why
        #: What it printed, if it failed and that was kept.
        self.log = log


class Follower:
    """Follows one job of the grid."""

    def __init__(self, grid: Grid, job: int, fetch: Callable[[int, dict[str, Any]], None]) -> None:
        self._grid = grid
        self._job = job
        self._fetch = fetch
        self._lock = threading.Lock()
        #: Tasks that are waited for.
        self._wanted: set[str] = set()
        #: Ends of tasks that nobody waited for when they came.
        self._early: dict[str, dict[str, Any]] = {}
        self._ended: dict[str, Ended] = {}
        self._closed = False
        #: Set when something ended, or the thread did.
        self.news = threading.Event()
        #: Why nothing more is learnt.
        self.broken: Optional[Exception] = None
        self._ends = grid.ends(job)
        self._pool = ThreadPoolExecutor(_FETCHES, "hedgerow-fetch")
        self._thread = threading.Thread(target=self._loop, name="hedgerow-follow", daemon=True)
        self._thread.start()

    def want(self, tasks: list[str]) -> None:
        """Has the ends of these tasks fetched, whether they came already or not."""
        with self._lock:
            self._wanted.update(tasks)
            ends = [self._early.pop(task) for task in tasks if task in self._early]
        for end in ends:
            self._pool.submit(self._settle, end)

    def take(self, task: str) -> Optional[Ended]:
        """How a task ended, once."""
        with self._lock:
            return self._ended.pop(task, None)

    def close(self) -> None:
        """Ends the threads."""
        self._closed = True
        self._ends.close()
        self._thread.join()
        self._pool.shutdown(cancel_futures=True)

    def _loop(self) -> None:
        try:
            for end in self._ends:
                self._on_end(end)
            self._break(GridError("unknown", f"job {self._job} of the grid has ended"))
        except GridError as error:
            self._break(error)

    def _on_end(self, end: dict[str, Any]) -> None:
        with self._lock:
            if end["task"] not in self._wanted:
                self._early[end["task"]] = end
                return
        self._pool.submit(self._settle, end)

    def _settle(self, end: dict[str, Any]) -> None:
        task = end["task"]
        with self._lock:
            if task not in self._wanted:
                # A task whose outputs were lost ran again, and its files are here.
                return
            self._wanted.discard(task)
        try:
            if end["end"] == "done":
                self._fetch(self._job, end)
                ended = Ended()
            else:
                ended = Ended(f"{end['end']}: {end['why']}", self._save_log(task))
        except Exception as error:  # noqa: BLE001 - whatever happens, the job is decided
            ended = Ended(f"what task {task} left cannot be fetched: {error}")
        with self._lock:
            self._ended[task] = ended
        self.news.set()

    def _save_log(self, task: str) -> Optional[Path]:
        """Writes what a task printed to a file, and gives its name."""
        try:
            text = self._grid.log(self._job, task)
        except GridError:
            return None
        folder = Path(".snakemake") / "hedgerow"
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{self._job}-{task}.log"
        path.write_text(text)
        return path

    def _break(self, error: Exception) -> None:
        if not self._closed:
            self.broken = error
            self.news.set()
