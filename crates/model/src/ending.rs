//! How an attempt ended without success: one type from the process to what people see.

use crate::Hash;
use crate::units::show_bytes;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Duration;

/// The most bytes of each text in an [`Ending`], which is kept as long as the job is.
pub const TEXT_BYTES_MAX: usize = 1_000;

/// Why an attempt ended without success.
///
/// [`fmt::Display`] gives a clause without the worker's name, for example `it ended with exit code 3`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ending {
    /// Its main process ended by itself with an exit status other than 0.
    Exited {
        /// The exit status.
        status: i32,
        /// The last line of its standard error; empty if there is none.
        said: String,
    },
    /// A signal ended its main process.
    Signalled {
        /// The signal's number.
        signal: i32,
        /// The last line of its standard error; empty if there is none.
        said: String,
    },
    /// Its program cannot be started: it does not exist, is no program, or its arguments are too long.
    NotStarted {
        /// A sentence that says why.
        why: String,
    },
    /// It ran longer than its time limit.
    TimeLimit {
        /// The limit.
        limit: Duration,
    },
    /// It used more memory than its limit.
    MemoryLimit {
        /// The limit in bytes.
        limit: u64,
        /// What it used, in bytes.
        used: u64,
    },
    /// It wrote more to its directories than its limit.
    DiskLimit {
        /// The limit in bytes.
        limit: u64,
        /// What it wrote, in bytes.
        used: u64,
    },
    /// It ended with exit status 0, but a declared output cannot be collected.
    Output {
        /// The output's path or pattern.
        path: String,
        /// What is wrong with it.
        fault: OutputFault,
    },
    /// The worker could not fetch an input from any of the given sources.
    Input {
        /// The missing blobs; empty once the supervisor has handled them.
        missing: Vec<Hash>,
        /// A sentence that says why.
        why: String,
    },
    /// The worker's machine lacked a resource.
    Short {
        /// The resource.
        of: Shortage,
        /// What the worker was doing, for example `start a process`.
        doing: String,
    },
    /// The worker failed: its spawner, its staging or its blob store did, or its report was invalid.
    Worker {
        /// A sentence that says why.
        why: String,
    },
    /// It was cancelled: another attempt won, or the job ended.
    Cancelled,
    /// The worker vacated it, because its owner returned or to drain.
    Vacated,
    /// Its worker was declared dead or left.
    Lost,
    /// An earlier version recorded only this sentence.
    Recorded {
        /// Whether it was the task's own fault.
        by_task: bool,
        /// The sentence.
        why: String,
    },
}

impl Ending {
    /// Returns the exit status of the program, if it ended by itself.
    pub fn exit_code(&self) -> Option<i32> {
        match self {
            Self::Exited { status, .. } => Some(*status),
            // The program succeeded; its outputs are wrong.
            Self::Output { .. } => Some(0),
            _ => None,
        }
    }

    /// Returns the signal that ended the program, unless the worker ended it because of a limit.
    pub fn signal(&self) -> Option<i32> {
        match self {
            Self::Signalled { signal, .. } => Some(*signal),
            _ => None,
        }
    }
}

/// What is wrong with a declared output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OutputFault {
    /// Nothing matches it.
    Missing,
    /// It exists but cannot be read.
    Unreadable {
        /// The system's error.
        why: String,
    },
    /// It is neither a regular file nor a directory that contains some.
    Odd {
        /// What it is, for example `a socket`.
        what: String,
    },
    /// Its path cannot be that of an output.
    BadPath {
        /// What is wrong with the path.
        why: String,
    },
    /// The list of its files is longer than a report can carry.
    LongList {
        /// The number of files.
        files: u64,
        /// The length of their list in bytes.
        bytes: u64,
        /// The maximum length in bytes.
        limit: u64,
    },
    /// There are more files than one task may leave.
    TooMany {
        /// The maximum number.
        limit: u64,
    },
}

/// A resource that a machine can lack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Shortage {
    /// The worker has the maximum number of files open (`EMFILE`).
    Files,
    /// The machine has the maximum number of files open (`ENFILE`).
    MachineFiles,
    /// No further process can be created (`EAGAIN`).
    Processes,
    /// No further namespace can be created (`ENOSPC` from `clone`).
    Namespaces,
    /// The kernel has no memory for it (`ENOMEM`).
    Memory,
    /// The disk is full (`ENOSPC`).
    Disk,
    /// The worker's disk quota is used up (`EDQUOT`).
    Quota,
}

