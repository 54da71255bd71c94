"""``python -m hedgerow`` is ``hedge``."""

from __future__ import annotations

import os
import sys

from ._binary import find_hedge
from ._errors import BinaryNotFound


def main() -> None:
    """Becomes the program."""
    try:
        path = os.fspath(find_hedge())
    except BinaryNotFound as error:
        sys.exit(f"error: {error}")
    os.execv(path, [path, *sys.argv[1:]])


if __name__ == "__main__":
    main()
