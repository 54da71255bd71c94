//! What is tried, and what stops it in each kind of sandbox.

/// How an attempt ends, and why.
#[derive(Clone, Copy, Debug)]
pub enum Found {
    Held(&'static str),
    /// Not stopped: [`hedge_exec::Report`] says so.
    Open(&'static str),
}

/// One attempt.
pub struct Row {
    /// Its name in the helper.
    pub name: &'static str,
    pub tries: &'static str,
    /// In a view, and with Landlock alone.
    pub stopped_by: [Found; 2],
}

const fn row(name: &'static str, tries: &'static str, stopped_by: [Found; 2]) -> Row {
    Row {
        name,
        tries,
        stopped_by,
    }
}

use Found::{Held, Open};

const VIEW: &str = "not in the view";
const LANDLOCK: &str = "Landlock";
const FILTER: &str = "the filter of system calls";
const MARKS: &str =
    "the spawner makes the call, in the task's folders alone; or the task's user owns nothing";
const SIGNALS: &str = "the spawner checks signals; or the task's user may send none";
const OTHERS: &str = "the spawner checks calls on others; or the task's user may not";
const READ_ONLY: &str = "read-only mount";
const PIDS: &str = "a pid namespace";
const CAPABILITY: &str = "no capability";
const KEYRING: &str = "the filter of system calls, an empty session keyring";
const NETWORK: &str = "a network namespace";
const LIMIT: &str = "the kernel, a hard limit";

#[rustfmt::skip]
pub const TABLE: &[Row] = &[
    row("read-key", "read the worker's key", [Held(VIEW), Held(LANDLOCK)]),
    row("read-ssh", "read the owner's ssh key", [Held(VIEW), Held(LANDLOCK)]),
    row("read-open-file", "read a file of the owner that anybody may read", [Held(VIEW), Held(LANDLOCK)]),
    row("list-home", "list the owner's home", [Held(VIEW), Held(LANDLOCK)]),
    row("write-home", "make a file in the owner's home", [Held(VIEW), Held(LANDLOCK)]),
    row("write-open-file", "overwrite a file that anybody may write", [Held(VIEW), Held(LANDLOCK)]),
    row("truncate-file", "truncate such a file", [Held(VIEW), Held(LANDLOCK)]),
    row("rename-file", "rename a file of the owner", [Held(VIEW), Held(LANDLOCK)]),
    row("take-file", "move a file of the owner into the task's folder", [Held(VIEW), Held(LANDLOCK)]),
    row("link-file", "link a file of the owner into the task's folder", [Held(VIEW), Held(LANDLOCK)]),
    row("remove-file", "remove a file of the owner", [Held(VIEW), Held(LANDLOCK)]),
    row("make-folder", "make a folder in the owner's home", [Held(VIEW), Held(LANDLOCK)]),
    row("chmod-home", "open the owner's home to everybody", [Held(VIEW), Held(MARKS)]),
    row("chmod-ssh", "open the owner's .ssh", [Held(VIEW), Held(MARKS)]),
    row("chmod-key", "open a key", [Held(VIEW), Held(MARKS)]),
    row("chmod-by-old-call", "open a key by the oldest call", [Held(VIEW), Held(MARKS)]),
    row("chmod-through-link", "open a key through a symbolic link", [Held(VIEW), Held(MARKS)]),
    row("chmod-by-fchmodat2", "open a key by the newest call", [Held(VIEW), Held(MARKS)]),
    row("chmod-base", "close the folder of all scratch folders", [Held(VIEW), Held(MARKS)]),
    row("chmod-neighbour", "open a neighbour's folder", [Held(VIEW), Held(MARKS)]),
    row("touch-key", "set a file's times", [Held(VIEW), Held(MARKS)]),
    row("chmod-program", "set the set-user-id bit on a program", [Held(READ_ONLY), Held(MARKS)]),
    row("chmod-device", "close /dev/null", [Held(READ_ONLY), Held(MARKS)]),
    row("chown-key", "give a file away", [Held(VIEW), Held(FILTER)]),
    row("mark-key", "set an extended attribute of a file", [Held(VIEW), Held("the filter of system calls; or the task's user owns nothing")]),
    row("read-shadow", "read the passwords' hashes", [Held("/etc is a copy without it; the task's user owns nothing"), Held("the task's user may not read it")]),
    row("read-gshadow", "read the groups' passwords", [Held("/etc is a copy without it; the task's user owns nothing"), Held("the task's user may not read it")]),
    row("write-etc", "make a file in /etc", [Held(READ_ONLY), Held(LANDLOCK)]),
    row("write-usr", "make a file in /usr", [Held(READ_ONLY), Held(LANDLOCK)]),
    row("write-sysctl", "set a switch of the kernel", [Held(READ_ONLY), Held(LANDLOCK)]),
    row("write-sysrq", "ask the kernel to restart", [Held(READ_ONLY), Held(LANDLOCK)]),
    row("read-kcore", "read the kernel's memory", [Held(CAPABILITY), Held(LANDLOCK)]),
    row("write-cgroup", "make a control group", [Held(VIEW), Held(LANDLOCK)]),
    row("list-neighbour", "list a neighbour's folder", [Held(VIEW), Held(LANDLOCK)]),
    row("read-neighbour", "read a neighbour's file", [Held(VIEW), Held(LANDLOCK)]),
    row("write-neighbour", "write into a neighbour's folder", [Held(VIEW), Held(LANDLOCK)]),
    row("watch-home", "hear of changes in the owner's home", [Held(FILTER), Held(FILTER)]),
    row("watch-etc", "hear of changes in /etc", [Held(FILTER), Held(FILTER)]),
    row("watch-neighbour", "hear of changes in a neighbour's folder", [Held(FILTER), Held(FILTER)]),
    row("fanotify", "hear of all opened files", [Held(FILTER), Held(FILTER)]),
    row("name-to-handle", "get a handle of a file", [Held(FILTER), Held(FILTER)]),
    row("open-by-handle", "open a file by its handle", [Held(FILTER), Held(FILTER)]),
    row("make-character-device", "make a device", [Held(CAPABILITY), Held(LANDLOCK)]),
    row("make-block-device", "make a device", [Held(CAPABILITY), Held(LANDLOCK)]),
    row("stat-key", "look up size and times of a file", [Held(VIEW), Open("Landlock does not restrict it: Weakness::Names")]),
    row("see-worker", "tell that the worker's process exists", [Held(PIDS), Open("/proc shows it: Weakness::Processes")]),
    row("read-command-line", "read the worker's command line, with a ticket", [Held(PIDS), Held(LANDLOCK)]),
    row("read-environment", "read the worker's environment", [Held(PIDS), Held(LANDLOCK)]),
    row("read-memory", "read the worker's memory", [Held(PIDS), Held(LANDLOCK)]),
    row("list-descriptors", "list what the worker has open", [Held(PIDS), Held(LANDLOCK)]),
    row("list-root", "reach files by the worker's root", [Held(PIDS), Held(LANDLOCK)]),
    row("oom-score", "have the kernel kill the worker when memory is short", [Held(PIDS), Held(LANDLOCK)]),
    row("kill-worker", "signal the worker", [Held(PIDS), Held(SIGNALS)]),
    row("wake-worker", "wake the worker", [Held(PIDS), Held(SIGNALS)]),
    row("kill-workers-group", "signal the worker's group", [Held(PIDS), Held(SIGNALS)]),
    row("kill-worker-by-thread", "signal a thread of the worker", [Held(PIDS), Held(SIGNALS)]),
    row("queue-signal", "queue a signal for the worker", [Held(PIDS), Held(SIGNALS)]),
    row("signal-by-descriptor", "signal the worker by a descriptor", [Held(PIDS), Held(SIGNALS)]),
    row("files-of-worker", "take the worker's open files away", [Held(FILTER), Held(FILTER)]),
    row("files-of-spawner", "take the spawner's open files away, for all clients", [Held(FILTER), Held(FILTER)]),
    row("time-of-spawner", "have the spawner killed by a limit of CPU time", [Held(FILTER), Held(FILTER)]),
    row("limits-of-worker", "read the worker's limits", [Held(FILTER), Held(FILTER)]),
    row("renice-worker", "lower the worker's priority", [Held(PIDS), Held(OTHERS)]),
    row("pin-worker", "pin the worker to a CPU", [Held(PIDS), Held(OTHERS)]),
    row("idle-worker", "give the worker idle priority", [Held(PIDS), Held(OTHERS)]),
    row("renice-spawner", "lower the spawner's priority", [Held(FILTER), Held(FILTER)]),
    row("pin-spawner", "pin the spawner to a CPU", [Held(FILTER), Held(FILTER)]),
    row("idle-spawner", "give the spawner idle priority", [Held(FILTER), Held(FILTER)]),
    row("io-priority-of-spawner", "lower the spawner's priority at disks", [Held(FILTER), Held(FILTER)]),
    row("renice-user", "lower the priority of all of the user's processes", [Held(FILTER), Held(FILTER)]),
    row("io-priority-of-user", "lower the priority of all of the user's processes at disks", [Held(FILTER), Held(FILTER)]),
    row("trace-worker", "trace the worker", [Held(FILTER), Held(FILTER)]),
    row("trace-spawner", "trace the spawner", [Held(FILTER), Held(FILTER)]),
    row("memory-of-worker", "read another's memory", [Held(FILTER), Held(FILTER)]),
    row("descriptor-of-spawner", "take a descriptor of the spawner", [Held(FILTER), Held(FILTER)]),
    row("pages-of-worker", "move another's memory", [Held(FILTER), Held(FILTER)]),
    row("compare-worker", "compare what processes have", [Held(FILTER), Held(FILTER)]),
    row("keyring-id", "find the owner's keyring", [Held(KEYRING), Held(KEYRING)]),
    row("keyring-revoke", "revoke the owner's keys", [Held(KEYRING), Held(KEYRING)]),
    row("keyring-search", "find a key in the session's keyring", [Held(KEYRING), Held(KEYRING)]),
    row("keyring-of-user", "find a key in the user's keyring", [Held(KEYRING), Held(KEYRING)]),
    row("keyring-add", "add a key", [Held(KEYRING), Held(KEYRING)]),
    row("key-request", "ask for a key", [Held(KEYRING), Held(KEYRING)]),
    row("shared-memory-of-owner", "find shared memory of the owner", [Held(FILTER), Held(FILTER)]),
    row("shared-memory-new", "make shared memory for others to find", [Held(FILTER), Held(FILTER)]),
    row("semaphores", "make semaphores", [Held(FILTER), Held(FILTER)]),
    row("messages", "make a queue of messages", [Held(FILTER), Held(FILTER)]),
    row("message-queue", "make a POSIX queue of messages", [Held(FILTER), Held(FILTER)]),
    row("shared-file-of-owner", "read POSIX shared memory of the owner", [Held("/dev/shm of its own"), Held(LANDLOCK)]),
    row("tcp", "connect to a service", [Held(NETWORK), Held(FILTER)]),
    row("udp", "send to a service", [Held(NETWORK), Held(FILTER)]),
    row("mptcp", "connect to a service by multipath TCP", [Held(NETWORK), Held(FILTER)]),
    row("unix-socket", "connect to a service's Unix socket", [Held(VIEW), Held(FILTER)]),
    row("abstract-socket", "connect to an abstract Unix socket", [Held(NETWORK), Held(FILTER)]),
    row("socket-vsock", "reach the virtual machine's host", [Held(FILTER), Held(FILTER)]),
    row("socket-packet", "read packets", [Held(FILTER), Held(FILTER)]),
    row("socket-raw", "send raw packets", [Held(FILTER), Held(FILTER)]),
    row("socket-crypto", "use the kernel's ciphers", [Held(FILTER), Held(FILTER)]),
    row("socket-netlink-events", "hear of devices", [Held(FILTER), Held(FILTER)]),
    row("socket-bluetooth", "use Bluetooth", [Held(FILTER), Held(FILTER)]),
    row("socket-can", "use a CAN bus", [Held(FILTER), Held(FILTER)]),
    row("io-uring", "make system calls by a ring", [Held(FILTER), Held(FILTER)]),
    row("userfaultfd", "handle page faults", [Held(FILTER), Held(FILTER)]),
    row("bpf", "load a program into the kernel", [Held(FILTER), Held(FILTER)]),
    row("perf", "watch the processor", [Held(FILTER), Held(FILTER)]),
    row("mount", "mount something", [Held(FILTER), Held(FILTER)]),
    row("unmount", "uncover what a mount covers", [Held(FILTER), Held(FILTER)]),
    row("open-tree", "copy a mount", [Held(FILTER), Held(FILTER)]),
    row("new-user-namespace", "make a user namespace", [Held(FILTER), Held(FILTER)]),
    row("new-network", "make a network namespace", [Held(FILTER), Held(FILTER)]),
    row("clone-user-namespace", "make a user namespace with a process", [Held(FILTER), Held(FILTER)]),
    row("set-namespace", "enter a namespace", [Held(FILTER), Held(FILTER)]),
    row("chroot", "change the root", [Held(FILTER), Held(FILTER)]),
    row("pivot-root", "exchange the root", [Held(FILTER), Held(FILTER)]),
    row("host-name", "set the machine's name", [Held(FILTER), Held(FILTER)]),
    row("set-clock", "set the clock", [Held(FILTER), Held(FILTER)]),
    row("kernel-log", "read the kernel's log", [Held(FILTER), Held(FILTER)]),
    row("kexec", "load another kernel", [Held(FILTER), Held(FILTER)]),
    row("kernel-module", "load a module", [Held(FILTER), Held(FILTER)]),
    row("swap", "use a file as swap", [Held(FILTER), Held(FILTER)]),
    row("accounting", "switch accounting on", [Held(FILTER), Held(FILTER)]),
    row("quota", "change quotas", [Held(FILTER), Held(FILTER)]),
    row("personality", "weaken the layout of memory", [Held(FILTER), Held(FILTER)]),
    row("hang-up", "hang up the terminal", [Held(FILTER), Held(FILTER)]),
    row("segments", "change the processor's segments", [Held(FILTER), Held(FILTER)]),
    row("ports", "use the processor's ports", [Held(FILTER), Held(FILTER)]),
    row("memory-file", "hide memory in a nameless file", [Held(FILTER), Held(FILTER)]),
    row("secret-memory", "hide memory from the kernel", [Held(FILTER), Held(FILTER)]),
    row("aio", "use up the machine's asynchronous requests", [Held(FILTER), Held(FILTER)]),
    row("terminal-input", "type into a terminal", [Held(FILTER), Held(FILTER)]),
    row("become-root", "become root", [Held(CAPABILITY), Held(CAPABILITY)]),
    row("set-groups", "drop groups that deny something", [Held(CAPABILITY), Held(CAPABILITY)]),
    row("leave-idle", "leave idle priority", [Held("the kernel, RLIMIT_NICE 0"), Held("the kernel, RLIMIT_NICE 0")]),
    row("real-time", "get real-time priority", [Held("the kernel, RLIMIT_RTPRIO 0"), Held("the kernel, RLIMIT_RTPRIO 0")]),
    row("real-time-io", "get real-time priority at disks", [Held(CAPABILITY), Held(CAPABILITY)]),
    row("negative-nice", "get a higher priority", [Held("the kernel, RLIMIT_NICE 0"), Held("the kernel, RLIMIT_NICE 0")]),
    row("more-processes", "raise the limit on processes", [Held(LIMIT), Held(LIMIT)]),
    row("core-files", "write core files", [Held(LIMIT), Held(LIMIT)]),
    row("timer-with-sigcont", "be woken by a timer while stopped", [Held(FILTER), Held(FILTER)]),
    row("input-with-sigcont", "be woken by input while stopped", [Held(FILTER), Held(FILTER)]),
    row("input-signals-others", "have the kernel signal another at input", [Held(FILTER), Held(FILTER)]),
    row("input-signals-others-by-ioctl", "the same by another call", [Held(FILTER), Held(FILTER)]),
    row("parents-end-with-sigcont", "be woken by a parent's end", [Held(FILTER), Held(FILTER)]),
    row("childs-end-with-sigcont", "be woken by a child's end", [Held(FILTER), Held(FILTER)]),
    row("lease", "hold up others who open a file", [Held(FILTER), Held(FILTER)]),
    row("folder-signals", "get signals at changes of a folder", [Held(FILTER), Held(FILTER)]),
];
