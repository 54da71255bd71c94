# The interpreter that attempts are forked from. It imports modules once, and then makes one process for each request of
# the spawner. It sees nothing of an attempt: the process itself receives arguments, environment and files, over a
# socket of its own.
#
# The spawner puts the numbers of system calls in front. Descriptor 3 leads to it, and `sys.argv` names the modules.
# Python 3.9 or newer.
import sys

CONTROL = 3
SIGCHLD = 17
CLONE_PARENT, CLONE_CHILD_CLEARTID, CLONE_CHILD_SETTID = 0x8000, 0x200000, 0x1000000
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_GET_TID_ADDRESS = 1, 4, 40
RLIMIT_FSIZE = 1
FILES_MAX = 16
OWN = "<hedge>"


def path_entries():
    if sys.flags.ignore_environment:
        return []
    return [one for one in os.environ.get("PYTHONPATH", "").split(":") if one]


def own_trace(trace):
    """Leaves out what is not the attempt's."""
    while trace and trace.tb_frame.f_code.co_filename == OWN:
        trace = trace.tb_next
    return trace


def report(error):
    """Reports an exception as the interpreter does at its end."""
    trace = own_trace(error.__traceback__)
    error.__traceback__ = trace
    sys.last_type, sys.last_value, sys.last_traceback = type(error), error, trace
    if sys.version_info >= (3, 12):
        sys.last_exc = error
    try:
        sys.excepthook(type(error), error, trace)
    except SystemExit:
        raise
    except BaseException:
        sys.__excepthook__(type(error), error, trace)


def preload():
    for name in sys.argv[1:]:
        try:
            __import__(name)
        except SystemExit:
            raise
        except BaseException as error:
            print("While the module", name, "was preloaded:", file=sys.stderr)
            report(error)
            raise SystemExit(1) from None


class System:
    """The system calls that Python has no functions for."""

    def __init__(self):
        # The lock of the interpreter stays taken.
        library = ctypes.PyDLL(None, use_errno=True)
        self.python = ctypes.pythonapi
        self.raw = library.syscall
        self.raw.restype = ctypes.c_long
        self.raw.argtypes = [ctypes.c_long] * 6
        self.prctl = library.prctl
        self.prctl.argtypes = [ctypes.c_int] + [ctypes.c_ulong] * 4
        # What the C library tells the kernel at a start, and would again after a fork of its own.
        self.robust, length = ctypes.c_void_p(), ctypes.c_size_t()
        self.call(GET_ROBUST_LIST, 0, address(self.robust), address(length))
        self.robust_bytes = length.value
        place = ctypes.c_void_p()
        self.flags, self.tid = CLONE_PARENT | SIGCHLD, 0
        known = self.prctl(PR_GET_TID_ADDRESS, address(place), 0, 0, 0) == 0 and place.value
        if known and ctypes.c_int.from_address(place.value).value == os.getpid():
            self.flags |= CLONE_CHILD_SETTID | CLONE_CHILD_CLEARTID
            self.tid = place.value

    def call(self, number, *args):
        done = self.raw(number, *args, *[0] * (5 - len(args)))
        if done < 0:
            error = ctypes.get_errno()
            raise OSError(error, os.strerror(error))
        return done

    def control(self, option, value):
        if self.prctl(option, value, 0, 0, 0) != 0:
            error = ctypes.get_errno()
            raise OSError(error, os.strerror(error))

    def fork(self):
        """Makes a process that is the spawner's child; 0 in it."""
        self.python.PyOS_BeforeFork()
        # The last two have another order on other processors; the other one is not used.
        pid = self.raw(CLONE, self.flags, 0, 0, self.tid, self.tid)
        if pid == 0:
            if self.robust.value:
                self.raw(SET_ROBUST_LIST, self.robust.value, self.robust_bytes, 0, 0, 0)
            self.python.PyOS_AfterFork_Child()
            return 0
        error = ctypes.get_errno()
        self.python.PyOS_AfterFork_Parent()
        if pid < 0:
            raise OSError(error, os.strerror(error))
        return pid


def address(of):
    return ctypes.addressof(of)


