"""Runs calls on a worker. Brought there as a single module, ``hedgerow_worker``, so that it uses nothing of this package.

``python -m hedgerow_worker RESULTS [CALLS]`` reads packed calls from the file CALLS, or in Base64 from standard input, and
writes the packed outcomes to the file RESULTS. Both are in the task's scratch directory, and so are the functions and large
arguments that calls name.
"""

from __future__ import annotations

import base64
import io
import json
import mmap
import os
import pickle
import select
import signal
import struct
import sys
import time
import traceback
from typing import Any, Callable, Optional

#: Begins each packed file; another number is another layout.
MAGIC = b"HGC1"
#: Buffers of results from this size on are kept apart from their pickle, bytes.
OUT_OF_BAND_BYTES = 16 << 10
#: The descriptor over which a child tells its outcomes is read so many bytes at a time.
_READ_BYTES = 1 << 20


class Outcome:
    """What became of a call.

    ``kind`` is ``ok``, ``error`` (it raised), ``crashed`` (its process ended), ``returned`` (it was not run, or not to its
    end), ``initializer`` (what is run before calls failed) or ``python`` (another version of Python is needed).
    """

    __slots__ = ("call", "kind", "parts", "seconds")

    def __init__(self, call: int, kind: str, seconds: float, parts: list[Any]) -> None:
        self.call = call
        self.kind = kind
        #: How long it took, with reading its arguments and writing its result.
        self.seconds = seconds
        self.parts = parts


def pack(header: dict[str, Any], parts: list[Any]) -> bytes:
    """One file from a header and parts."""
    header = dict(header, sizes=[len(part) for part in parts])
    text = json.dumps(header, separators=(",", ":")).encode()
    return b"".join([MAGIC, struct.pack("<I", len(text)), text, *parts])


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


def pack_outcomes(outcomes: list[Outcome], functions: Optional[bytes]) -> bytes:
    """A file of outcomes. ``functions`` is what returned calls need to be run again."""
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


class NotRun(Exception):
    """A call cannot be run here and now: what it takes from another call was not made yet."""


