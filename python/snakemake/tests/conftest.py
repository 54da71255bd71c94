"""Grids of real processes for the tests, and Snakemake on them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest

from hedgerow import Grid, LocalGrid

WORKFLOWS = Path(__file__).parent / "workflows"
#: For so long a test waits for something that another process does, seconds.
PATIENCE_S = 120.0


@pytest.fixture(scope="session", autouse=True)
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the client's key, for this process and for Snakemake's."""
    state = tmp_path_factory.mktemp("state")
    os.environ["XDG_STATE_HOME"] = os.fspath(state)
    return state


@pytest.fixture(scope="session")
def grid(state: Path) -> Iterator[LocalGrid]:
    """Three workers."""
    with LocalGrid(workers=3, cpus=2) as grid:
        yield grid


class Snakemake:
    """Runs Snakemake on a grid."""

    def __init__(self, grid: LocalGrid) -> None:
        self.grid = Grid(grid.ticket)
        self._ticket = grid.ticket

    def command(self, *arguments: str) -> list[str]:
        """Snakemake with this plugin."""
        command = [sys.executable, "-m", "snakemake", "--executor", "hedgerow", "--hedgerow-ticket", self._ticket]
        return [*command, "--hedgerow-python", sys.executable, "--jobs", "6", *arguments]

    def run(self, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Runs it to its end."""
        return run(self.command(*arguments), folder)

    def start(self, folder: Path, *arguments: str) -> subprocess.Popen[str]:
        """Starts it, and does not wait."""
        with open(folder / "snakemake.log", "w") as log:
            return subprocess.Popen(self.command(*arguments), cwd=folder, stdout=log, stderr=log, text=True)

    def job(self, folder: Path) -> dict[str, Any]:
        """The newest job of the grid that a workflow in this folder has; empty if there is none."""
        jobs = self.grid.request("GET", "/v1/jobs")["jobs"]
        return max((job for job in jobs if job["name"] == folder.name), key=lambda job: int(job["id"]), default={})


def run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Runs a command and keeps what it prints."""
    both = subprocess.STDOUT
    return subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, stderr=both, text=True, timeout=300, check=False)


def run_locally(folder: Path, *arguments: str) -> None:
    """The reference: Snakemake without a grid."""
    ended = run([sys.executable, "-m", "snakemake", "--cores", "2", *arguments], folder)
    assert ended.returncode == 0, ended.stdout


def until(what: str, true: Callable[[], Any]) -> None:
    """Waits for something that another process does."""
    deadline = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < deadline, f"{what} did not happen in {PATIENCE_S:.0f} s"
        time.sleep(0.02)


def contents(folder: Path) -> dict[str, bytes]:
    """All files below a folder that a workflow makes."""
    files = (path for path in folder.rglob("*") if path.is_file())
    hidden = (".snakemake", "benchmarks", "logs")
    return {
        os.fspath(path.relative_to(folder)): path.read_bytes()
        for path in files
        if path.relative_to(folder).parts[0] not in hidden and path.name not in ("snakemake.log", ".snakemake_timestamp")
    }
