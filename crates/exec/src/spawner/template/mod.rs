//! The template of a slot: a Python interpreter that has started and has imported modules, and that attempts of one job
//! are forked from.
//!
//! It is started as an attempt is, in the same sandbox and with the same rights, and does nothing but fork: an attempt's
//! process is the spawner's own child from its first moment. That process receives from the spawner what it is to run,
//! applies what the spawner applies to others before their program begins, and then runs it. The template itself sees no
//! arguments, environments or files.
//!
//! While an attempt of another job runs there is no template, so that no task reaches what other jobs are forked from.

mod command;

use super::attempt::Prepared;
use super::child::{Failure, Step};
use super::environment::Slot;
use super::tree;
use crate::{Launch, Warm};
pub(crate) use command::Parts;
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags,
    SocketType,
};
use std::ffi::CString;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

/// What the interpreter runs. Put in front are the numbers of system calls.
const SOURCE: &str = include_str!("template.py");
/// Reads that from its descriptor 3, and runs it.
const BOOT: &str = r#"exec(compile(__import__("os").read(3, 1 << 20), "<hedge>", "exec"), {})"#;
/// Longest message of a template.
const MESSAGE_BYTES_MAX: usize = 400;
/// Most descriptors that an attempt's process is sent.
const FILES_MAX: usize = 6;
/// Largest file of `/proc` about a template that is read, bytes.
const MAPS_BYTES_MAX: u64 = 16 << 20;

/// Variables of an attempt's environment that a template has too, because interpreters and libraries read them when they
/// start. Those that begin so, and these.
const KEPT_PREFIXES: [&str; 10] = [
    "PYTHON",
    "LC_",
    "LD_",
    "OMP_",
    "OPENBLAS_",
    "MKL_",
    "BLIS_",
    "KMP_",
    "NUMEXPR_",
    "JE_ARROW_",
];
const KEPT: [&str; 4] = ["PATH", "LANG", "LANGUAGE", "TZ"];
/// Variables that a template has unless the attempt sets them: these libraries start threads when they are imported
/// otherwise. Pandas imports Arrow.
const SINGLE_THREADED: [(&str, &str); 2] = [
    ("OPENBLAS_NUM_THREADS", "1"),
    ("JE_ARROW_MALLOC_CONF", "background_thread:false"),
];

/// What a template is: attempts with the same key are forked from the same one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Key {
    job: u64,
    program: CString,
    args: Vec<CString>,
    env: Vec<CString>,
}

/// An attempt that is to be forked from a template.
pub(crate) struct Plan {
    pub key: Key,
    parts: Parts,
}

/// A template that was started.
pub(crate) struct Template {
    pub pid: i32,
    pub key: Key,
    pub state: State,
    /// Has idle priority, and with it all that is forked from it.
    pub idle: bool,
    /// Where requests go and answers come from.
    pub control: OwnedFd,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// It starts and imports modules.
    Preloads,
    /// It waits for requests: since when it has had none, and what it had used at the last look.
    Ready {
        since: Instant,
        cpu: Option<Duration>,
    },
    /// It is being ended.
    Ends,
}

/// What a template says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Said {
    /// It waits for requests.
    Ready,
    /// It has made this process.
    Made(i32),
    /// It could not make a process.
    NotMade(i32),
    /// It can make none, and why.
    Cannot(String),
    /// It is gone, or said something else.
    Nonsense,
}

/// How an attempt is to be forked; none where its command needs an interpreter of its own, or where that lies in the
/// attempt's folders.
pub(crate) fn plan(launch: &Launch, prepared: &Prepared, slot: &Slot) -> Option<Plan> {
    let Warm { job, preload } = launch.warm.as_deref()?;
    let parts = command::parts(&launch.args)?;
    let program = Path::new(prepared.program.to_str().ok()?);
    if !is_outside(program, slot) {
        return None;
    }
    let env = environment(&prepared.env, slot)?;
    let words = [launch.program.as_str()].into_iter();
    let words = words.chain(parts.options.iter().map(String::as_str));
    let words = words.chain(["-c", BOOT]);
    let args = words.chain(preload.iter().map(String::as_str));
    let args = args.map(CString::new).collect::<Result<_, _>>().ok()?;
    let key = Key {
        job: *job,
        program: prepared.program.clone(),
        args,
        env,
    };
    Some(Plan { key, parts })
}

