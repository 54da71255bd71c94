"""Runs calls on a worker, which gets this module and ``_values`` with the calls; it uses nothing else of this package.

``python -c START RESULTS [CALLS]``, with what ``_bundle`` names so, reads packed calls from the file CALLS, or in Base64 from standard
input, and writes the packed outcomes to the file RESULTS. Both are in the task's scratch directory, and so are the functions
and large arguments that calls name.
"""

from __future__ import annotations

import atexit
import base64
import contextlib
import fcntl
import gc
import io
import os
import pickle
import select
import signal
import struct
import sys
import threading
import time
from typing import Any, Callable, Optional

from ._values import (
    Outcome,
    dump,
    dump_error,
    load,
    mapped,
    pack,
    pack_outcomes,
    unpack,
    unpack_outcomes,
)

#: The pipe over which a child tells its outcomes holds so many bytes, and is read so many at a time.
_READ_BYTES = 1 << 20
#: While calls are short, outcomes are read no more often than this, seconds: each look takes about as long as such a call.
_LOOK_EVERY_S = 0.001
#: Begins what a child tells of an outcome: the call, the position of its kind, the time, and the number of parts. The
#: sizes of the parts follow, and then these.
_FRAME = struct.Struct("<QBdI")
#: ``fcntl.F_SETPIPE_SZ``, which Python has from version 3.10 on.
_SET_PIPE_SIZE = 1031
_KINDS = ("ok", "error", "stored", "returned", "dependency", "initializer")


class NotRun(Exception):
    """A call cannot be run here and now: what it takes from another call was not made yet."""


