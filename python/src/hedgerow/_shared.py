"""Large arguments as files that calls on this machine map into memory, where workers need no copy of their own."""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
from collections.abc import Iterable
from pathlib import Path

from ._pickling import Blob

#: Shorter content goes through the grid, bytes.
_BYTES_MIN = 1 << 20
#: So many times the content has to be free on the disk.
_ROOM_TIMES = 4


class SharedFiles:
    """The files of one local grid. Each stays until all executors that use it are shut down, or the grid is closed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._users: dict[str, int] = {}
        self._lock = threading.Lock()

    def hold(self, known: Blob) -> bool:
        """Writes content to a file, for one executor; False where it is short or there is no room for it."""
        size = len(known.content)
        if size < _BYTES_MIN:
            return False
        with self._lock:
            users = self._users.get(known.name, 0)
            if users == 0 and not self._write(known, size):
                return False
            self._users[known.name] = users + 1
            return True

    def _write(self, known: Blob, size: int) -> bool:
        path, new = self.folder / known.name, self.folder / f"{known.name}.new"
        try:
            self.folder.mkdir(exist_ok=True)
            if shutil.disk_usage(self.folder).free < _ROOM_TIMES * size:
                return False
            new.write_bytes(known.content)
            new.chmod(0o444)
            os.replace(new, path)
        except OSError:
            with contextlib.suppress(OSError):
                new.unlink()
            return False
        return True

    def release(self, names: Iterable[str]) -> None:
        """An executor has no calls any more that name these files."""
        with self._lock:
            for name in names:
                self._users[name] -= 1
                if self._users[name] == 0:
                    del self._users[name]
                    with contextlib.suppress(OSError):
                        (self.folder / name).unlink()
