//! The spawner's state of an attempt, the preparation of its process, and its pipes.

use super::advance::Advance;
use super::child::{Failure, PROGRESS_FD, Step};
use super::environment::Slot;
use super::stream::Stream;
use crate::shortage::worker_ending;
use crate::user::{TaskUser, give_file};
use crate::{Launch, Limits, Stdin, StreamKind};
use hedge_model::Ending;
use hedge_model::ending::Shortage;
use rustix::fs::{Access, AtFlags, Mode, OFlags};
use std::collections::{HashMap, HashSet};
use std::ffi::{CStr, CString};
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The most programs whose path is remembered.
const REMEMBERED_MAX: usize = 256;
/// The search path if the environment has none.
const PATH_DEFAULT: &str = "/usr/local/bin:/usr/bin:/bin";

/// An attempt whose process was started and whose end has not been reported.
pub(crate) struct Attempt {
    pub id: u64,
    /// Its main process; 0 until it is forked.
    pub pid: i32,
    pub phase: Phase,
    pub limits: Limits,
    pub started: Instant,
    /// The total length of pauses when it started.
    pub paused_before: Duration,
    pub pipes: Pipes,
    /// Its ending, if it is being killed for a reason.
    pub verdict: Option<Ending>,
    /// When its grace period ends, if it was asked to stop.
    pub stop_at: Option<Instant>,
    /// The end of its main process, once noticed.
    pub ended: Option<Ended>,
    /// Since when its processes are being killed.
    pub dying_since: Option<Instant>,
    /// Killed processes. They cannot do anything any more, but may take long to die. Empty if all processes of a namespace
    /// are killed at once.
    pub killed: HashSet<i32>,
    /// Rounds in which new processes were found and killed one by one.
    pub kills: u32,
    /// Whether its ending was reported to the worker.
    pub reported: bool,
    pub orphans_cpu: Duration,
    pub memory_peak: u64,
    /// The last use that was reported, in bytes: memory, and files without a name.
    pub told: (u64, u64),
}

/// How far the start of an attempt is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Its main process was started.
    Runs,
    /// Its main process is a template, which will fork the attempt's own.
    Preloads,
    /// A template was asked to fork its main process.
    Asked(Instant),
}

/// The pipes to which an attempt writes.
pub(crate) struct Pipes {
    pub stdout: Stream,
    pub stderr: Stream,
    pub advance: Advance,
}

impl Pipes {
    /// Creates pipes that `user` may open again by their names in `/dev` and `/proc`.
    pub(crate) fn make(
        keep: Option<u64>,
        slot: &Slot,
        user: Option<TaskUser>,
    ) -> io::Result<Pipes> {
        // The view does not show that folder.
        let folder = format!("/proc/self/fd/{}", slot.folder.as_raw_fd());
        let spill = |kind| crate::scratch::spill(Path::new(&folder), kind);
        let pipes = Pipes {
            stdout: Stream::new(keep, spill(StreamKind::Stdout))?,
            stderr: Stream::new(keep, spill(StreamKind::Stderr))?,
            advance: Advance::new()?,
        };
        if let Some(user) = user {
            let ends = [
                &pipes.stdout.write,
                &pipes.stderr.write,
                &pipes.advance.write,
            ];
            for end in ends {
                std::os::unix::fs::fchown(end, Some(user.uid), Some(user.gid))?;
            }
        }
        Ok(pipes)
    }
}

/// How a main process ended.
#[derive(Clone)]
pub(crate) struct Ended {
    pub outcome: Result<(), Ending>,
    pub elapsed: Duration,
    pub paused: Duration,
    pub cpu: Duration,
    pub memory_peak: u64,
}

/// What a process needs to start a launch.
pub(crate) struct Prepared {
    pub program: CString,
    pub args: Vec<CString>,
    pub env: Vec<CString>,
    /// Where it starts instead of in the attempt's folder.
    pub cwd: Option<CString>,
    pub stdin: Option<OwnedFd>,
}

/// The paths at which programs were found.
pub(crate) struct Programs {
    found: HashMap<(String, String), PathBuf>,
    /// The folders that attempts may read; none if the spawner sees no more than they do.
    shown: Option<Vec<PathBuf>>,
}

