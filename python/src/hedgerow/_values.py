"""How calls, results and exceptions are written to files. Both sides have this module: workers get it with the calls.

It uses nothing else of this package, and as few other modules as possible: each call imports it.
"""

from __future__ import annotations

import json
import mmap
import os
import pickle
import struct
import traceback
from collections.abc import Iterable
from typing import Any, Optional, Union

#: Begins each packed file; another number is another layout.
MAGIC = b"HGC1"
#: Buffers of results from this size on are kept apart from their pickle, bytes.
OUT_OF_BAND_BYTES = 16 << 10
#: How results are written. Only the first has anything unpickled.
FORMATS = ("pickle", "json", "arrow", "files")
#: Types that the plain pickle writes as well and faster.
PLAIN = frozenset((type(None), bool, int, float, str, bytes))


class Outcome:
    """What became of a call.

    ``kind`` is ``ok``, ``stored`` (it returned, and its value is in a file of its own), ``error`` (it raised), ``crashed``
    (its process ended), ``returned`` (it was not run, or not to its end), ``dependency`` (a call whose result it takes
    raised), ``initializer`` (what is run before calls failed) or ``python`` (another version of Python is needed).
    """

    __slots__ = ("call", "kind", "parts", "seconds")

    def __init__(self, call: int, kind: str, seconds: float, parts: list[Any]) -> None:
        self.call = call
        self.kind = kind
        #: How long it took, with reading its arguments and writing its result.
        self.seconds = seconds
        self.parts = parts


# Files


def pack(header: dict[str, Any], parts: list[Any]) -> list[Any]:
    """One file from a header and parts, as pieces to write one after another."""
    header = dict(header, sizes=[len(part) for part in parts])
    text = json.dumps(header, separators=(",", ":")).encode()
    return [MAGIC, struct.pack("<I", len(text)), text, *parts]


def unpack(content: Any) -> tuple[dict[str, Any], list[memoryview]]:
    """The header and the parts of a file, without copies. Raises ValueError for anything else."""
    view = memoryview(content)
    if bytes(view[:4]) != MAGIC:
        raise ValueError("these are no packed calls or outcomes")
    (length,) = struct.unpack("<I", view[4:8])
    header = json.loads(bytes(view[8 : 8 + length]))
    parts, at = [], 8 + length
    for size in header["sizes"]:
        parts.append(view[at : at + size])
        at += size
    return header, parts


def pack_outcomes(outcomes: list[Outcome], functions: Optional[bytes]) -> list[Any]:
    """A file of outcomes, in pieces. ``functions`` is what returned calls need to be run again."""
    parts: list[Any] = []
    lines = []
    for outcome in outcomes:
        lines.append([outcome.call, outcome.kind, round(outcome.seconds, 7), len(outcome.parts)])
        parts.extend(outcome.parts)
    if functions is not None:
        parts.append(functions)
    return pack({"outcomes": lines, "functions": functions is not None}, parts)


def unpack_outcomes(content: Any) -> tuple[list[Outcome], Optional[memoryview]]:
    """What :func:`pack_outcomes` packed."""
    header, parts = unpack(content)
    outcomes, at = [], 0
    for call, kind, seconds, count in header["outcomes"]:
        outcomes.append(Outcome(call, kind, seconds, list(parts[at : at + count])))
        at += count
    return outcomes, parts[at] if header["functions"] else None


def mapped(path: Union[str, os.PathLike[str]]) -> Any:
    """The content of a file as memory of this process alone; it is read when it is used."""
    with open(path, "rb") as file:
        if os.fstat(file.fileno()).st_size == 0:
            return b""
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)


# Values


def dump(value: Any, form: str) -> list[Any]:
    """A value as parts of a file. Raises whatever the format does not take."""
    if form == "json":
        return [json.dumps(value).encode()]
    if form == "arrow":
        return [_dump_arrow(value)]
    if form == "files":
        return _dump_files(value)
    return dump_pickle(value)