class DependencyRaised(Exception):
    """A call whose result is taken raised, or did not come to its end. ``outcome`` is its."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome)
        self.outcome = outcome


class _Arguments(pickle.Unpickler):
    """Reads the arguments of a call; those that are large, or results of other calls, lie in files of their own."""

    #: Files with the results that are taken: the outcomes of their tasks, and the values that lie apart from these.
    results: list[list[str]] = []
    #: How results are written.
    form = "pickle"
    #: Where the machine's workers share files that are in no scratch directory; None where they share none.
    shared: Optional[str] = None

    def persistent_load(self, pid: Any) -> Any:
        kind, name, rest = pid
        if kind == "blob":
            return _load_blob(name, rest)
        outcomes_file, values_file = self.results[name]
        outcomes, _ = unpack_outcomes(mapped(outcomes_file))
        found = [outcome for outcome in outcomes if outcome.call == rest]
        if not found or found[0].kind == "returned":
            raise NotRun
        if found[0].kind == "stored":
            return load(list(unpack(mapped(values_file))[1]), self.form)
        if found[0].kind != "ok":
            raise DependencyRaised(found[0])
        return load(found[0].parts, self.form)


def _load_blob(name: str, buffers: list[str]) -> Any:
    return _Arguments(io.BytesIO(_content(name)), buffers=map(_content, buffers)).load()


def _content(name: str) -> Any:
    """The content of a file that calls name."""
    if _Arguments.shared is not None and not os.path.exists(name):
        name = os.path.join(_Arguments.shared, name)
    return mapped(name)


class Runner:
    """Runs the calls of one file."""

    def __init__(self, header: dict[str, Any], parts: list[memoryview]) -> None:
        self.calls: list[list[Any]] = header["calls"]
        self.payloads = parts
        self.deadline: Optional[float] = header["deadline"]
        self.form: str = header["format"]
        self.functions_name: str = header["functions"]
        #: Where the value of the only call goes; None where it goes to its outcome.
        self.values: Optional[str] = header["values"]
        #: The scratch directory, where the files of the next call are.
        self._folder = os.getcwd()
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
            reader = _Arguments(io.BytesIO(self.payloads[at]), buffers=map(_content, buffers))
            reader.results, reader.form = results, self.form
            function, args, kwargs = reader.load()
            del reader
            run = function or self._function
            assert run is not None
            try:
                result = run(*args, **kwargs)
            finally:
                os.chdir(self._folder)
            del args, kwargs
            parts = dump(result, self.form)
        except NotRun:
            return Outcome(call, "returned", 0.0, [self.payloads[at]])
        except DependencyRaised as raised:
            return Outcome(call, "dependency", 0.0, list(raised.outcome.parts))
        except BaseException as error:
            return self._error(call, "error", began, error)
        kind = "ok"
        if self.values is not None:
            _write(self.values, pack({}, parts))
            kind, parts = "stored", []
        return Outcome(call, kind, time.perf_counter() - began, parts)

    def _error(self, call: int, kind: str, began: float, error: BaseException) -> Outcome:
        return Outcome(call, kind, time.perf_counter() - began, dump_error(error, self.form))


def _write(path: str, pieces: list[Any]) -> None:
    with open(path, "wb") as out:
        out.writelines(pieces)


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
    room = _widen(writes)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.close(reads)
            with os.fdopen(writes, "wb") as told:
                for at in range(begin, len(runner.calls)):
                    outcome = runner.run(at)
                    sizes = list(map(len, outcome.parts))
                    kind = _KINDS.index(outcome.kind)
                    told.write(_FRAME.pack(outcome.call, kind, outcome.seconds, len(sizes)))
                    told.write(struct.pack(f"<{len(sizes)}Q", *sizes))
                    told.writelines(outcome.parts)
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
            if len(more) < room // 2 and len(outcomes) < len(runner.calls):
                time.sleep(_LOOK_EVERY_S)
    finally:
        os.close(reads)
        if late:
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
    return None if late else status


def _widen(pipe: int) -> int:
    """Gives a pipe more room; returns how many bytes it has then."""
    try:
        return fcntl.fcntl(pipe, _SET_PIPE_SIZE, _READ_BYTES)
    except OSError:
        # The user's pipes have too much already.
        return select.PIPE_BUF


def _take(pending: bytearray, outcomes: list[Outcome]) -> None:
    """Takes whole outcomes from what a child told so far."""
    at = 0
    while len(pending) - at >= _FRAME.size:
        call, kind, seconds, count = _FRAME.unpack_from(pending, at)
        place = at + _FRAME.size + 8 * count
        if len(pending) < place:
            break
        sizes = struct.unpack_from(f"<{count}Q", pending, at + _FRAME.size)
        if len(pending) < place + sum(sizes):
            break
        parts: list[Any] = []
        for size in sizes:
            parts.append(bytes(pending[place : place + size]))
            place += size
        outcomes.append(Outcome(call, _KINDS[kind], seconds, parts))
        at = place
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
        content = mapped(calls)
    header, parts = unpack(content)
    _Arguments.shared = header["shared"]
    if header["values"] is not None:
        # The grid expects it of a call that raises, too.
        _write(header["values"], [])
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
    _write(results, pack_outcomes(outcomes, functions))


def leave() -> None:
    """Ends the process as the interpreter does, but for taking modules apart: that takes longer than most calls, because it
    writes to all memory that the process shares with the interpreter that it was forked from.
    """
    shutdown: Any = getattr(threading, "_shutdown", None)
    if shutdown is not None:
        shutdown()
    atexit._run_exitfuncs()
    # The class in C, because the check of the abstract one takes long.
    base = io.IOBase.__mro__[1]
    for file in [one for one in gc.get_objects() if issubclass(type(one), base)] + [sys.stdout, sys.stderr]:
        with contextlib.suppress(Exception):
            file.flush()
    os._exit(0)


def start() -> None:
    """Runs what the command line names, and ends the process."""
    main(*sys.argv[1:])
    leave()


def __hedge_rehearse__() -> None:
    """Runs a call that does nothing, in a process that was forked for calls that are still to come.

    The kernel copies each page of the interpreter's memory when it is first written to, and counting references writes to
    most. Here no call waits for that.
    """
    header = {"calls": [[0, [], []]], "deadline": None, "format": "pickle", "functions": "", "values": None}
    packed = base64.b64encode(b"".join(pack(header, [_REHEARSED_CALL])))
    runner = Runner(*unpack(base64.b64decode(packed)))
    runner._function, _, _ = _Arguments(io.BytesIO(_REHEARSED_FUNCTION)).load()
    runner._ready = True
    with open(os.devnull, "wb") as out:
        out.writelines(pack_outcomes([runner.run(0)], None))


_REHEARSED_CALL = pickle.dumps((None, (0,), {}), 5)
#: Written where cloudpickle is imported already, as in an interpreter that processes are forked from.
_REHEARSED_FUNCTION = b""
if "cloudpickle" in sys.modules:
    _REHEARSED_FUNCTION = sys.modules["cloudpickle"].dumps((lambda value: value, None, ()), 5)