def serve():
    """Makes processes; returns in each of them, with the descriptor of its socket and whether it waits for its attempt."""
    control = _socket.socket(fileno=CONTROL)
    sys.stdout.flush()
    sys.stderr.flush()
    os.write(CONTROL, b"ready")
    hidden = False
    while True:
        said, files, _, _ = control.recvmsg(64, _socket.CMSG_SPACE(4))
        if not said or not files:
            os._exit(0)
        if not hidden:
            os.dup2(0, 1)
            os.dup2(0, 2)
            # What is forked from it may not look into it.
            system.control(PR_SET_DUMPABLE, 0)
            gc.collect()
            gc.freeze()
            hidden = True
        channel = int.from_bytes(files[0][2][:4], sys.byteorder)
        try:
            pid = system.fork()
        except OSError as error:
            pid = None
            control.send(b"failed %d" % error.errno)
        if pid == 0:
            control.detach()
            return channel, said == b"spare"
        os.close(channel)
        if pid is not None:
            control.send(b"pid %d" % pid)


def receive(link, bytes_wanted):
    parts = []
    while bytes_wanted > 0:
        part = link.recv(min(bytes_wanted, 1 << 20))
        if not part:
            os._exit(127)
        parts.append(part)
        bytes_wanted -= len(part)
    return b"".join(parts)


def rehearse():
    """Does what an attempt's process does first, as far as that changes nothing: the kernel copies each page of the
    template's memory when it is first written to, and here no attempt waits for it. Modules may have more to do."""
    for name in sys.argv[1:]:
        hook = getattr(sys.modules.get(name), "__hedge_rehearse__", None)
        try:
            if hook:
                hook()
        except Exception:
            pass
    # What it prints is no attempt's.
    sys.stdout.flush()
    sys.stderr.flush()
    environment = [name + b"=" + value for name, value in os.environb.items()]
    words = b"\0".join(environment).split(b"\0")
    for one in environment:
        name, _, value = one.partition(b"=")
        os.environb[name] = value
    exec(compile("from os import path", "<string>", "exec", dont_inherit=True), {"__name__": "<hedge>"})
    for word in words:
        os.fsdecode(word)


def begin(channel, waits):
    """Becomes the attempt's process; returns what it is to run."""
    link = _socket.socket(fileno=channel)
    if waits:
        rehearse()
    head, files, _, _ = link.recvmsg(8, _socket.CMSG_SPACE(4 * FILES_MAX))
    if not files:
        os._exit(127)
    numbers = files[0][2]
    files = [int.from_bytes(numbers[at : at + 4], sys.byteorder) for at in range(0, len(numbers), 4)]
    head += receive(link, 8 - len(head))
    fields = receive(link, int.from_bytes(head, "little")).split(b"\0")
    form, target, most, idle, parent, count, rest = fields[:7]
    words, env = fields[7 : 7 + int(count)], fields[7 + int(count) :]
    step = "streams"
    try:
        for number, file in enumerate(files[:4]):
            os.dup2(file, number)
        step = "folder"
        os.fchdir(files[4])
        os.setpgid(0, 0)
        step = "limits"
        if most:
            limit = (ctypes.c_uint64 * 2)(int(most), int(most))
            system.call(PRLIMIT, 0, RLIMIT_FSIZE, address(limit), 0)
        step = "sandbox"
        system.control(PR_SET_PDEATHSIG, 9)
        if os.getppid() != int(parent):
            os._exit(127)
        if len(files) > 5:
            system.call(RESTRICT_SELF, files[5])
        system.control(PR_SET_DUMPABLE, 1)
        step = "limits"
        if idle == b"1":
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    except OSError as error:
        link.send(b"%s %d" % (step.encode(), error.errno or 0))
        os._exit(127)
    for file in files:
        os.close(file)
    os.environ.clear()
    for one in env:
        name, _, value = one.partition(b"=")
        os.environb[name] = value
    if COERCED:
        os.environ.setdefault("LC_CTYPE", COERCED)
    link.send(b"begun")
    link.close()
    return form, os.fsdecode(target), [os.fsdecode(word) for word in words], int(rest)