/// Whether a path is absolute and leads to nothing that is an attempt's.
fn is_outside(path: &Path, slot: &Slot) -> bool {
    let own = [slot.work_path.as_str(), &slot.tmp_path, "/proc"];
    path.is_absolute() && !own.iter().any(|folder| path.starts_with(folder))
}

/// The environment of a template, from an attempt's; none where that has the interpreter wait for input at its end.
fn environment(env: &[CString], slot: &Slot) -> Option<Vec<CString>> {
    let mut kept = Vec::new();
    let mut set = [false; SINGLE_THREADED.len()];
    for variable in env {
        let text = variable.to_str().ok()?;
        let (name, value) = text.split_once('=')?;
        match name {
            "PYTHONINSPECT" if !value.is_empty() => return None,
            // Paths within the attempt's folder are added when it begins.
            "PYTHONPATH" => {
                let outside = |path: &&str| is_outside(Path::new(path), slot);
                let outside: Vec<&str> = value.split(':').filter(outside).collect();
                kept.push(CString::new(format!("PYTHONPATH={}", outside.join(":"))).ok()?);
            }
            _ => {
                let starts = KEPT_PREFIXES.iter().any(|prefix| name.starts_with(prefix));
                if starts || KEPT.contains(&name) {
                    kept.push(variable.clone());
                }
                for (set, (other, _)) in set.iter_mut().zip(SINGLE_THREADED) {
                    *set |= name == other;
                }
            }
        }
    }
    // Modules in the folder of an attempt are none of the template's.
    let tmp = format!("TMPDIR={}", slot.tmp_path);
    kept.extend([CString::from(c"HOME=/nonexistent"), CString::new(tmp).ok()?]);
    for (set, (name, value)) in set.into_iter().zip(SINGLE_THREADED) {
        if !set {
            kept.push(CString::new(format!("{name}={value}")).ok()?);
        }
    }
    Some(kept)
}

impl Key {
    /// Program, arguments and environment of the template.
    pub(crate) fn command(&self) -> (CString, Vec<CString>, Vec<CString>) {
        (self.program.clone(), self.args.clone(), self.env.clone())
    }
}

impl Plan {
    /// All that an attempt's process has to know, in one frame.
    pub(crate) fn payload(
        &self,
        launch: &Launch,
        prepared: &Prepared,
        file_bytes_max: Option<u64>,
        idle: bool,
    ) -> Vec<u8> {
        let most = file_bytes_max.map(|most| most.to_string());
        let words = &prepared.args;
        let numbers = [
            most.unwrap_or_default(),
            u8::from(idle).to_string(),
            std::process::id().to_string(),
            words.len().to_string(),
            self.parts.rest.to_string(),
        ];
        debug_assert_eq!(words.len(), launch.args.len() + 1);
        let first = [self.parts.form.letter(), &self.parts.target];
        let first = first.into_iter().chain(numbers.iter().map(String::as_str));
        let strings = words.iter().chain(&prepared.env).map(|one| one.as_bytes());
        let all: Vec<&[u8]> = first.map(str::as_bytes).chain(strings).collect();
        let body = all.join(&0);
        let mut frame = (body.len() as u64).to_le_bytes().to_vec();
        frame.extend(body);
        frame
    }
}

/// What the interpreter reads first.
pub(crate) fn source() -> String {
    format!(
        "CLONE, PRLIMIT, RESTRICT_SELF, GET_ROBUST_LIST, SET_ROBUST_LIST = {}, {}, {}, {}, {}\n{SOURCE}",
        libc::SYS_clone,
        libc::SYS_prlimit64,
        crate::landlock::RESTRICT_SELF,
        libc::SYS_get_robust_list,
        libc::SYS_set_robust_list,
    )
}

