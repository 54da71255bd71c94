"""Files to and from a gateway, in parts: they need not fit into memory."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import BinaryIO

from ._errors import GridError
from ._http import UnixConnection, problem

#: What is read and written at once, bytes.
_PART_BYTES = 1 << 20


def upload_file(socket_path: str, file: BinaryIO) -> str:
    """Brings a file to the gateway and gives its hash. Raises GridError, OSError and HTTPException."""
    connection = UnixConnection(socket_path)
    try:
        file.seek(0)
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(os.fstat(file.fileno()).st_size)}
        connection.request("POST", "/v1/blobs", _parts(file), headers)
        response = connection.getresponse()
        content = response.read()
        if response.status >= 400:
            raise problem(response.status, content)
        return str(json.loads(content)["blake3"])
    finally:
        connection.close()


def download_file(socket_path: str, path: str, file: BinaryIO) -> None:
    """Writes what the gateway has at ``path`` to a file. Raises GridError, OSError and HTTPException."""
    connection = UnixConnection(socket_path)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        if response.status >= 400:
            raise problem(response.status, response.read())
        file.seek(0)
        left = response.length or 0
        while left > 0:
            part = response.read(min(left, _PART_BYTES))
            if not part:
                raise ConnectionError(f"the last {left} bytes are missing")
            _write(file, part)
            left -= len(part)
    finally:
        connection.close()


def _write(file: BinaryIO, part: bytes) -> None:
    try:
        file.write(part)
    except OSError as error:
        raise GridError("local", f"{file.name} cannot be written: {error}; the grid keeps the content") from error


def _parts(file: BinaryIO) -> Iterator[bytes]:
    while part := file.read(_PART_BYTES):
        yield part