impl fmt::Display for Shortage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Files => "file descriptors (EMFILE)",
            Self::MachineFiles => "file descriptors on the whole machine (ENFILE)",
            Self::Processes => "processes (EAGAIN)",
            Self::Namespaces => "namespaces (ENOSPC)",
            Self::Memory => "memory (ENOMEM)",
            Self::Disk => "disk space (ENOSPC)",
            Self::Quota => "disk space within its quota (EDQUOT)",
        })
    }
}

/// What an [`Ending`] is attributed to. It decides what follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The task: it uses up one of its `retries`.
    Task,
    /// The worker or its machine: the task moves to another worker, and this one is excluded for a while.
    Worker,
    /// The input, or the worker's way to it: the task is tried on another worker, and later on this one.
    Input,
    /// Nothing that has consequences.
    Nobody,
}

impl Ending {
    /// Returns a fault of the worker, described in a sentence.
    pub fn worker(why: impl Into<String>) -> Self {
        Self::Worker { why: why.into() }
    }

    /// Returns what the ending is attributed to.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Exited { .. }
            | Self::Signalled { .. }
            | Self::NotStarted { .. }
            | Self::TimeLimit { .. }
            | Self::MemoryLimit { .. }
            | Self::DiskLimit { .. }
            | Self::Output { .. }
            | Self::Recorded { by_task: true, .. } => Fault::Task,
            Self::Short { .. } | Self::Worker { .. } => Fault::Worker,
            Self::Input { .. } | Self::Recorded { by_task: false, .. } => Fault::Input,
            Self::Cancelled | Self::Vacated | Self::Lost => Fault::Nobody,
        }
    }

    /// Shortens the texts to [`TEXT_BYTES_MAX`] and removes the missing blobs, so that it can be recorded. Returns
    /// these blobs.
    pub fn trim(&mut self) -> Vec<Hash> {
        let mut missing = Vec::new();
        match self {
            Self::Exited { said, .. } | Self::Signalled { said, .. } => cut(said),
            Self::NotStarted { why } | Self::Worker { why } | Self::Recorded { why, .. } => {
                cut(why)
            }
            Self::Short { doing, .. } => cut(doing),
            Self::Input { missing: some, why } => {
                missing = std::mem::take(some);
                cut(why);
            }
            Self::Output { path, fault } => {
                cut(path);
                match fault {
                    OutputFault::Unreadable { why } | OutputFault::BadPath { why } => cut(why),
                    OutputFault::Odd { what } => cut(what),
                    OutputFault::Missing
                    | OutputFault::LongList { .. }
                    | OutputFault::TooMany { .. } => {}
                }
            }
            Self::TimeLimit { .. }
            | Self::MemoryLimit { .. }
            | Self::DiskLimit { .. }
            | Self::Cancelled
            | Self::Vacated
            | Self::Lost => {}
        }
        missing
    }

    /// Describes the ending for people; `worker` is the name of the worker.
    pub fn tell(&self, worker: &str) -> String {
        match self {
            Self::Short { of, doing } => {
                format!(
                    "worker {worker} was short of {of} and could not {doing}; the task was moved"
                )
            }
            Self::Worker { why } => format!("worker {worker} failed: {why}; the task was moved"),
            Self::Input { why, .. } => format!("worker {worker} could not fetch its inputs: {why}"),
            other => other.to_string(),
        }
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited { status, said } => {
                write!(f, "it ended with exit code {status}")?;
                fmt_said(f, said)
            }
            Self::Signalled { signal, said } => {
                write!(f, "it was ended by signal {signal}")?;
                if let Some(name) = signal_name(*signal) {
                    write!(f, " ({name})")?;
                }
                fmt_said(f, said)
            }
            Self::NotStarted { why } | Self::Recorded { why, .. } => f.write_str(why),
            Self::TimeLimit { limit } => {
                write!(f, "it ran longer than its time limit of {limit:?}")
            }
            Self::MemoryLimit { limit, used } => write!(
                f,
                "memory limit of {} exceeded: it used {}",
                show_bytes(*limit),
                show_bytes(*used)
            ),
            Self::DiskLimit { limit, used } => write!(
                f,
                "disk limit of {} exceeded: it used {}",
                show_bytes(*limit),
                show_bytes(*used)
            ),
            Self::Output { path, fault } => match fault {
                OutputFault::Missing => write!(
                    f,
                    "the task ended without making its output {path:?}; check what it writes, and where"
                ),
                OutputFault::Unreadable { why } => {
                    write!(f, "its output {path:?} cannot be read: {why}")
                }
                OutputFault::Odd { what } => write!(
                    f,
                    "its output {path:?} is {what}; outputs are regular files and folders that hold some"
                ),
                OutputFault::BadPath { why } => {
                    write!(f, "its output {path:?} cannot be taken: the path {why}")
                }
                OutputFault::LongList {
                    files,
                    bytes,
                    limit,
                } => write!(
                    f,
                    "it left {files} files, and their list of {} is longer than the {} that one report carries: pack \
                     them into fewer files, or give them shorter names",
                    show_bytes(*bytes),
                    show_bytes(*limit)
                ),
                OutputFault::TooMany { limit } => write!(
                    f,
                    "its outputs are more than {limit} files; pack them into an archive"
                ),
            },
            Self::Input { why, .. } => write!(f, "its inputs could not be fetched: {why}"),
            Self::Short { of, doing } => {
                write!(f, "its worker was short of {of} and could not {doing}")
            }
            Self::Worker { why } => write!(f, "its worker failed: {why}"),
            Self::Cancelled => f.write_str("another attempt won, or the job ended"),
            Self::Vacated => f.write_str("its worker gave it up, for its owner or to drain"),
            Self::Lost => f.write_str("its worker was declared dead or left"),
        }
    }
}

