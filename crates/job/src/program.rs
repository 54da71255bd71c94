//! A job that is one program on a command line.

use crate::Found;
use crate::access::set_tries;
use crate::each::{self, lines_axis};
use crate::find::{Finder, Wrong};
use crate::inputs::find_program;
use crate::mounts::{WantedMount, ask_for_mounts};
use crate::read::parse_array;
use hedge_model::data::INLINE_BYTES_MAX;
use hedge_model::spec::placeholders::unknown_in;
use hedge_model::spec::{CriticalRule, Draft, Group, Network, Qos, Redundancy, Texts};
use hedge_model::{Data, Resources};
use std::path::Path;
use std::sync::Arc;

/// System folders: a program there is taken to be on every worker, others travel with the job.
pub(crate) const SYSTEM: [&str; 7] = [
    "/usr/", "/bin/", "/sbin/", "/lib", "/opt/", "/nix/", "/etc/",
];

/// A job of one program, as a command line describes it.
#[derive(Clone, Debug, Default)]
pub struct Program {
    /// The program and its arguments. A program given by its path outside the system's folders becomes an input.
    pub words: Vec<String>,
    /// Name of the job; the program's own, where it is not given.
    pub name: Option<String>,
    /// Makes it an array, like `"0..60"`.
    pub array: Option<String>,
    /// Makes one task for each line, which `${line}` stands for.
    pub each: Option<ProgramLines>,
    /// Marks it critical.
    pub critical: bool,
    /// Whether redundant attempts are off where [`Program::redundancy`] is not given, because what it prints is shown
    /// while it runs. A worker that is about to leave still gets it copied, which `Some(Redundancy::None)` rules out.
    pub no_copies: bool,
    /// Files, folders and globs to send with the job.
    pub inputs: Vec<String>,
    /// Folders that it sees as they are here, or at another path: `TREE` or `TREE:/PATH`.
    pub mounts: Vec<String>,
    /// Files, folders and globs that it leaves.
    pub outputs: Vec<String>,
    /// Environment variables.
    pub env: Vec<(String, String)>,
    /// CPUs in thousandths; one CPU, where it is not given.
    pub cpus_milli: Option<u64>,
    /// Bytes of memory, also the limit.
    pub memory: Option<u64>,
    /// Pieces of named resources, like `("gpus", 1)`.
    pub resources: Vec<(String, u64)>,
    /// Attempts after the first that fails, where it is given.
    pub retries: Option<u32>,
    /// Shared folders of the workers' machines that it uses.
    pub shares: Vec<String>,
    /// The folder that it starts in: one of `shares`, and a path below it.
    pub cwd: Option<String>,
    /// The network that it needs, and the most that it gets.
    pub network: Option<Network>,
    /// Whether it runs again when it was lost with its worker, where it is given.
    pub rerun: Option<bool>,
    /// Which redundant attempts it may get, where it is given.
    pub redundancy: Option<Redundancy>,
    /// What it reads on its standard input.
    pub stdin: Option<ProgramStdin>,
}

/// What a program of a command line reads on its standard input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProgramStdin {
    /// A file's name.
    File(String),
    /// These bytes, at most [`INLINE_BYTES_MAX`] of them.
    Bytes(Vec<u8>),
}

/// The lines for the tasks of a program of a command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProgramLines {
    /// Those of this file.
    File(String),
    /// Those of this text, which standard input brought.
    Bytes(Vec<u8>),
}

impl Program {
    /// Finds the program's inputs; relative paths start at `folder`.
    ///
    /// # Errors
    /// One sentence: an array or lines that are none, a name that cannot be, or an input that does not exist. Nothing was
    /// submitted.
    pub fn find(&self, folder: &Path) -> Result<Found, String> {
        let first = self.words.first().map_or("", String::as_str);
        let mut group = self.group(first, folder)?;
        let mounts = self.mounts.iter().map(|text| WantedMount::of(text));
        let mounts: Vec<WantedMount> = mounts.collect();
        if !mounts.is_empty() {
            ask_for_mounts(&mut group);
        }
        let seen = mounts.iter().find_map(|mount| mount.seen(folder, first));
        let seen = seen.filter(|_| first.contains('/'));
        if let Some(seen) = &seen {
            group.command[0] = seen.as_str().into();
        }
        let draft = Draft {
            name: self.name.as_deref().map_or(group.id.clone(), Arc::from),
            qos: Qos {
                redundancy: match self.redundancy {
                    None if self.no_copies => Redundancy::None,
                    None => Qos::default().redundancy,
                    Some(given) => given,
                },
                ..Qos::default()
            },
            critical: CriticalRule {
                by: Vec::new(),
                ..CriticalRule::default()
            },
            files: Vec::new(),
            groups: vec![group],
            outline: false,
        };
        // With `cwd` a relative path means a file of that folder.
        let there = self.cwd.is_some() && !first.starts_with('/');
        let travels = seen.is_none()
            && !there
            && first.contains('/')
            && !first.starts_with("${")
            && !SYSTEM.iter().any(|system| first.starts_with(system));
        let program = travels.then_some(Path::new(first));
        let stdin = match &self.stdin {
            Some(ProgramStdin::File(name)) => Some(name.as_str()),
            _ => None,
        };
        find_program(draft, folder, &self.inputs, stdin, program, mounts)
    }