def load(parts: list[Any], form: str) -> Any:
    """What :func:`dump` wrote. Nothing is unpickled but for the format ``pickle``."""
    if form == "json":
        return json.loads(bytes(parts[0]))
    if form == "arrow":
        return _load_arrow(parts[0])
    if form == "files":
        from ._files import Files

        return Files(dict(zip(json.loads(bytes(parts[0])), parts[1:])))
    return pickle.loads(parts[0], buffers=parts[1:])


def out_of_band(buffer: pickle.PickleBuffer) -> Optional[memoryview]:
    """The bytes of a buffer that a pickle leaves out; None where it is short or not contiguous."""
    try:
        raw = buffer.raw()
    except BufferError:
        return None
    return raw if raw.nbytes >= OUT_OF_BAND_BYTES else None


def dump_pickle(value: Any) -> list[Any]:
    """A pickle and the buffers that it leaves out."""
    if type(value) in PLAIN:
        return [pickle.dumps(value, 5)]
    import cloudpickle

    buffers: list[Any] = []

    def keep(buffer: pickle.PickleBuffer) -> bool:
        raw = out_of_band(buffer)
        if raw is not None:
            buffers.append(raw)
        return raw is None

    return [cloudpickle.dumps(value, 5, buffer_callback=keep), *buffers]


def _dump_arrow(value: Any) -> Any:
    import pyarrow

    if not hasattr(value, "__arrow_c_stream__"):
        raise TypeError(f'result_format="arrow" is for tables, and not for {type(value).__name__}')
    table = pyarrow.table(value)
    made = pyarrow.BufferOutputStream()
    with pyarrow.ipc.new_stream(made, table.schema) as stream:
        stream.write_table(table)
    return memoryview(made.getvalue())


def _load_arrow(part: Any) -> Any:
    import pyarrow

    with pyarrow.ipc.open_stream(pyarrow.py_buffer(part)) as stream:
        table = stream.read_all()
    # Another machine wrote it: offsets that lead elsewhere are found here.
    table.validate(full=True)
    return table


def _dump_files(value: Any) -> list[Any]:
    paths = [value] if isinstance(value, (str, os.PathLike)) else value
    if not isinstance(paths, Iterable):
        raise TypeError(f'with result_format="files" a call returns paths, and not {type(value).__name__}')
    named = {_inside(os.fspath(path)): path for path in paths}
    return [json.dumps(list(named)).encode(), *map(mapped, named.values())]


def _inside(path: str) -> str:
    """The name of a file below the working directory. Raises ValueError for another one."""
    name = os.path.relpath(os.path.realpath(path), os.path.realpath("."))
    if name == ".." or name.startswith("../"):
        raise ValueError(f"{path} is not in the call's working directory")
    return name


# Exceptions


def dump_error(error: BaseException, form: str) -> list[Any]:
    """An exception as parts: its traceback, its last line, and, for the format ``pickle`` where that is possible, itself."""
    frames = error.__traceback__ and error.__traceback__.tb_next
    text = "".join(traceback.format_exception(type(error), error, frames))
    # The frames hold what the call worked on.
    error.__traceback__ = None
    name = "".join(traceback.format_exception_only(type(error), error)).strip()
    parts: list[Any] = [text.encode(errors="replace"), name.encode(errors="replace")]
    if form != "pickle":
        return parts
    # Many classes take other arguments than those that they give to their base, and cannot be made again from these.
    for value in (error, (type(error), error.args, dict(error.__dict__))):
        try:
            written = dump_pickle(value)
            load_error(written)
        except BaseException:
            continue
        return parts + written
    return parts


def load_error(parts: list[Any]) -> Optional[BaseException]:
    """The exception of :func:`dump_error`. Raises what unpickling raises."""
    found = pickle.loads(parts[0], buffers=parts[1:])
    if isinstance(found, tuple):
        kind, args, attributes = found
        found = kind.__new__(kind, *args)
        found.args = args
        found.__dict__.update(attributes)
    return found if isinstance(found, BaseException) else None
