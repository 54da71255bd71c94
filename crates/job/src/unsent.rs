//! What exists here, is needed by a job, and is not sent with it: files that commands name, and the interpreters that
//! virtual environments were made with.

use crate::Found;
use crate::mounts::TreeContent;
use crate::program::SYSTEM;
use hedge_model::spec::{Group, Input, check_mount_path};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Most names that are looked for, so that a job of many long commands is checked in a moment.
const LOOKED_FOR_MAX: usize = 2_000;
/// The file that makes a folder a virtual environment.
const VENV: &str = "pyvenv.cfg";
/// Most files that are named.
pub const UNSENT_MAX: usize = 5;

impl Found {
    /// Files in `folder` that a task's command names and that neither are its inputs nor its outputs: such a task does
    /// not see them. Gives the first [`UNSENT_MAX`] of them, each with the id of its task.
    pub fn unsent(&self, folder: &Path) -> Vec<(String, String)> {
        let mut found: Vec<(String, String)> = Vec::new();
        let mut looked_for = 0;
        for (at, group) in self.tasks().groups().iter().enumerate() {
            let words = group.command.iter().skip(1);
            let names: BTreeSet<&str> = words.flat_map(|word| names(word)).collect();
            for name in names {
                looked_for += 1;
                if looked_for > LOOKED_FOR_MAX || found.len() >= UNSENT_MAX {
                    return found;
                }
                if folder.join(name).exists()
                    && !self.has(at, group, name)
                    && !self.in_tree(at, Path::new(name))
                {
                    found.push((group.id.to_string(), name.to_owned()));
                }
            }
        }
        found
    }

    /// The trees that are virtual environments of Python whose own interpreter lies where their tasks see nothing: each
    /// with the folder of that interpreter.
    pub fn without_interpreter(&self) -> Vec<(PathBuf, PathBuf)> {
        let mut found = Vec::new();
        for tree in &self.trees {
            let TreeContent::Folder(entries) = &tree.content else {
                continue;
            };
            if !entries.iter().any(|entry| &*entry.path == VENV) {
                continue;
            }
            let text = std::fs::read_to_string(tree.root.join(VENV)).unwrap_or_default();
            let Some(base) = base(&text) else { continue };
            let mut groups = tree.seen.iter();
            if groups.any(|(group, _)| !self.shows(*group, base)) {
                found.push((tree.root.clone(), base.to_owned()));
            }
        }
        found
    }

    /// Whether the tasks of a group have a folder at this path: in a tree, or where no tree may lie, because they have
    /// something of their own there.
    fn shows(&self, group: usize, folder: &Path) -> bool {
        let path = folder.to_str().unwrap_or_default();
        check_mount_path(path).is_err() || self.in_tree(group, folder)
    }

    /// Whether the tasks of a group see a tree at or above this path.
    fn in_tree(&self, group: usize, path: &Path) -> bool {
        let mut seen = self.trees.iter().flat_map(|tree| &tree.seen);
        seen.any(|(other, at)| *other == group && path.starts_with(&**at))
    }

    /// Whether the tasks of the group at a position have a file or folder of this name, or make it.
    fn has(&self, at: usize, group: &Group, name: &str) -> bool {
        let plain = name.trim_start_matches("./").trim_end_matches('/');
        let within = |path: &str| {
            path == plain
                || path
                    .strip_prefix(plain)
                    .is_some_and(|rest| rest.starts_with('/'))
        };
        // Of an extension the groups that it waits for follow its own, and have no inputs.
        let inputs = self.spec().groups.get(at);
        let inputs = inputs.into_iter().flat_map(|group| &group.inputs);
        let files = &self.spec().files;
        let sent = inputs.filter_map(|input| match input {
            Input::File(at) | Input::FileEach(at) => files.get(*at as usize),
            Input::Task(_) | Input::TaskEach(_) => None,
        });
        // What other tasks leave may be of any name, where it is named by a pattern.
        let from_tasks = group.inputs.iter().any(|input| input.task().is_some());
        let made = group.outputs.iter().any(|output| {
            let output = output.trim_end_matches('/');
            within(output) || plain.starts_with(output)
        });
        from_tasks || made || sent.into_iter().any(|file| within(&file.path))
    }
}

/// The folder of the interpreter that a virtual environment was made with, by its `pyvenv.cfg`: `home` is the `bin` in it.
fn base(config: &str) -> Option<&Path> {
    let mut pairs = config.lines().filter_map(|line| line.split_once('='));
    let (_, home) = pairs.find(|(key, _)| key.trim() == "home")?;
    Path::new(home.trim()).parent()
}

/// What may be names of files in an argument: all of it, its value behind `=`, and the words of a script that look like
/// names of files.
fn names(word: &str) -> Vec<&str> {
    let usable = |name: &&str| {
        !name.is_empty()
            && !name.contains("${")
            && !name.contains('\0')
            && name.len() <= 4096
            && name.chars().any(|c| c != '.' && c != '/')
            && !name.split('/').any(|part| part == "..")
            && !SYSTEM.iter().any(|system| name.starts_with(system))
            && !name.starts_with("/dev/")
            && !name.starts_with("/proc/")
    };
    let splits = |c: char| c.is_whitespace() || "\"'`|&;<>()=".contains(c);
    let mut names: Vec<&str> = Vec::new();
    if word.contains(splits) {
        // A word of a script is taken for a file's name where it looks like one.
        let parts = word.split(splits);
        names.extend(parts.filter(|part| part.contains(['.', '/'])));
    } else {
        names.push(word);
    }
    names.into_iter().filter(usable).collect()
}
