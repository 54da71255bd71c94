"""Writes functions and arguments so that a worker can read them, and reads what comes back."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import site
import sys
import sysconfig
import threading
import types
import weakref
from collections import ChainMap
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Callable, Optional

import cloudpickle

from ._values import PLAIN, out_of_band

#: Arguments from this size on are blobs, which travel to each worker once, bytes. The grid's limit for content that
#: travels inside messages.
BLOB_BYTES = 16 << 10
#: Gives the number of the call behind a future; None for a future of another executor.
NumberOf = Callable[[Any], Optional[int]]
#: Pickled arguments from this size on are looked at one by one, bytes.
_SPLIT_BYTES = 64 << 10


_FOREIGN = "a future of another executor cannot be an argument; take its result() first"


@dataclass(frozen=True)
class Blob:
    """Content that is brought to the grid once, by a digest of it."""

    name: str
    content: Any = field(repr=False, compare=False)
    #: What it was written from, where that cannot change.
    source: Any = field(default=None, repr=False, compare=False)


def blob(content: Any, source: Any = None) -> Blob:
    """Names content, and copies it if it may change. The same content is in memory once, however many calls have it."""
    mark = _mark_of(content)
    if mark is not None:
        with _blobs_lock:
            known = _marked.get(mark)
        # They are equally long, so that this compares all of it.
        if known is not None and known.content.startswith(content):
            return known
    # On most processors it is the fastest of those that withstand attacks.
    name = f"b-{hashlib.sha256(content).hexdigest()[:32]}"
    with _blobs_lock:
        known = _blobs.get(name)
        if known is None:
            known = _blobs[name] = Blob(name, content if type(content) is bytes else bytes(content), source)
        if mark is not None:
            _marked[mark] = known
        return known


def _mark_of(content: Any) -> Optional[tuple[Any, ...]]:
    """What large content that is the same has in common; None for short content."""
    length = len(content)
    if length < _COMPARED_BYTES:
        return None
    places = (0, length // 3, length // 2, length - _MARK_BYTES)
    return (length, *(bytes(content[place : place + _MARK_BYTES]) for place in places))


#: From this size on content is compared with known content before it is hashed, which takes several times as long, bytes.
_COMPARED_BYTES = 64 << 10
#: Bytes at each of the places that tell whether comparing is worth it.
_MARK_BYTES = 64
_marked: weakref.WeakValueDictionary[tuple[Any, ...], Blob] = weakref.WeakValueDictionary()
_blobs: weakref.WeakValueDictionary[str, Blob] = weakref.WeakValueDictionary()
_blobs_lock = threading.Lock()


class Referred:
    """What is written into arguments as the name of a file that the worker has."""


class Shared(Referred):
    """A value that was brought to the grid, to be an argument of many calls: see ``Executor.put``."""

    def __init__(self, parts: list[Blob]) -> None:
        #: Its pickle, and the buffers that the pickle leaves out.
        self.parts = parts


@dataclass
class Payload:
    """A call as a worker reads it."""

    pickle: bytes
    #: Blobs that take the place of the pickle's buffers, in their order.
    buffers: list[Blob]
    #: All blobs that it needs.
    blobs: list[Blob]
    #: Calls whose results it takes, in the order in which the pickle names them.
    dependencies: list[Any]


def _reduce_code(code: types.CodeType) -> Any:
    """As cloudpickle, which leaves out in which file the code is: tracebacks name it, with a line that is in it."""
    make, args = cloudpickle.Pickler.dispatch_table[types.CodeType](code)
    return make, tuple(code.co_filename if arg == "<dynamic-code>" else arg for arg in args)


class _Writer(cloudpickle.Pickler):  # type: ignore[misc,unused-ignore]
    """Writes arguments. Futures and shared values become names of files that the worker has."""

    dispatch_table = ChainMap({types.CodeType: _reduce_code}, cloudpickle.Pickler.dispatch_table)

    def __init__(
        self, file: io.BytesIO, keep: Callable[[pickle.PickleBuffer], bool], refer: Callable[[Any], Any]
    ) -> None:
        super().__init__(file, 5, buffer_callback=keep)
        self._refer = refer

    def persistent_id(self, value: Any) -> Any:
        """The name of a value that lies in a file of its own; None for any other."""
        if isinstance(value, Referred):
            return self._refer(value)
        if isinstance(value, Future):
            raise pickle.PicklingError(_FOREIGN)
        return None


class _Apart(Referred):
    """An argument that is written to a blob of its own."""

    def __init__(self, parts: list[Blob]) -> None:
        self.parts = parts


def write_call(
    function: Optional[Callable[..., Any]],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    number_of: NumberOf,
) -> Payload:
    """Writes a call. ``number_of`` gives the number of the call behind a future.

    Raises whatever pickling raises.
    """
    args = tuple(map(_text_apart, args))
    if function is None and not kwargs and all(type(arg) in PLAIN for arg in args):
        plain = pickle.dumps((None, args, kwargs), 5)
        if len(plain) < _SPLIT_BYTES:
            return Payload(plain, [], [], [])
    kwargs = {name: _text_apart(value) for name, value in kwargs.items()}
    written = _write((function, args, kwargs), number_of)
    if len(written.pickle) < _SPLIT_BYTES:
        return written
    apart = tuple(_apart(arg, number_of) for arg in args)
    named = {name: _apart(value, number_of) for name, value in kwargs.items()}
    return _write((function, apart, named), number_of)


def _write(value: Any, number_of: NumberOf) -> Payload:
    buffers: list[Blob] = []
    blobs: list[Blob] = []
    dependencies: list[Any] = []

    def keep(buffer: pickle.PickleBuffer) -> bool:
        raw = out_of_band(buffer)
        if raw is not None:
            # The caller may go on to change the buffer.
            buffers.append(blob(raw))
        return raw is None

    def refer(value: Any) -> Any:
        if isinstance(value, (Shared, _Apart)):
            blobs.extend(value.parts)
            return ("blob", value.parts[0].name, [part.name for part in value.parts[1:]])
        number = number_of(value)
        if number is None:
            raise pickle.PicklingError(_FOREIGN)
        dependencies.append(value)
        return ("call", len(dependencies) - 1, number)

    file = io.BytesIO()
    with by_value_lock:
        register_local_modules()
        _Writer(file, keep, refer).dump(value)
    return Payload(file.getvalue(), buffers, buffers + blobs, dependencies)


def _apart(value: Any, number_of: NumberOf) -> Any:
    """A large argument as a blob of its own; any other as it is."""
    if isinstance(value, Referred):
        return value
    written = _write(value, number_of)
    if len(written.pickle) < BLOB_BYTES or written.dependencies or len(written.blobs) > len(written.buffers):
        return value
    return _Apart([blob(written.pickle), *written.buffers])


def _text_apart(value: Any) -> Any:
    """A large text or large bytes as a blob; any other value as it is. They cannot change, so that many calls with the
    same object write it once.
    """
    if type(value) not in (bytes, str) or len(value) < BLOB_BYTES:
        return value
    with _blobs_lock:
        known = _texts.get(id(value))
    if known is None:
        known = blob(pickle.dumps(value, 5), source=value)
        if known.source is value:
            with _blobs_lock:
                _texts[id(value)] = known
    return _Apart([known])


#: Blobs by the identity of what they were written from, which they keep alive.
_texts: weakref.WeakValueDictionary[int, Blob] = weakref.WeakValueDictionary()


def share(value: Any) -> Shared:
    """Writes a value that is to be an argument of many calls."""
    written = _write(value, lambda _: None)
    return Shared([blob(written.pickle), *written.buffers])


class Functions:
    """Functions as blobs, each written once."""

    def __init__(self, initializer: Optional[Callable[..., object]], initargs: tuple[Any, ...]) -> None:
        self._initializer = (initializer, initargs)
        self._known: weakref.WeakKeyDictionary[Any, Blob] = weakref.WeakKeyDictionary()
        self._none: Optional[Blob] = None

    def of(self, function: Callable[..., Any]) -> Optional[Blob]:
        """The blob with a function that stays what it is; None for a callable with state, which goes with each call."""
        if not isinstance(function, (types.FunctionType, types.BuiltinFunctionType, type)):
            return None
        try:
            found = self._known.get(function)
            if found is None:
                found = self._write(function)
                self._known[function] = found
            return found
        except TypeError:
            # A built-in function that has no weak references.
            return self._write(function)

    def none(self) -> Blob:
        """The blob for calls that bring their function along."""
        if self._none is None:
            self._none = self._write(None)
        return self._none

    def _write(self, function: Optional[Callable[..., Any]]) -> Blob:
        written = _write((function, *self._initializer), lambda _: None)
        if written.blobs:
            # Its buffers belong into the one file that functions are read from.
            with by_value_lock:
                return blob(cloudpickle.dumps((function, *self._initializer), 5))
        return blob(written.pickle)


#: Registration of modules is global to cloudpickle.
by_value_lock = threading.RLock()
_seen_modules: set[str] = set()


def _installed_folders() -> tuple[str, ...]:
    paths = sysconfig.get_paths()
    known = [paths["stdlib"], paths["platstdlib"], paths["purelib"], paths["platlib"]]
    known += site.getsitepackages() if hasattr(site, "getsitepackages") else []
    known.append(site.getusersitepackages())
    # Debian has both.
    known += ["/usr/lib/python3", f"/usr/lib/python3.{sys.version_info[1]}"]
    both = {os.path.join(path, "") for path in known} | {os.path.join(os.path.realpath(path), "") for path in known}
    return tuple(both)


_INSTALLED = _installed_folders()


#: The folder of this package, which may be a source tree: it and its tests' classes are never sent.
_OWN = __name__.partition(".")[0]


def register_local_modules() -> None:
    """Has cloudpickle send modules of the user's own by value: a worker cannot import what is not installed there."""
    if len(sys.modules) == len(_seen_modules):
        return
    for name, module in list(sys.modules.items()):
        if name in _seen_modules:
            continue
        _seen_modules.add(name)
        path = getattr(module, "__file__", None)
        if not path or name == "__main__" or name.partition(".")[0] in (_OWN, "cloudpickle"):
            continue
        if os.path.abspath(path).startswith(_INSTALLED) or sys.modules.get(name) is not module:
            continue
        try:
            cloudpickle.register_pickle_by_value(module)
        except ValueError:
            # It is known under another name.
            continue