impl Programs {
    pub(crate) fn new(shown: Option<Vec<PathBuf>>) -> Programs {
        Programs {
            found: HashMap::new(),
            shown,
        }
    }

    fn is_shown(&self, file: &Path) -> bool {
        let Some(shown) = &self.shown else {
            return true;
        };
        let real = std::fs::canonicalize(file).unwrap_or_default();
        shown.iter().any(|folder| real.starts_with(folder))
    }

    /// Forgets all paths, because one of them no longer exists.
    pub(crate) fn forget(&mut self) {
        self.found.clear();
    }

    /// Finds a program by name: in the attempt's folder, among the files that the worker's owner offers,
    /// in `PATH`.
    fn find(
        &mut self,
        name: &str,
        path: &str,
        slot: &Slot,
        offered: &[PathBuf],
    ) -> Option<PathBuf> {
        if rustix::fs::accessat(&slot.work, name, Access::EXEC_OK, AtFlags::empty()).is_ok() {
            return Some(Path::new(".").join(name));
        }
        if let Some(file) = offered
            .iter()
            .find(|file| file.ends_with(name) && file.is_file())
        {
            return Some(file.clone());
        }
        let key = (name.to_owned(), path.to_owned());
        if let Some(found) = self.found.get(&key) {
            return Some(found.clone());
        }
        let found = path
            .split(':')
            .filter(|folder| folder.starts_with('/'))
            .map(|folder| Path::new(folder).join(name))
            .find(|file| {
                let executable = rustix::fs::access(file, Access::EXEC_OK).is_ok();
                file.is_file() && executable && self.is_shown(file)
            })?;
        if self.found.len() >= REMEMBERED_MAX {
            self.found.clear();
        }
        self.found.insert(key, found.clone());
        Some(found)
    }
}

/// Converts a launch into what its process needs. The error is the attempt's ending.
pub(crate) fn prepare(
    launch: &Launch,
    slot: &Slot,
    base_env: &[(String, String)],
    offered: &[PathBuf],
    user: Option<TaskUser>,
    programs: &mut Programs,
) -> Result<Prepared, Ending> {
    let progress = PROGRESS_FD.to_string();
    let cwd = launch.cwd.as_ref().map(|cwd| cwd.to_string_lossy());
    let own = [
        ("HOME", slot.work_path.as_str()),
        ("PWD", cwd.as_deref().unwrap_or(&slot.work_path)),
        ("TMPDIR", &slot.tmp_path),
        ("HEDGE_PROGRESS_FD", &progress),
    ];
    let env = environment(base_env, own, &launch.env);
    let path = env
        .iter()
        .find(|(name, _)| *name == "PATH")
        .map_or(PATH_DEFAULT, |(_, value)| value);

    let name = launch.program.as_str();
    let never = |why: &str| Ending::NotStarted {
        why: why.to_owned(),
    };
    let program = match name {
        _ if name.contains('\0') => return Err(never("the program's name holds a NUL")),
        "" => return Err(never("the command is empty; name a program")),
        _ if name.contains('/') => PathBuf::from(name),
        _ => {
            let found = programs.find(name, path, slot, offered);
            let found = found.ok_or_else(|| never(&not_found(name)))?;
            match cwd {
                Some(_) => Path::new(&slot.work_path).join(found),
                None => found,
            }
        }
    };
    let text = |value: String| {
        CString::new(value).map_err(|_| never("the command or its environment holds a NUL"))
    };
    Ok(Prepared {
        program: text(program.to_string_lossy().into_owned())?,
        args: std::iter::once(name)
            .chain(launch.args.iter().map(String::as_str))
            .map(|arg| text(arg.to_owned()))
            .collect::<Result<_, _>>()?,
        env: env
            .into_iter()
            .map(|(name, value)| text(format!("{name}={value}")))
            .collect::<Result<_, _>>()?,
        cwd: cwd
            .as_ref()
            .map(|cwd| text(cwd.clone().into_owned()))
            .transpose()?,
        stdin: stdin(launch, slot, user)
            .map_err(|error| worker_ending("open the task's standard input", &error))?,
    })
}