fn fmt_said(f: &mut fmt::Formatter<'_>, said: &str) -> fmt::Result {
    if said.is_empty() {
        return Ok(());
    }
    write!(f, "; it said: {said}")
}

/// Returns the name of a signal that ends programs, by its number on Linux.
fn signal_name(signal: i32) -> Option<&'static str> {
    Some(match signal {
        1 => "SIGHUP",
        2 => "SIGINT",
        3 => "SIGQUIT",
        4 => "SIGILL",
        6 => "SIGABRT",
        7 => "SIGBUS",
        8 => "SIGFPE",
        9 => "SIGKILL",
        11 => "SIGSEGV",
        13 => "SIGPIPE",
        14 => "SIGALRM",
        15 => "SIGTERM",
        24 => "SIGXCPU",
        25 => "SIGXFSZ",
        31 => "SIGSYS",
        _ => return None,
    })
}

fn cut(text: &mut String) {
    if text.len() > TEXT_BYTES_MAX {
        let end = (0..=TEXT_BYTES_MAX)
            .rev()
            .find(|at| text.is_char_boundary(*at));
        text.truncate(end.unwrap_or(0));
    }
}

/// Serialises an [`Ending`] for records in the form of formats 1 and 2, which have only a sentence. Further data
/// follows the sentence: earlier versions show the sentence, and this one reads everything.
pub mod recorded {
    use super::{Ending, Fault};
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    /// Separates the sentence from the data.
    const MARK: char = '\u{1f}';

    #[derive(Serialize, Deserialize)]
    enum Recorded {
        Failed(String),
        Lost,
        Cancelled,
        Unstaged(String),
        Vacated,
    }

    /// Writes the form of formats 1 and 2.
    ///
    /// # Errors
    /// The serializer failed.
    pub fn serialize<S: Serializer>(ending: &Ending, to: S) -> Result<S::Ok, S::Error> {
        let text = || match ending {
            Ending::Recorded { why, .. } => why.clone(),
            _ => format!("{ending}{MARK}{}", hex(ending)),
        };
        let form = match (ending, ending.fault()) {
            (Ending::Lost, _) => Recorded::Lost,
            (Ending::Vacated, _) => Recorded::Vacated,
            (_, Fault::Nobody) => Recorded::Cancelled,
            (_, Fault::Task) => Recorded::Failed(text()),
            (_, Fault::Worker | Fault::Input) => Recorded::Unstaged(text()),
        };
        form.serialize(to)
    }