/// A connected pair of sockets; neither waits where `kind` keeps messages apart, and the second waits else.
pub(crate) fn pair(kind: SocketType) -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = SocketFlags::CLOEXEC;
    let (ours, theirs) = rustix::net::socketpair(AddressFamily::UNIX, kind, flags, None)?;
    rustix::io::ioctl_fionbio(&ours, true)?;
    Ok((ours, theirs))
}

/// Sends bytes with descriptors; says how many bytes went.
pub(crate) fn send(to: &OwnedFd, bytes: &[u8], files: &[BorrowedFd<'_>]) -> io::Result<usize> {
    debug_assert!(files.len() <= FILES_MAX);
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FILES_MAX))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !files.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(files)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let flags = SendFlags::NOSIGNAL;
    Ok(rustix::net::sendmsg(
        to,
        &[IoSlice::new(bytes)],
        &mut ancillary,
        flags,
    )?)
}

/// What a template has said, if it has said something.
pub(crate) fn hear(control: &OwnedFd) -> Option<Said> {
    let mut message = [0; MESSAGE_BYTES_MAX];
    match rustix::net::recv(control, &mut message, RecvFlags::DONTWAIT) {
        Ok((read, _)) => Some(understand(&message[..read])),
        Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => None,
        Err(_) => Some(Said::Nonsense),
    }
}

fn understand(message: &[u8]) -> Said {
    let text = String::from_utf8_lossy(message);
    let number = |text: &str| text.parse::<i32>().ok().filter(|number| *number > 0);
    match text.split_once(' ') {
        None if text == "ready" => Said::Ready,
        Some(("pid", pid)) => number(pid).map_or(Said::Nonsense, Said::Made),
        Some(("failed", errno)) => number(errno).map_or(Said::Nonsense, Said::NotMade),
        Some(("cannot", why)) => Said::Cannot(why.to_owned()),
        _ => Said::Nonsense,
    }
}

/// What an attempt's process said of its beginning, once it has ended.
pub(crate) enum Began {
    Yes,
    No(Failure),
    /// It ended before it said anything.
    Silent,
}

/// Reads what an attempt's process said of its beginning.
pub(crate) fn beginning(channel: &OwnedFd) -> Began {
    let mut message = [0; 64];
    let read = rustix::net::recv(channel, &mut message, RecvFlags::DONTWAIT);
    let text = read
        .ok()
        .and_then(|(read, _)| std::str::from_utf8(&message[..read]).ok());
    let Some(text) = text.filter(|text| !text.is_empty()) else {
        return Began::Silent;
    };
    let Some((step, errno)) = text.split_once(' ') else {
        return Began::Yes;
    };
    let step = match step {
        "streams" => Step::Streams,
        "folder" => Step::Folder,
        "limits" => Step::Limits,
        _ => Step::Sandbox,
    };
    errno
        .parse()
        .map_or(Began::Yes, |errno| Began::No(Failure { step, errno }))
}

/// Why no attempt may be forked from an interpreter that has imported its modules, a clause; none where all may.
pub(crate) fn unfit(pid: i32) -> Option<String> {
    let count = |folder: &str| {
        let entries = std::fs::read_dir(format!("/proc/{pid}/{folder}"));
        entries.map(Iterator::count)
    };
    let threads = match count("task") {
        Ok(1) => None,
        Ok(threads) => Some(format!(
            "it has {threads} threads, and a fork would copy one of them"
        )),
        Err(error) => Some(format!("its threads cannot be counted ({error})")),
    };
    let children = || {
        let some = !tree::children_of(pid).is_empty();
        some.then(|| "it has started processes".to_owned())
    };
    let files = |maps: &str| match files_of_its_own(pid, maps) {
        Ok(0) => None,
        Ok(files) => Some(format!(
            "it has {files} files open, which all attempts would share"
        )),
        Err(error) => Some(format!("its open files cannot be counted ({error})")),
    };
    threads.or_else(children).or_else(|| match maps(pid) {
        Ok(maps) => files(&maps).or_else(|| shared(&maps)),
        Err(error) => Some(format!("its memory cannot be looked at ({error})")),
    })
}