class DependencyRaised(Exception):
    """A call whose result is taken raised, or did not come to its end. ``outcome`` is its."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome)
        self.outcome = outcome


class _Arguments(pickle.Unpickler):
    """Reads the arguments of a call; those that are large, or results of other calls, lie in files of their own."""

    #: Files with the results that are taken.
    results: list[str] = []

    def persistent_load(self, pid: Any) -> Any:
        kind, name, rest = pid
        if kind == "blob":
            return _load_blob(name, rest)
        outcomes, _ = unpack_outcomes(_mapped(self.results[name]))
        found = [outcome for outcome in outcomes if outcome.call == rest]
        if not found or found[0].kind == "returned":
            raise NotRun
        if found[0].kind != "ok":
            raise DependencyRaised(found[0])
        return pickle.loads(found[0].parts[0], buffers=found[0].parts[1:])


def _mapped(path: str) -> Any:
    """The content of a file as memory of this process alone; it is read when it is used."""
    with open(path, "rb") as file:
        if os.fstat(file.fileno()).st_size == 0:
            return b""
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)


def _load_blob(name: str, buffers: list[str]) -> Any:
    return _Arguments(io.BytesIO(_mapped(name)), buffers=map(_mapped, buffers)).load()


class Runner:
    """Runs the calls of one file."""

    def __init__(self, header: dict[str, Any], parts: list[memoryview]) -> None:
        self.calls: list[list[Any]] = header["calls"]
        self.payloads = parts
        self.deadline: Optional[float] = header["deadline"]
        self.json: bool = header["format"] == "json"
        self.functions_name: str = header["functions"]
        self._function: Optional[Callable[..., Any]] = None
        self._ready = False

    def prepare(self) -> Optional[Outcome]:
        """Reads the function and runs the initializer; an outcome for all calls where that fails."""
        if self._ready:
            return None
        began = time.perf_counter()
        try:
            self._function, initializer, arguments = _load_blob(self.functions_name, [])
        except BaseException as error:
            return self._error(0, "error", began, error)
        try:
            if initializer is not None:
                initializer(*arguments)
        except BaseException as error:
            return self._error(0, "initializer", began, error)
        self._ready = True
        return None

    def run(self, at: int) -> Outcome:
        """Runs the call at a position."""
        call, buffers, results = self.calls[at]
        failed = self.prepare()
        # What is done once for all calls does not make one of them long.
        began = time.perf_counter()
        if failed is not None:
            return Outcome(call, failed.kind, failed.seconds, failed.parts)
        try:
            reader = _Arguments(io.BytesIO(self.payloads[at]), buffers=map(_mapped, buffers))
            reader.results = results
            function, args, kwargs = reader.load()
            del reader
            run = function or self._function
            assert run is not None
            result = run(*args, **kwargs)
            del args, kwargs
            parts = self._dump(result)
        except NotRun:
            return Outcome(call, "returned", 0.0, [self.payloads[at]])
        except DependencyRaised as raised:
            return Outcome(call, "dependency", 0.0, list(raised.outcome.parts))
        except BaseException as error:
            return self._error(call, "error", began, error)
        return Outcome(call, "ok", time.perf_counter() - began, parts)

    def _dump(self, result: Any) -> list[Any]:
        if self.json:
            return [json.dumps(result).encode()]
        return dump(result)

    def _error(self, call: int, kind: str, began: float, error: BaseException) -> Outcome:
        frames = error.__traceback__ and error.__traceback__.tb_next
        text = "".join(traceback.format_exception(type(error), error, frames))
        # The frames hold what the call worked on.
        error.__traceback__ = None
        name = "".join(traceback.format_exception_only(type(error), error)).strip()
        parts: list[Any] = [text.encode(errors="replace"), name.encode(errors="replace")]
        if not self.json:
            try:
                parts += dump(error)
                pickle.loads(parts[2], buffers=parts[3:])
            except BaseException:
                del parts[2:]
        return Outcome(call, kind, time.perf_counter() - began, parts)


def out_of_band(buffer: pickle.PickleBuffer) -> Optional[memoryview]:
    """The bytes of a buffer that a pickle leaves out; None where it is short or not contiguous."""
    try:
        raw = buffer.raw()
    except BufferError:
        return None
    return raw if raw.nbytes >= OUT_OF_BAND_BYTES else None


def dump(value: Any) -> list[Any]:
    """A pickle and the buffers that it leaves out."""
    if type(value) in _PLAIN:
        return [pickle.dumps(value, 5)]
    import cloudpickle

    buffers: list[Any] = []

    def keep(buffer: pickle.PickleBuffer) -> bool:
        raw = out_of_band(buffer)
        if raw is not None:
            buffers.append(raw)
        return raw is None

    return [cloudpickle.dumps(value, 5, buffer_callback=keep), *buffers]


#: Types that the plain pickle writes as well and faster.
_PLAIN = frozenset((type(None), bool, int, float, str, bytes))


def _run_batch(runner: Runner) -> list[Outcome]:
    """Runs calls one after another in a child process, so that one that crashes or takes long costs no other."""
    outcomes: list[Outcome] = []
    deadline = time.monotonic() + (runner.deadline or 0)
    while len(outcomes) < len(runner.calls):
        begun = len(outcomes)
        status = _run_in_child(runner, begun, outcomes, deadline)
        if len(outcomes) == len(runner.calls):
            break
        if status is None:
            # Too late: the call that runs needs a process of its own, and the others have waited for long enough.
            for at in range(len(outcomes), len(runner.calls)):
                slow = 1.0 if at == len(outcomes) and at > begun else 0.0
                outcomes.append(Outcome(runner.calls[at][0], "returned", slow, [runner.payloads[at]]))
            break
        why = f"its process ended with exit code {os.WEXITSTATUS(status)}"
        if os.WIFSIGNALED(status):
            why = f"its process was ended by signal {os.WTERMSIG(status)} ({_signal_name(os.WTERMSIG(status))})"
        outcomes.append(Outcome(runner.calls[len(outcomes)][0], "crashed", 0.0, [why.encode()]))
    return outcomes


def _run_in_child(runner: Runner, begin: int, outcomes: list[Outcome], deadline: float) -> Optional[int]:
    """Adds outcomes from the call at ``begin`` on; gives the child's wait status, or None where time was up."""
    reads, writes = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.close(reads)
            with os.fdopen(writes, "wb") as told:
                for at in range(begin, len(runner.calls)):
                    packed = pack_outcomes([runner.run(at)], None)
                    told.write(struct.pack("<Q", len(packed)))
                    told.write(packed)
                    told.flush()
            code = 0
        finally:
            os._exit(code)
    os.close(writes)
    late, pending = False, bytearray()
    try:
        while True:
            left = deadline - time.monotonic()
            if not select.select([reads], [], [], max(left, 0))[0]:
                late = True
                break
            more = os.read(reads, _READ_BYTES)
            if not more:
                break
            pending += more
            _take(pending, outcomes)
    finally:
        os.close(reads)
        if late:
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
    return None if late else status


def _take(pending: bytearray, outcomes: list[Outcome]) -> None:
    """Takes whole outcomes from what a child told so far."""
    at = 0
    while len(pending) - at >= 8:
        (length,) = struct.unpack_from("<Q", pending, at)
        if len(pending) - at - 8 < length:
            break
        outcomes += unpack_outcomes(bytes(pending[at + 8 : at + 8 + length]))[0]
        at += 8 + length
    del pending[:at]


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return "unknown"


def main(results: str, calls: Optional[str] = None) -> None:
    """Runs the calls and writes what became of them."""
    if calls is None:
        content: Any = base64.b64decode(sys.stdin.buffer.read())
    else:
        content = _mapped(calls)
    header, parts = unpack(content)
    here = "%d.%d" % sys.version_info[:2]
    if header["python"] != here:
        told = [here.encode(), sys.executable.encode()]
        outcomes = [Outcome(call, "python", 0.0, told) for call, _, _ in header["calls"]]
    else:
        runner = Runner(header, parts)
        if len(runner.calls) == 1:
            outcomes = [runner.run(0)]
        else:
            outcomes = _run_batch(runner)
    functions = None
    if any(outcome.kind == "returned" for outcome in outcomes):
        with open(header["functions"], "rb") as file:
            functions = file.read()
    with open(results, "wb") as out:
        out.write(pack_outcomes(outcomes, functions))


if __name__ == "__main__":
    main(*sys.argv[1:])