/// Returns the variables of an attempt: the worker's, then its own, then those that are given; the last of a name
/// counts.
fn environment<'a>(
    base: &'a [(String, String)],
    own: [(&'a str, &'a str); 4],
    given: &'a [(String, String)],
) -> Vec<(&'a str, &'a str)> {
    let texts = |(name, value): &'a (String, String)| (name.as_str(), value.as_str());
    let mut env: Vec<(&str, &str)> = base.iter().map(texts).collect();
    for (name, value) in own.into_iter().chain(given.iter().map(texts)) {
        match env.iter_mut().find(|(known, _)| *known == name) {
            Some(known) => known.1 = value,
            None => env.push((name, value)),
        }
    }
    env
}

/// Returns the ending of an attempt whose process did not start. It is the task's fault only if the program cannot be
/// executed.
pub(crate) fn explain(name: &str, program: &CStr, failure: Failure) -> Ending {
    let doing = match failure.step {
        Step::Clone if failure.errno == libc::ENOSPC => {
            let doing = "start a process".to_owned();
            return Ending::Short {
                of: Shortage::Namespaces,
                doing,
            };
        }
        Step::Clone => "start a process",
        Step::Streams => "connect a process's streams",
        Step::Folder => "enter the task's folder",
        Step::Cwd => {
            let said = io::Error::from_raw_os_error(failure.errno);
            let why = format!("the folder in `cwd` cannot be entered: {said}");
            return Ending::NotStarted { why };
        }
        Step::Limits => "set a process's limits",
        Step::Sandbox => "lock a process in",
        Step::Execute => match not_executed(name, program, failure.errno) {
            Some(why) => return Ending::NotStarted { why },
            None => "execute a program",
        },
    };
    worker_ending(doing, &io::Error::from_raw_os_error(failure.errno))
}

/// Returns what is wrong with a program that cannot be executed, for the author of the job; none if the program may not
/// be the cause.
fn not_executed(name: &str, program: &CStr, errno: i32) -> Option<String> {
    let path = program.to_string_lossy();
    let path = Path::new(&*path);
    Some(match errno {
        libc::ENOENT if path.is_absolute() && path.exists() => format!(
            "{name} cannot be executed: the interpreter or loader that it names is missing on this worker"
        ),
        libc::ENOENT => not_found(name),
        libc::EACCES => format!(
            "{name} may not be executed: its executable bit is missing, or it lies outside of what tasks can see"
        ),
        libc::ENOEXEC => format!(
            "{name} is not a program for this machine; a script needs a first line like #!/bin/sh"
        ),
        libc::E2BIG => format!("the arguments and environment of {name} are too long"),
        // Another process may have it open for writing for a moment, as while an input is copied.
        libc::ETXTBSY | libc::EIO => return None,
        errno if crate::shortage::shortage_of(errno).is_some() => return None,
        errno => {
            let said = io::Error::from_raw_os_error(errno);
            format!("{name} cannot be executed: {said}")
        }
    })
}

fn not_found(name: &str) -> String {
    format!("program not found: {name}; is it installed on this worker, or should it be an input?")
}

fn stdin(launch: &Launch, slot: &Slot, user: Option<TaskUser>) -> io::Result<Option<OwnedFd>> {
    match &launch.stdin {
        Stdin::Null => Ok(None),
        Stdin::Placed => {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let name = crate::scratch::STDIN;
            let file = rustix::fs::openat(&slot.folder, name, flags, Mode::empty())?;
            user.map_or(Ok(()), |user| give_file(&file, user))?;
            Ok(Some(file))
        }
    }
}

/// Reads as much as is there from a socket that does not block; `None` at its end.
pub(crate) fn read_available(socket: &mut impl Read, into: &mut Vec<u8>) -> Option<()> {
    let mut buffer = [0; 64 << 10];
    loop {
        match socket.read(&mut buffer) {
            Ok(0) => return None,
            Ok(read) => {
                into.extend_from_slice(&buffer[..read]);
                if read < buffer.len() {
                    return Some(());
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Some(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return None,
        }
    }
}
