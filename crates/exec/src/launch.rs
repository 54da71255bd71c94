//! An attempt to run, and how it ended: plain data.

use crate::Permissions;
use hedge_model::Ending;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Bytes of the end of each captured stream that are kept in memory; also the default for all that is kept.
pub const TAIL_BYTES: u64 = 64 << 10;

/// One attempt to run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Launch {
    /// The program: a path with a `/`, relative to the folder that it starts in, or a name that is searched in the attempt's
    /// folder and then in `PATH`.
    pub program: String,
    /// Its arguments, without its name.
    pub args: Vec<String>,
    /// Variables that are added to [`crate::SpawnerConfig::env`] or replace those there. `HOME` and `TMPDIR` are the attempt's
    /// folders, and `PWD` is where it starts, unless set here.
    pub env: Vec<(String, String)>,
    /// The absolute path of the folder that it starts in; none for the attempt's own folder.
    pub cwd: Option<PathBuf>,
    /// Standard input.
    pub stdin: Stdin,
    /// How much it may use.
    pub limits: Limits,
    /// Its permissions beyond those of every attempt.
    pub permissions: Permissions,
    /// Bytes to keep of the end of each captured stream; none for [`TAIL_BYTES`]. More than that is kept in a file, see
    /// [`crate::Scratch::spilled`].
    pub kept_bytes: Option<u64>,
    /// The interpreter that its process is forked from, if it is. [`crate::Runner`] sets it by the task's runtime.
    pub warm: Option<Box<Warm>>,
}

/// An interpreter that attempts of one job are forked from; see [`hedge_model::spec::Runtime::Python`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Warm {
    /// The job's number. Attempts of other jobs are forked from other interpreters.
    pub job: u64,
    /// Modules that it imports before any attempt.
    pub preload: Vec<String>,
}

impl Launch {
    /// Creates an attempt of `program` with `args`, without limits.
    pub fn new<A: Into<String>>(
        program: impl Into<String>,
        args: impl IntoIterator<Item = A>,
    ) -> Launch {
        Launch {
            program: program.into(),
            args: args.into_iter().map(Into::into).collect(),
            ..Launch::default()
        }
    }
}

/// What an attempt reads on its standard input.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stdin {
    /// Nothing: `/dev/null`.
    #[default]
    Null,
    /// The content that [`crate::Scratch::place_stdin`] has written.
    Placed,
}

/// What an attempt may use. `None` is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Longest running time; time for which it is paused does not count.
    pub time: Option<Duration>,
    /// The most memory of all its processes together, in bytes. It is measured every 50 ms, so that a little more may be
    /// used for a moment.
    pub memory: Option<u64>,
    /// The most bytes that it may add to its folders, measured every 200 ms and at its end. No single file can grow to
    /// more than a page beyond that.
    pub disk: Option<u64>,
}

/// The priority of attempts among the machine's other programs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Priority {
    /// Only processor time that nobody else wants (`SCHED_IDLE`). It takes effect when the program has been loaded, because
    /// a process with it from the start could block the spawner for as long as the machine is busy.
    #[default]
    Idle,
    /// Like any program; for machines that have nothing else to do.
    Normal,
}

/// How an attempt ended and what it used.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Exit {
    /// How it ended; `Ok` is exit status 0. These endings do not contain what it printed.
    pub outcome: Result<(), Ending>,
    /// What it used.
    pub usage: Usage,
    /// What it wrote to standard output.
    pub stdout: Tail,
    /// What it wrote to standard error.
    pub stderr: Tail,
}

impl Exit {
    /// Returns a success that used nothing.
    pub(crate) fn success() -> Exit {
        Exit::with(Ok(()))
    }

    /// Returns the end of an attempt that had no process.
    pub(crate) fn without_process(ending: Ending) -> Exit {
        Exit::with(Err(ending))
    }

    fn with(outcome: Result<(), Ending>) -> Exit {
        Exit {
            outcome,
            usage: Usage::default(),
            stdout: Tail::default(),
            stderr: Tail::default(),
        }
    }
}

/// What an attempt used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// From the start of its main process to its end, without the time for which it was paused.
    pub elapsed: Duration,
    /// How long it was paused meanwhile.
    pub paused: Duration,
    /// User and system time of its main process and all descendants that were waited for. Orphans count if they ended
    /// before the attempt was reported.
    pub cpu: Duration,
    /// Peak memory in bytes: of its largest process, or of all together if a memory limit has them measured. Never less
    /// than the spawner uses (about 3 MiB), because a process first shares its parent's memory and the kernel counts that.
    pub memory_peak: u64,
}