fn maps(pid: i32) -> std::io::Result<String> {
    use std::io::Read;
    let mut maps = String::new();
    let file = std::fs::File::open(format!("/proc/{pid}/maps"))?;
    file.take(MAPS_BYTES_MAX).read_to_string(&mut maps)?;
    Ok(maps)
}

/// The number of files that its modules opened. Libraries whose code it has loaded do not count where they are open to read
/// alone: libffi from version 3.5 on keeps itself open, and with it `ctypes`.
fn files_of_its_own(pid: i32, maps: &str) -> std::io::Result<usize> {
    let mut files = 0_usize;
    for entry in std::fs::read_dir(format!("/proc/{pid}/fd"))? {
        let entry = entry?;
        let target = std::fs::read_link(entry.path()).unwrap_or_default();
        let about = format!("/proc/{pid}/fdinfo/{}", entry.file_name().display());
        let about = std::fs::read_to_string(about).unwrap_or_default();
        let library = target.to_str().is_some_and(|path| is_code(maps, path));
        if !(library && is_read_only(&about)) {
            files += 1;
        }
    }
    Ok(files.saturating_sub(4))
}

/// Whether code of this file is in memory.
fn is_code(maps: &str, path: &str) -> bool {
    maps.lines().any(|line| {
        let mut fields = line.splitn(6, ' ');
        let mode = fields.nth(1).unwrap_or("");
        // The path follows device and inode, behind spaces that fill the column.
        let rest = fields.nth(3).unwrap_or("");
        mode.contains('x') && rest.trim_start() == path
    })
}

/// Whether a descriptor is open to read alone, by the kernel's `fdinfo`.
fn is_read_only(about: &str) -> bool {
    let flags = about.lines().find_map(|line| line.strip_prefix("flags:"));
    let flags = flags.and_then(|flags| i32::from_str_radix(flags.trim(), 8).ok());
    flags.is_some_and(|flags| flags & libc::O_ACCMODE == libc::O_RDONLY)
}

/// Whether it has memory that attempts could write to for each other.
fn shared(maps: &str) -> Option<String> {
    let writable = |line: &str| {
        let mode = line.split(' ').nth(1).unwrap_or("").as_bytes();
        mode.get(1) == Some(&b'w') && mode.get(3) == Some(&b's')
    };
    let some = maps.lines().any(writable);
    some.then(|| "it has memory that all attempts would share".to_owned())
}

/// What of the machine's memory is available, in thousandths; none where the kernel does not say.
pub(crate) fn memory_available() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let of = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    Some(of("MemAvailable:")? * 1000 / of("MemTotal:")?.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_code_that_is_open_to_read_may_be_open() {
        let maps = "7f00-7f01 r--p 00000000 fe:00 17                   /usr/lib/data\n\
                    7f01-7f02 r-xp 00001000 fe:00 18                   /usr/lib/a b.so\n\
                    7f02-7f03 r-xp 00000000 00:00 0 \n";
        assert!(is_code(maps, "/usr/lib/a b.so"));
        assert!(!is_code(maps, "/usr/lib/data") && !is_code(maps, "/usr/lib/a"));
        assert!(is_read_only("pos:\t0\nflags:\t02100000\nmnt_id:\t1\n"));
        assert!(!is_read_only("pos:\t0\nflags:\t0100002\n") && !is_read_only(""));
    }

    #[test]
    fn what_a_template_says_is_understood_or_nonsense() {
        for (message, wanted) in [
            ("ready", Said::Ready),
            ("pid 7", Said::Made(7)),
            ("failed 11", Said::NotMade(11)),
            ("cannot import", Said::Cannot("import".to_owned())),
            ("", Said::Nonsense),
            ("pid -1", Said::Nonsense),
            ("pid 0", Said::Nonsense),
            ("pid 99999999999", Said::Nonsense),
            ("ready now", Said::Nonsense),
        ] {
            assert_eq!(understand(message.as_bytes()), wanted, "{message}");
        }
    }
}
