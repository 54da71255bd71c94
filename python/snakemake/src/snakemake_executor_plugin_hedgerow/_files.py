"""The files of jobs: which ones a job needs, where they come from, and how what it made gets back."""

from __future__ import annotations

import base64
import io
import json
import os
import shutil
import tarfile
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hedgerow import Grid
from snakemake_interface_common.exceptions import WorkflowError

#: A file up to this size travels inside the request, bytes.
_INLINE_BYTES = 16 << 10
#: A file of the repository that is longer is no source, bytes; Snakemake has the same limit.
_SOURCE_BYTES_MAX = 10_000_000
#: Where a task finds the archive of sources.
SOURCES = "sources.tar"

#: Tells whether a file changed: its device, number, size and time.
Stamp = tuple[int, int, int, int]


@dataclass
class Needs:
    """What a job finds when it starts."""

    #: Where each path of the working directory comes from, in the scratch directory.
    files: dict[str, str] = field(default_factory=dict)
    #: Folders that there are, empty or not.
    folders: list[str] = field(default_factory=list)
    #: What was brought along: names in the scratch directory, and the files themselves.
    brought: dict[str, Path] = field(default_factory=dict)
    #: Tasks whose files it takes.
    tasks: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Made:
    """A file or folder that a task of this job left, and that is here too."""

    task: str
    #: Its path in the scratch directory of a task that takes it.
    source: str
    stamp: Stamp


class Files:
    """Knows which files the grid has."""

    def __init__(self, grid: Grid, on_workers: Iterable[str]) -> None:
        """``on_workers`` are folders whose files every worker has."""
        self._grid = grid
        self._on_workers = [folder.rstrip("/") + "/" for folder in on_workers]
        self._made: dict[str, Made] = {}
        self._uploaded: dict[Stamp, str] = {}
        self._expected: dict[str, set[str]] = {}

    # To the grid

    def needs(self, paths: Iterable[str]) -> Needs:
        """Finds out where the inputs of a job come from. Raises WorkflowError for one that no worker can have."""
        needs = Needs()
        for path in dict.fromkeys(paths):
            if path.startswith(tuple(self._on_workers)):
                continue
            check_relative(path)
            made = self._made.get(path)
            if made is not None and os.path.lexists(path) and stamp(path) == made.stamp:
                needs.files[path] = made.source
                if made.task not in needs.tasks:
                    needs.tasks.append(made.task)
            elif os.path.isdir(path):
                for folder, _, names in os.walk(path, followlinks=True):
                    needs.folders.append(folder)
                    for name in names:
                        self._bring(os.path.join(folder, name), needs)
            elif os.path.exists(path):
                self._bring(path, needs)
        return needs

    def _bring(self, path: str, needs: Needs) -> None:
        if not os.path.isfile(path):
            return
        at = stamp(path)
        ending = os.path.splitext(path)[1]
        # Programs look at endings, and so does staging.
        safe = ending if ending[1:].isascii() and ending[1:].isalnum() else ""
        name = f"in/{at[0]:x}-{at[1]:x}-{at[2]:x}-{at[3]:x}{safe}"
        needs.files[path] = name
        needs.brought[name] = Path(path)

    def written(self, brought: dict[str, Path]) -> dict[str, Any]:
        """Files as a request names them; uploads those that the gateway does not have. Raises GridError and OSError."""
        files = {}
        for name, path in brought.items():
            status = path.stat()
            if status.st_size <= _INLINE_BYTES:
                entry: dict[str, Any] = {"base64": base64.b64encode(path.read_bytes()).decode()}
            else:
                at = stamp(path)
                known = self._uploaded.get(at)
                if known is None:
                    known = self._uploaded[at] = self._grid.upload_file(path)
                entry = {"blake3": known}
            if status.st_mode & 0o100:
                entry["executable"] = True
            files[name] = entry
        return files

    def forget_uploads(self) -> None:
        """The gateway is another one, and does not have what was uploaded."""
        self._uploaded.clear()

    # From the grid

    def expect(self, task: str, products: Iterable[str]) -> None:
        """Says what a task may make: a worker that tells of something else is not believed."""
        self._expected[task] = set(products)

    def fetch(self, job: int, end: dict[str, Any]) -> None:
        """Brings what a task made to where Snakemake expects it. Raises GridError, OSError and WorkflowError."""
        task = end["task"]
        root = f"out/{task}/"
        left = {file["path"].removeprefix(root): file for file in end["files"]}
        if "made.json" not in left:
            raise WorkflowError(f"task {task} left no list of what it made")
        with tempfile.TemporaryDirectory(dir=".snakemake", prefix="hedgerow-") as folder:
            listed = Path(folder) / "made.json"
            self._download(job, task, left["made.json"], listed)
            ended = time.time()
            expected = self._expected.pop(task)
            for entry in read_made(listed):
                if entry["path"] not in expected:
                    raise WorkflowError(f"task {task} says that it made {entry['path']}, which is none of its outputs")
                self._fetch_entry(job, task, left, entry, Path(folder), ended)
                self._made[entry["path"]] = Made(task, root + entry["name"], stamp(entry["path"]))

    def _fetch_entry(
        self, job: int, task: str, left: dict[str, Any], entry: dict[str, Any], folder: Path, ended: float
    ) -> None:
        """Writes a file or folder elsewhere, and moves it to its place when it is whole."""
        target, here = Path(entry["path"]), folder / entry["name"]
        target.parent.mkdir(parents=True, exist_ok=True)
        if "folders" not in entry:
            self._download(job, task, left[entry["name"]], here)
            finish(here, entry, ended)
            return move(here, target)
        for inner in entry["folders"]:
            (here / inner).mkdir(parents=True, exist_ok=True)
        for file in entry["files"]:
            self._download(job, task, left[f"{entry['name']}/{file['path']}"], here / file["path"])
            finish(here / file["path"], file, ended)
        if target.is_dir() and not target.is_symlink():
            shutil.rmtree(target)
        move(here, target)

    def _download(self, job: int, task: str, file: dict[str, Any], target: Path) -> None:
        if file["base64"] is not None:
            target.write_bytes(base64.b64decode(file["base64"]))
        else:
            self._grid.download_file(job, task, file, target)