/// The progress of an attempt.
///
/// A program may report it in lines on the descriptor whose number is in `HEDGE_PROGRESS_FD`. A number from 0 to 1 is the
/// share of its work that is done. A line that begins with `waiting` says that it waits for a good reason until its next
/// line; `waiting for job 7` names a job of its own grid. `checkpoint` requests that its checkpoint is saved now. Any other
/// line counts as progress.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Advanced {
    /// User and system time of its processes, and of those of their children that have ended.
    pub cpu: Duration,
    /// Bytes that they have written to files, pipes and devices.
    pub written: u64,
    /// Thousandths of its work that are done, if it reports them.
    pub permille: Option<u16>,
    /// The number of lines that it reported.
    pub notes: u32,
    /// Whether it reports that it waits, or is paused.
    pub waiting: bool,
    /// The number of the job that it reports to wait for.
    pub waits_for: Option<u64>,
    /// How often it requested that its checkpoint is saved.
    pub checkpoints: u32,
}

/// One of an attempt's captured streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamKind {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// The end of a captured stream.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tail {
    /// Bytes written in all.
    pub total: u64,
    /// The last of them, at most [`TAIL_BYTES`].
    #[serde(with = "crate::wire::bytes")]
    pub bytes: Vec<u8>,
    /// The number of last bytes that are kept in a file, if these are more than `bytes`.
    pub spilled: Option<u64>,
}

/// What isolates attempts from the machine and from each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Sandbox {
    /// Each attempt has its own namespaces with a view of system folders, devices, `/proc` and its scratch folders;
    /// Landlock in addition, if the kernel has it.
    View {
        /// The kernel's Landlock ABI, 0 for none.
        landlock: u32,
    },
    /// Landlock and a filter of system calls, if namespaces are refused. Programs get no sockets but those that the network
    /// needs. [`Report::weaknesses`] says what this does not prevent.
    Landlock {
        /// The kernel's Landlock ABI.
        abi: u32,
    },
    /// None, because the owner chose so.
    None,
}

/// Something that a sandbox does not prevent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Weakness {
    /// Tasks can look up names, sizes and times of files outside of their folders.
    Names,
    /// Tasks can find out which processes exist.
    Processes,
    /// Tasks run as the worker's own user: only rules keep them from this user's files and processes.
    SameUser,
    /// Tasks run as root: they can read what only root may read in system folders.
    Root {
        /// The folder above theirs that no other user may enter, if that is the reason.
        closed: Option<PathBuf>,
    },
}

impl Weakness {
    /// Returns what tasks can do, as a clause.
    pub fn text(&self) -> String {
        let text = match self {
            Weakness::Names => {
                "tasks can look up names, sizes and times of files outside of their folders"
            }
            Weakness::Processes => "tasks can tell which processes exist",
            Weakness::SameUser => {
                "tasks run as the worker's own user and share its limits on processes"
            }
            Weakness::Root { .. } => {
                "tasks run as root and can read what only root may read in system folders"
            }
        };
        match self {
            Weakness::Root {
                closed: Some(folder),
            } => format!(
                "{text}, because other users may not enter {folder:?} (chmod 711 it, or choose another --dir)"
            ),
            _ => text.to_owned(),
        }
    }
}

/// What the spawner could set up on this machine; for `hedge doctor` and logs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The sandbox in force.
    pub sandbox: Sandbox,
    /// Why the sandbox is not a [`Sandbox::View`]; none if it is one.
    pub reduced: Option<String>,
    /// What the sandbox does not prevent.
    pub weaknesses: Vec<Weakness>,
    /// The id of the user that attempts run as, if that is not the worker's user.
    pub task_user: Option<u32>,
    /// Most processes and threads of an attempt; `None` without a sandbox.
    pub processes_max: Option<u64>,
    /// Whether attempts are cut off from the network.
    pub network_cut: bool,
    /// Whether attempts are in their own control group, which the kernel freezes as a whole when they are paused. Otherwise
    /// each process gets a signal.
    pub freezer: bool,
    /// Whether attempts run at `SCHED_IDLE`.
    pub idle: bool,
    /// Whether the kernel divides the processor between login sessions before priorities count (`sched_autogroup`). Then
    /// idle tasks still take a session's share from programs in other sessions that are not in control groups.
    pub autogroup: bool,
}

impl Report {
    /// Returns what would be set up for a worker with this folder. With Landlock alone, tasks of a root worker run as other
    /// users only if these may enter it.
    pub fn for_worker_in(mut self, folder: &Path) -> Report {
        let landlock = matches!(self.sandbox, Sandbox::Landlock { .. });
        let closed = crate::user::closed_above(&folder.join("scratch"));
        if landlock && self.task_user.is_some() && closed.is_some() {
            self.task_user = None;
            self.weaknesses.push(Weakness::Root { closed });
        }
        self
    }
}
