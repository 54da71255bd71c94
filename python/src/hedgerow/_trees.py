"""Trees: folders that calls see as they are here, read-only. They are packed by ``hedge`` and brought to the gateway."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional, Union

from ._binary import find_hedge
from ._errors import GridError
from ._grid import Grid

#: A folder, which calls see at its own path, or a folder and the path at which they see it.
MountLike = Union[str, "os.PathLike[str]", tuple[Union[str, "os.PathLike[str]"], str]]
#: Folders of the worker's machine that calls see.
_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib64", "/etc", "/opt", "/nix/store", "/gnu/store")


@dataclass(frozen=True)
class Mount:
    """A folder that calls see."""

    folder: Path
    #: Its absolute path there.
    at: str

    def seen(self, path: str) -> Optional[str]:
        """Where calls see a path of this machine, if it is in the folder."""
        return self.at + path[len(str(self.folder)) :] if _within(path, str(self.folder)) else None


def read_mounts(mounts: Iterable[MountLike]) -> tuple[Mount, ...]:
    """Checks what a user gave. Raises TypeError and ValueError."""
    if isinstance(mounts, (str, os.PathLike)):
        raise TypeError(f"mounts is a list of folders: mounts=[{os.fspath(mounts)!r}]")
    read = []
    for one in mounts:
        pair = one if isinstance(one, tuple) else (one, None)
        if len(pair) != 2 or not isinstance(pair[0], (str, os.PathLike)) or not isinstance(pair[1], (str, type(None))):
            raise TypeError(f"a mount is a folder, or a folder and a path, and not {one!r}")
        # As for `hedge`: links stay, because programs in an environment name its path in this way.
        folder = Path(os.path.abspath(pair[0]))
        if not folder.is_dir():
            raise ValueError(f"mounts names {folder}, which is not a folder")
        at = pair[1] or str(folder)
        if not at.startswith("/"):
            raise ValueError(f"mounts shows {folder} at {at!r}, which is not an absolute path")
        read.append(Mount(folder, at))
    return tuple(read)


def interpreter(mounts: tuple[Mount, ...]) -> Optional[str]:
    """The path at which calls see this interpreter, if it is in a tree."""
    return next(filter(None, (mount.seen(os.path.abspath(sys.executable)) for mount in mounts)), None)


def check_interpreter(python: str, mounts: tuple[Mount, ...]) -> None:
    """Raises ValueError where an interpreter in a tree is that of a virtual environment, and its home is not seen."""
    for mount in mounts:
        if not _within(python, mount.at):
            continue
        here = Path(f"{mount.folder}{python[len(mount.at) :]}")
        home = _home(here.parent.parent / "pyvenv.cfg")
        if home is None or any(_within(home, folder) for folder in (*_SYSTEM, *(other.at for other in mounts))):
            continue
        base = os.path.dirname(home)
        raise ValueError(
            f"the interpreter {python} of a virtual environment is a link into {base}, which calls do not see; "
            f"add it: mounts=[{str(mount.folder)!r}, {base!r}]"
        )


def bring(grid: Grid, mounts: tuple[Mount, ...]) -> dict[str, dict[str, str]]:
    """Packs folders and brings them to the gateway; gives the files of a submission that they are. Raises GridError."""
    files = {}
    for number, mount in enumerate(mounts):
        with tempfile.TemporaryDirectory(prefix="hedgerow-") as spool:
            for name, path in _packed(mount.folder, spool):
                files[f"{tree(number)}/{name}"] = {"blake3": _upload(grid, Path(path))}
    return files


def tables(mounts: tuple[Mount, ...]) -> list[dict[str, Any]]:
    """``mounts`` of a task."""
    return [{"tree": tree(number), "at": mount.at} for number, mount in enumerate(mounts)]


def tree(number: int) -> str:
    """The name of a tree among the files of a submission."""
    return f"tree-{number}"


def _packed(folder: Path, spool: str) -> Iterator[tuple[str, str]]:
    command = [os.fspath(find_hedge()), "pack", "--json", "--out", spool, os.fspath(folder)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode != 0:
        raise GridError("local", f"the folder {folder} was not packed, and nothing was sent: {ended.stderr.strip()}")
    listed = json.loads(ended.stdout)
    yield "manifest", listed["manifest"]["path"]
    for number, pack in enumerate(listed["packs"]):
        yield str(number), pack["path"]


def _upload(grid: Grid, path: Path) -> str:
    try:
        return grid.upload_file(path)
    except OSError as error:
        raise GridError("local", f"{path} of a tree cannot be read, and nothing was sent: {error}") from error


def _home(config: Path) -> Optional[str]:
    """The folder with the interpreter that a virtual environment was made with."""
    try:
        lines = config.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    for line in lines:
        key, _, value = line.partition("=")
        if key.strip() == "home":
            return value.strip()
    return None


def _within(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")