def settle(modules):
    """Does what depends on the attempt and an interpreter does when it starts."""
    random = modules.get("numpy.random")
    if hasattr(random, "seed"):
        random.seed()
    site = modules.get("site")
    if site and site.ENABLE_USER_SITE:
        site.USER_BASE = site.USER_SITE = None
        site.addusersitepackages(None)
    own, known = path_entries(), PATH_ENTRIES
    if own != known:
        rest = [one for one in sys.path if one not in known]
        sys.path[:] = [os.path.abspath(one) for one in own] + rest


def new_main():
    """Makes a main module: the old one is frozen, so that what an attempt puts there would not end with it."""
    old = sys.modules["__main__"].__dict__
    new = type(sys)("__main__")
    new.__dict__.clear()
    new.__dict__.update(old)
    sys.modules["__main__"] = new
    return new.__dict__


def flush():
    """Writes what is left in the attempt's open files. The interpreter closes them when it takes modules apart, but not
    those that are kept in a frozen module."""
    own = [one for one in gc.get_objects() if issubclass(type(one), _io._IOBase)]
    for one in [sys.stdout, sys.stderr] + own:
        try:
            one.flush()
        except Exception:
            # As where the interpreter closes a file that nobody has closed.
            pass


def run(form, target, words, rest):
    """Runs what the command names, as the interpreter does. The last `rest` of its words are arguments of that."""
    settle(sys.modules)
    main = new_main()
    sys.argv = [{b"c": "-c", b"m": "-m"}.get(form, target)] + words[len(words) - rest :]
    if hasattr(sys, "orig_argv"):
        sys.orig_argv = words
    if form == b"c":
        first = ""
    elif form == b"m":
        first = os.getcwd()
    else:
        first = os.path.dirname(os.path.realpath(target))
        if not os.path.isabs(target):
            target = os.path.join(os.getcwd(), target)
        if pkgutil.get_importer(target) is not None:
            sys.path.insert(0, target)
            return runpy._run_module_as_main("__main__", False)
    if HAS_FIRST:
        sys.path.insert(0, first)
    if form == b"m":
        # It is run anew as the main module, and its name is free until then.
        sys.modules.pop(target, None)
        return runpy._run_module_as_main(target)
    if form == b"c":
        source, name = target, "<string>"
        if sys.version_info >= (3, 13):
            lines = [line + "\n" for line in target.splitlines()]
            linecache.cache[name] = (len(target), None, lines, name)
    else:
        name = target
        try:
            with open(target, "rb") as file:
                source = file.read()
        except OSError as error:
            print("%s: can't open file %r: [Errno %d] %s" % (words[0], target, error.errno, error.strerror), file=sys.stderr)
            raise SystemExit(2) from None
        loaders = importlib.machinery
        loader = loaders.SourcelessFileLoader if target.endswith(".pyc") else loaders.SourceFileLoader
        main.update(__file__=target, __cached__=None, __loader__=loader("__main__", target))
        if target.endswith(".pyc"):
            source = loader("__main__", target).get_code("__main__")
    code = compile(source, name, "exec", dont_inherit=True) if isinstance(source, (str, bytes)) else source
    exec(code, main)


try:
    import _io
    import _socket
    import atexit
    import ctypes
    import gc
    import importlib.machinery
    import linecache
    import os
    import pkgutil
    import runpy

    system = System()
except (ImportError, AttributeError, OSError) as error:
    import os

    os.write(CONTROL, b"cannot " + str(error).encode())
    os._exit(0)
HAS_FIRST = sys.path[:1] == [""]
if HAS_FIRST:
    del sys.path[0]
PATH_ENTRIES = path_entries()
# An interpreter sets it where nothing names a locale.
COERCED = os.environ.get("LC_CTYPE")
# The last of all functions at the end, because it is the first.
atexit.register(flush)
preload()
what = begin(*serve())
try:
    run(*what)
except SystemExit:
    raise
except BaseException as error:
    report(error)
    if not isinstance(error, KeyboardInterrupt):
        raise SystemExit(1) from None
    # The interpreter then ends itself by the signal.
    sys.excepthook = lambda *error: None
    raise
