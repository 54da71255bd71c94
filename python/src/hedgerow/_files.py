"""Files as results of calls. Workers have this module, too."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Union


class Files(Mapping[str, memoryview]):
    """Files that a call left, by their names: what calls return with ``result_format="files"``."""

    def __init__(self, content: dict[str, memoryview]) -> None:
        self._content = content

    def __getitem__(self, name: str) -> memoryview:
        return self._content[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._content)

    def __len__(self) -> int:
        return len(self._content)

    def __repr__(self) -> str:
        return f"<hedgerow.Files {', '.join(self._content)}>"

    def save(self, folder: Union[str, os.PathLike[str]] = ".") -> list[str]:
        """Writes the files below a folder, over files of the same names, and gives their paths.

        Raises ValueError for a name that leads out of the folder; nothing is written then.
        """
        for name in self._content:
            if not name or os.path.isabs(name) or ".." in name.split("/"):
                raise ValueError(f"the file name {name!r} leads out of the folder")
        paths = [os.path.join(folder, name) for name in self._content]
        for path, content in zip(paths, self._content.values()):
            os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
            with open(path, "wb") as file:
                file.write(content)
        return paths
