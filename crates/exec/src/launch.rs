//! An attempt to run, and how it ended: plain data.

use crate::Permissions;
use hedge_model::Ending;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How much is kept of the end of each captured stream in memory, and how much at all by default, bytes.
pub const TAIL_BYTES: u64 = 64 << 10;

/// One attempt to run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Launch {
    /// What to execute: a path with a `/`, relative to the attempt's folder, or a name that is looked for
    /// in the attempt's folder and then in `PATH`.
    pub program: String,
    /// Its arguments, without its name.
    pub args: Vec<String>,
    /// Environment, over that of [`crate::SpawnerConfig::env`]. `HOME`, `TMPDIR` and `PWD` are set to the
    /// attempt's folders unless named here.
    pub env: Vec<(String, String)>,
    /// Standard input.
    pub stdin: Stdin,
    /// How much it may use.
    pub limits: Limits,
    /// What it may use beyond what every attempt may.
    pub permissions: Permissions,
    /// How much to keep of the end of each captured stream, bytes; `None` for [`TAIL_BYTES`]. Beyond these it is kept in
    /// a file, see [`crate::Scratch::spilled`].
    pub kept_bytes: Option<u64>,
    /// What its process is forked from, if from something.
    pub warm: Option<Box<Warm>>,
}

/// An interpreter that attempts of one job are forked from; see [`hedge_model::spec::Runtime::Python`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Warm {
    /// The job's number. Attempts of other jobs are forked from other interpreters.
    pub job: u64,
    /// Modules that it imports beforehand.
    pub preload: Vec<String>,
}

impl Launch {
    /// An attempt of `program` with `args`, without limits.
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
    /// What [`crate::Scratch::place_stdin`] has written.
    Placed,
}

/// What an attempt may use. `None` is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Longest running time; time for which it is paused does not count.
    pub time: Option<Duration>,
    /// Most memory of all its processes together, bytes; sampled every 50 ms, so that a little more may be
    /// used for a moment.
    pub memory: Option<u64>,
    /// Most that it may add to its folders, bytes: looked at every 200 ms and at its end. No single file can grow to
    /// more than a page above it.
    pub disk: Option<u64>,
}

/// How the kernel ranks attempts among the machine's other work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Priority {
    /// Only time that nobody else wants (`SCHED_IDLE`). It takes effect when the program has been loaded:
    /// a process that had it from the start could hold up the spawner for as long as the machine is busy.
    #[default]
    Idle,
    /// Like any program; for machines that have nothing else to do.
    Normal,
}

/// How an attempt ended and what it took.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Exit {
    /// How it ended; `Ok` is exit status 0. The endings here say nothing of what it printed.
    pub outcome: Result<(), Ending>,
    /// What it took.
    pub usage: Usage,
    /// What it wrote to standard output.
    pub stdout: Tail,
    /// What it wrote to standard error.
    pub stderr: Tail,
}

impl Exit {
    /// A success that took nothing.
    pub(crate) fn success() -> Exit {
        Exit::with(Ok(()))
    }

    /// An end without a process.
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

/// What an attempt took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// From the start of its main process to its end, without the time for which it was paused.
    pub elapsed: Duration,
    /// How long it was paused meanwhile.
    pub paused: Duration,
    /// User and system time of its main process and of all that was waited for; orphans are included if
    /// they ended before the attempt's report.
    pub cpu: Duration,
    /// Most memory in use, bytes: of its largest process, or of all together where a memory limit has
    /// them sampled. Never less than what the spawner itself uses (about 3 MiB), which the kernel counts
    /// because a process starts out sharing its parent's memory.
    pub memory_peak: u64,
}

/// How far an attempt is.
///
/// A program may say so itself, line by line, on the descriptor whose number is in `HEDGE_PROGRESS_FD`: a number
/// from 0 to 1 is the share of its work that is done; a line that begins with the word `waiting` says that it waits
/// for a good reason until its next line, and `waiting for job 7` that it waits for that job of its own grid; `checkpoint`
/// says that its checkpoint is to be saved now; any other line says that it gets on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Advanced {
    /// User and system time of its processes, and of those of their children that have ended.
    pub cpu: Duration,
    /// Bytes that they have written to files, pipes and devices.
    pub written: u64,
    /// Thousandths of its work that are done, where it says so.
    pub permille: Option<u16>,
    /// Lines in which it said something.
    pub notes: u32,
    /// It waits: it says so, or it is paused.
    pub waiting: bool,
    /// The number of the job that it says it waits for.
    pub waits_for: Option<u64>,
    /// How often it said that its checkpoint is to be saved.
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
    /// Bytes that were kept in a file, where there are more than in `bytes`: the last of them.
    pub spilled: Option<u64>,
}

/// What keeps attempts apart from the machine and from each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Sandbox {
    /// A view of its own for each attempt, with system folders, devices, `/proc` and its scratch folders, in
    /// namespaces of its own; and Landlock, where there is any.
    View {
        /// The kernel's Landlock ABI, 0 for none.
        landlock: u32,
    },
    /// Landlock and a filter of system calls, where namespaces are refused. Programs get no sockets but those that
    /// the network needs. [`Report::weaknesses`] says what it does not keep from them.
    Landlock {
        /// The kernel's Landlock ABI.
        abi: u32,
    },
    /// None: the owner said so.
    None,
}

/// Something that a sandbox does not keep from tasks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Weakness {
    /// They can look up names, sizes and times of files outside of their folders.
    Names,
    /// They can tell which processes exist.
    Processes,
    /// They run as the worker's own user: rules alone keep them from what is his.
    SameUser,
    /// They run as root: they can read what only root may read in system folders.
    Root {
        /// The folder above theirs that no other user may enter, where that is why.
        closed: Option<PathBuf>,
    },
}

impl Weakness {
    /// What tasks can do, a clause.
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

/// What the spawner could set up here; for `hedge doctor` and logs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The sandbox in force.
    pub sandbox: Sandbox,
    /// Why it is not a [`Sandbox::View`], where it is not.
    pub reduced: Option<String>,
    /// What the sandbox does not keep from tasks.
    pub weaknesses: Vec<Weakness>,
    /// The number of the user that attempts run as, where it is not the worker's user.
    pub task_user: Option<u32>,
    /// Most processes and threads of an attempt; `None` without a sandbox.
    pub processes_max: Option<u64>,
    /// Whether attempts are cut off from the network.
    pub network_cut: bool,
    /// Whether attempts are in a control group of their own, which the kernel stops as a whole when they are paused;
    /// otherwise each process is sent a signal.
    pub freezer: bool,
    /// Whether attempts run at `SCHED_IDLE`.
    pub idle: bool,
    /// Whether the kernel shares the processor out between login sessions before priorities count
    /// (`sched_autogroup`): then idle tasks still take a session's share from programs in other sessions
    /// where these are not in control groups.
    pub autogroup: bool,
}

impl Report {
    /// What would be set up for a worker whose folder is this one: with Landlock alone, tasks of root run as other users
    /// only where these may enter.
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