    fn group(&self, first: &str, folder: &Path) -> Result<Group, String> {
        let mut group = Group::program(&id(first), &[]);
        group.command = texts(&self.words);
        group.critical = self.critical;
        group.shares = texts(&self.shares).into();
        group.cwd = self.cwd.clone().unwrap_or_default().into();
        group.network = self.network;
        group.copied = self.redundancy.map(|given| given != Redundancy::None);
        set_tries(&mut group, self.retries, self.rerun);
        group.outputs = texts(&self.outputs);
        let env = self.env.iter();
        group.env = env
            .map(|(name, value)| (name.as_str().into(), value.as_str().into()))
            .collect();
        if let Some(text) = &self.array {
            let array = parse_array(text)
                .map_err(|what| format!("{what}; write --array 0..60 for the indexes 0 to 59"))?;
            group.array = Some(array);
        }
        if let Some(lines) = &self.each {
            let lines = self.lines(lines, folder);
            let lines = lines.map_err(|(what, help)| format!("{what}; {help}"))?;
            group.array = Some((0, lines.len() as u32));
            group.axes = vec![lines_axis(lines)].into();
        }
        let known = group.placeholders();
        for name in self.inputs.iter().chain(&self.outputs) {
            check_placeholders(name, &known)?;
        }
        group.resources = Resources::cpus(self.cpus_milli.unwrap_or(1000));
        group.resources.memory = self.memory.unwrap_or(0);
        let named = self.resources.iter().filter(|(_, amount)| *amount > 0);
        group.resources.named = named
            .map(|(name, amount)| (name.as_str().into(), *amount))
            .collect();
        group.resources.named.sort();
        if let Some(ProgramStdin::Bytes(bytes)) = &self.stdin {
            if bytes.len() > INLINE_BYTES_MAX {
                return Err(format!(
                    "{} bytes of standard input do not travel within a job; give them as a file",
                    bytes.len()
                ));
            }
            group.stdin = Some(Data::Inline(bytes.as_slice().into()));
        }
        Ok(group)
    }

    fn lines(&self, lines: &ProgramLines, folder: &Path) -> Result<Texts, Wrong> {
        match lines {
            ProgramLines::Bytes(bytes) => each::lines("stdin", bytes),
            ProgramLines::File(name) => {
                let mut finder = Finder::new(folder);
                finder.place = "in the current folder";
                finder.lines(name)
            }
        }
    }
}

/// In names of files the placeholders of the task mean something.
fn check_placeholders(name: &str, known: &[Arc<str>]) -> Result<(), String> {
    let Some(unknown) = unknown_in(name, known) else {
        return Ok(());
    };
    let how = match (unknown, known.is_empty()) {
        ("index", _) => "add --array 0..60, or write the name without it".to_owned(),
        ("line", _) => "add --each FILE, or write the name without it".to_owned(),
        (_, true) => "no placeholder has a meaning there".to_owned(),
        (_, false) => {
            let known: Vec<String> = known.iter().map(|name| format!("`${{{name}}}`")).collect();
            format!("known are {}", known.join(", "))
        }
    };
    Err(format!(
        "`${{{unknown}}}` has no meaning in {name:?}: {how}"
    ))
}

fn texts(words: &[String]) -> Vec<Arc<str>> {
    words.iter().map(|word| Arc::from(word.as_str())).collect()
}

/// A program's file name as a task's id.
fn id(program: &str) -> String {
    let name = program.rsplit('/').next().unwrap_or(program);
    let id: String = name
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || "-_".contains(c) {
                c
            } else {
                '-'
            }
        })
        .take(64)
        .collect();
    let id = id.trim_matches('-');
    if id.is_empty() {
        "program".to_owned()
    } else {
        id.to_owned()
    }
}
