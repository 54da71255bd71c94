"""Finds the program ``hedge`` that belongs to this package."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from ._errors import BinaryNotFound
from ._version import __version__

NAME = "hedge"
#: Environment variable with the path of the program, for those who build it themselves.
OVERRIDE = "HEDGEROW_BINARY"
#: How long the program may take to print its version, seconds.
_VERSION_WITHIN_S = 30


def _candidates() -> Iterator[Path]:
    """Where an installer may have put the program, likeliest first."""
    yield Path(sysconfig.get_path("scripts")) / NAME
    # `pip install --prefix` and `--target` have a folder `bin` beside or above the package.
    package = Path(__file__).resolve().parent
    yield package.parent / "bin" / NAME
    if len(package.parents) > 3:
        yield package.parents[3] / "bin" / NAME
    user = "posix_user" if os.name == "posix" else "nt_user"
    if sys.version_info >= (3, 10):
        user = sysconfig.get_preferred_scheme("user")
    yield Path(sysconfig.get_path("scripts", scheme=user)) / NAME
    found = shutil.which(NAME)
    if found is not None:
        yield Path(found)


def _version_of(path: Path) -> str:
    ended = subprocess.run(
        [os.fspath(path), "--version"],
        capture_output=True,
        text=True,
        timeout=_VERSION_WITHIN_S,
        check=False,
    )
    return ended.stdout.strip().rpartition(" ")[2]


@functools.lru_cache(maxsize=None)
def _checked(path: Path) -> Path:
    version = _version_of(path)
    if version != __version__:
        raise BinaryNotFound(
            f"{path} is of version {version or 'unknown'}, and this package of version {__version__}; nothing was "
            f"started. Install both together: pip install --force-reinstall hedgerow=={__version__}"
        )
    return path


def find_hedge() -> Path:
    """Path of the program.

    Raises BinaryNotFound where there is none, or one of another version.
    """
    override = os.environ.get(OVERRIDE)
    if override:
        return _checked(Path(override))
    tried = list(_candidates())
    for path in tried:
        if path.is_file() and os.access(path, os.X_OK):
            return _checked(path)
    places = ", ".join(dict.fromkeys(str(path) for path in tried))
    raise BinaryNotFound(
        f"the program {NAME} is not installed; looked at {places}. Reinstall the package, or set {OVERRIDE} to its path"
    )