    /// Reads the form of formats 1 and 2.
    ///
    /// # Errors
    /// The deserializer failed.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Ending, D::Error> {
        Ok(match Recorded::deserialize(from)? {
            Recorded::Failed(text) => read(text, true),
            Recorded::Unstaged(text) => read(text, false),
            Recorded::Lost => Ending::Lost,
            Recorded::Cancelled => Ending::Cancelled,
            Recorded::Vacated => Ending::Vacated,
        })
    }

    /// An unknown ending of a later version is reduced to its sentence. Its fault always comes from the record, so
    /// that all versions count it alike.
    fn read(text: String, by_task: bool) -> Ending {
        let whole = text.rsplit_once(MARK).and_then(|(_, rest)| unhex(rest));
        let fits = |ending: &Ending| match ending.fault() {
            Fault::Task => by_task,
            Fault::Worker | Fault::Input => !by_task,
            Fault::Nobody => false,
        };
        whole.filter(fits).unwrap_or_else(|| {
            let why = text.split(MARK).next().unwrap_or_default().to_owned();
            Ending::Recorded { by_task, why }
        })
    }

    fn hex(ending: &Ending) -> String {
        let bytes = postcard::to_stdvec(ending).unwrap_or_default();
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn unhex(text: &str) -> Option<Ending> {
        let digits = text.as_bytes().chunks(2).map(|pair| {
            let pair = std::str::from_utf8(pair).ok()?;
            u8::from_str_radix(pair, 16).ok()
        });
        postcard::from_bytes(&digits.collect::<Option<Vec<u8>>>()?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Held(#[serde(with = "recorded")] Ending);

    /// The layout that formats 1 and 2 had first.
    #[derive(Serialize, Deserialize)]
    enum First {
        Failed(String),
        #[allow(dead_code)]
        Lost,
        #[allow(dead_code)]
        Cancelled,
        Unstaged(String),
    }

    fn all() -> Vec<Ending> {
        let text = || "why \u{1f} not".to_owned();
        let output = |fault| Ending::Output {
            path: "a/b".into(),
            fault,
        };
        vec![
            Ending::Exited {
                status: -3,
                said: text(),
            },
            Ending::Signalled {
                signal: 9,
                said: String::new(),
            },
            Ending::NotStarted { why: text() },
            Ending::TimeLimit {
                limit: Duration::from_millis(1500),
            },
            Ending::MemoryLimit { limit: 5, used: 7 },
            Ending::DiskLimit { limit: 5, used: 7 },
            output(OutputFault::Missing),
            output(OutputFault::Unreadable { why: text() }),
            output(OutputFault::Odd { what: text() }),
            output(OutputFault::BadPath { why: text() }),
            output(OutputFault::TooMany { limit: 3 }),
            output(OutputFault::LongList {
                files: 3,
                bytes: 9,
                limit: 7,
            }),
            Ending::Input {
                missing: Vec::new(),
                why: text(),
            },
            Ending::Short {
                of: Shortage::Processes,
                doing: "start a process".into(),
            },
            Ending::worker("its spawner died"),
            Ending::Cancelled,
            Ending::Vacated,
            Ending::Lost,
        ]
    }

    #[test]
    fn a_record_holds_all_of_an_ending() {
        for ending in all() {
            let bytes = postcard::to_stdvec(&Held(ending.clone())).unwrap();
            let back: Held = postcard::from_bytes(&bytes).unwrap();
            assert_eq!(back.0, ending);
        }
    }

    #[test]
    fn earlier_versions_find_the_sentence_and_the_fault() {
        for ending in all() {
            let bytes = postcard::to_stdvec(&Held(ending.clone())).unwrap();
            let (text, by_task) = match postcard::from_bytes(&bytes) {
                Ok(First::Failed(text)) => (text, true),
                Ok(First::Unstaged(text)) => (text, false),
                _ => continue,
            };
            assert!(text.starts_with(&ending.to_string()), "{text}");
            assert_eq!(by_task, ending.fault() == Fault::Task, "{ending:?}");
        }
    }

    #[test]
    fn sentences_of_earlier_versions_are_read() {
        for (first, by_task) in [
            (First::Failed("it ended with exit code 3".into()), true),
            (First::Unstaged("nobody gave it\u{1f}zz".into()), false),
            // An ending that only a later version knows.
            (First::Failed("sand in it\u{1f}ff00".into()), true),
        ] {
            let bytes = postcard::to_stdvec(&first).unwrap();
            let Held(ending) = postcard::from_bytes(&bytes).unwrap();
            let Ending::Recorded { by_task: task, why } = ending.clone() else {
                panic!("{ending:?}");
            };
            assert!(task == by_task && !why.contains('\u{1f}'), "{ending:?}");
            let again = postcard::to_stdvec(&Held(ending.clone())).unwrap();
            assert_eq!(postcard::from_bytes::<Held>(&again).unwrap().0, ending);
        }
    }

    #[test]
    fn texts_are_cut_and_missing_content_is_handed_over() {
        let mut ending = Ending::Input {
            missing: vec![Hash([1; 32])],
            why: "ä".repeat(TEXT_BYTES_MAX),
        };
        assert_eq!(ending.trim(), vec![Hash([1; 32])]);
        let Ending::Input { missing, why } = &ending else {
            panic!("{ending:?}");
        };
        assert!(missing.is_empty() && why.len() <= TEXT_BYTES_MAX);
        assert!(ending.trim().is_empty());
    }

    #[test]
    fn people_are_told_which_worker_was_short_of_what() {
        let short = Ending::Short {
            of: Shortage::Processes,
            doing: "start a process".into(),
        };
        assert_eq!(
            short.tell("desk-3"),
            "worker desk-3 was short of processes (EAGAIN) and could not start a process; the task was moved"
        );
        let disk = Ending::DiskLimit {
            limit: 10 << 20,
            used: 300 << 20,
        };
        assert_eq!(
            disk.tell("desk-3"),
            "disk limit of 10 MiB exceeded: it used 300 MiB"
        );
    }
}