def read_made(listed: Path) -> list[dict[str, Any]]:
    """What a task says that it made. Raises WorkflowError where a worker made something else of the list."""
    try:
        made = json.loads(listed.read_bytes())
        for entry in made:
            inner = [*entry.get("folders", []), *(file["path"] for file in entry.get("files", []))]
            for path in [entry["name"], *inner]:
                if os.path.isabs(path) or ".." in Path(path).parts:
                    raise ValueError(f"{path!r} lies elsewhere")
        return list(made)
    except (ValueError, KeyError, TypeError) as error:
        raise WorkflowError(f"the list of what a task made cannot be read: {error}") from error


def finish(path: Path, entry: dict[str, Any], ended: float) -> None:
    """Gives a file the mode and, as far as this machine's clock goes, the time that it had."""
    os.utime(path, times=(ended, ended - max(float(entry["age"]), 0.0)))
    path.chmod(int(entry["mode"]) & 0o777)


def move(source: Path, target: Path) -> None:
    """Puts a file or folder where it belongs, also on another file system."""
    try:
        os.replace(source, target)
    except OSError:
        shutil.move(source, target)


def stamp(path: "str | os.PathLike[str]") -> Stamp:
    """Raises OSError."""
    status = os.stat(path)
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def depth(path: str) -> int:
    """How many folders above the working directory a relative path begins."""
    return Path(os.path.normpath(path)).parts.count("..")


def check_relative(path: str) -> None:
    """Raises WorkflowError for an absolute path."""
    if os.path.isabs(path):
        raise WorkflowError(
            f"{path} has an absolute path, and workers share no files with this machine. Nothing was submitted of this "
            "job. Use a path relative to the working directory, or name the folder with --hedgerow-on-workers if every "
            "worker has it"
        )


def archive(paths: Iterable[str], workdir: list[str]) -> bytes:
    """The sources of a workflow as an archive whose names begin ``len(workdir)`` folders above the working directory."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as sources:
        for path in sorted(set(paths)):
            name = os.path.normpath(os.path.join(*workdir, path))
            with open(path, "rb") as file:
                about = sources.gettarinfo(arcname=name, fileobj=file)
                if not about.isreg():
                    continue
                # The same sources are the same content, so that each worker gets them once.
                about.mtime, about.uid, about.gid, about.uname, about.gname = 0, 0, 0, "", ""
                sources.addfile(about, file)
    return content.getvalue()


def small_enough(paths: Iterable[str], needed: Iterable[str]) -> Iterator[str]:
    """Sources that there are, without large files that only the repository names."""
    needed = set(needed)
    for path in paths:
        if os.path.isfile(path) and (path in needed or os.path.getsize(path) <= _SOURCE_BYTES_MAX):
            yield path
