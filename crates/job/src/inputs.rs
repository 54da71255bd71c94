//! From a job file's wishes to a job with its input files: small ones with their content, bigger ones as uploads.

use crate::each::find_each;
use crate::find::{Content, Finder, InputFile, file_name};
use crate::mounts::{FoundTree, WantedMount, find_trees};
use crate::{BadJobFile, JobFile, Mistake, Purpose, Wanted, WantedInput};
use hedge_model::spec::placeholders::{Piece, TaskValues, pieces};
use hedge_model::spec::{Draft, Group, Input, SpecError};
use hedge_model::{Data, FileEntry, Hash, JobSpec};
use std::collections::HashSet;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Most bytes that the list of one task's input files takes, content of small ones included: the list is sent to
/// each worker as one message.
pub const GROUP_BYTES_MAX: usize = 8 << 20;
/// Bytes that a file's entry takes beside its path: hash, length and flags.
const ENTRY_BYTES: usize = 48;

/// A job whose input files are found. The content of the bigger ones is still to be hashed.
#[derive(Debug)]
pub struct Found {
    tasks: JobSpec,
    /// Files that are to be uploaded have a hash of zeros here.
    pub(crate) draft: Draft,
    pub(crate) uploads: Vec<Upload>,
    /// Where the content of each of `uploads` belongs.
    pub(crate) slots: Vec<(Slot, usize)>,
    /// Folders that are not packed yet.
    pub(crate) trees: Vec<FoundTree>,
}

/// A file whose content the grid has to fetch from the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upload {
    /// Where it is on this machine.
    pub path: PathBuf,
    /// Its length in bytes when it was found.
    pub bytes: u64,
}

/// What an upload is to the job.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Slot {
    /// The input file at this position.
    File(u32),
    /// The standard input of the group at this position.
    Stdin(usize),
    /// A part of a tree, which has this hash.
    Known(Hash),
}

impl Found {
    /// The job without its files, which is valid by itself: tasks, outputs, resources, dependencies.
    pub fn tasks(&self) -> &JobSpec {
        &self.tasks
    }

    /// The job with its input files; those that are to be uploaded have a hash of zeros.
    pub(crate) fn spec(&self) -> &Draft {
        &self.draft
    }

    /// The files to upload, each once.
    pub fn uploads(&self) -> &[Upload] {
        &self.uploads
    }

    /// The job, given hash and length in bytes of each of [`Found::uploads`] in their order.
    ///
    /// # Errors
    /// The content of a file is missing, or a file has grown so much that the job is not valid any more.
    pub fn job(self, content: &[(Hash, u64)]) -> Result<JobSpec, SpecError> {
        JobSpec::for_submission(self.with_content(content)?)
    }

    /// The draft with the hashes of its uploads.
    pub(crate) fn with_content(mut self, content: &[(Hash, u64)]) -> Result<Draft, SpecError> {
        let wrong = |what: String, help: &str| SpecError {
            place: hedge_model::spec::Place {
                group: None,
                key: "task",
                item: None,
            },
            what,
            help: help.to_owned(),
        };
        if let Some(tree) = self.trees.first() {
            let what = format!("the tree {} is not packed", tree.root.display());
            return Err(wrong(what, "pack the trees before the job is made"));
        }
        for (slot, upload) in self.slots {
            let path = || self.uploads[upload].path.display();
            let Some((hash, size)) = content.get(upload).copied() else {
                let what = format!("the content of {} is missing", path());
                return Err(wrong(what, "hash every file of the list of uploads"));
            };
            let data = Data::Blob { hash, size };
            match slot {
                Slot::File(at) => self.draft.files[at as usize].data = data,
                Slot::Stdin(group) => self.draft.groups[group].stdin = Some(data),
                Slot::Known(known) if known == hash => {}
                Slot::Known(_) => {
                    let what = format!("{} has changed while it was read", path());
                    return Err(wrong(
                        what,
                        "leave the tree alone until the job is submitted",
                    ));
                }
            }
        }
        Ok(self.draft)
    }
}

/// Finds the inputs of a job file.
pub fn find(file: &JobFile, mut finder: Finder<'_>) -> Result<Found, BadJobFile> {
    let mut draft = file.draft.clone();
    let mut slots = Vec::new();
    let mut mistakes = Vec::new();
    let mut own = Vec::new();
    for (group, wanted) in draft.groups.iter_mut().zip(&file.wanted) {
        match find_each(&mut finder, group, &wanted.each) {
            Ok(files) => own.push(files),
            Err(mistake) => mistakes.push(mistake),
        }
    }
    if !mistakes.is_empty() {
        return Err(BadJobFile::new(&file.name, file.text.clone(), mistakes));
    }
    let trees = find_trees(&finder, &file.wanted, &mut mistakes);
    let tasks = JobSpec::for_submission(file.purpose.checkable(&draft));
    let tasks = tasks.map_err(|error| file.point(&error))?;
    let groups = draft.groups.iter_mut().zip(&file.wanted);
    for (at, ((group, wanted), own)) in groups.zip(own).enumerate() {
        if let Some((name, span)) = &wanted.stdin {
            match finder.content(name) {
                Ok(content) => {
                    slots.extend(content.upload().map(|upload| (Slot::Stdin(at), upload)));
                    group.stdin = Some(content.data());
                }
                Err((what, help)) => mistakes.push(Mistake::new(span.clone(), what, help)),
            }
        }
        group_inputs(&mut finder, group, &wanted.inputs, own, &mut mistakes);
    }
    if !mistakes.is_empty() {
        return Err(BadJobFile::new(&file.name, file.text.clone(), mistakes));
    }
    let found = found(finder, draft, slots, tasks, file.purpose);
    let found = found.map_err(|error| file.point(&error))?;
    Ok(Found { trees, ..found })
}

/// Finds the inputs of the draft's only group, which a command line describes. A `program` becomes an input of every task
/// and runs from there.
pub fn find_program(
    mut draft: Draft,
    folder: &Path,
    inputs: &[String],
    stdin: Option<&str>,
    program: Option<&Path>,
    mounts: Vec<WantedMount>,
) -> Result<Found, String> {
    let said = |(what, help): (String, String)| format!("{what}; {help}");
    let tasks = JobSpec::for_submission(draft.clone()).map_err(|error| error.to_string())?;
    let mut finder = Finder::new(folder);
    finder.place = "in the current folder";
    let mut slots = Vec::new();
    let group = &mut draft.groups[0];
    let wanted = inputs.iter().map(|pattern| WantedInput::Files {
        pattern: pattern.clone(),
        span: 0..0,
    });
    let wanted: Vec<WantedInput> = wanted.collect();
    let mut mistakes = Vec::new();
    group_inputs(&mut finder, group, &wanted, None, &mut mistakes);
    let wanted = Wanted {
        mounts,
        ..Wanted::default()
    };
    let trees = find_trees(&finder, &[wanted], &mut mistakes);
    if let Some(mistake) = mistakes.first() {
        return Err(format!("{}; {}", mistake.what, mistake.help));
    }
    if let Some(name) = stdin {
        let content = finder.content(name).map_err(said)?;
        slots.extend(content.upload().map(|upload| (Slot::Stdin(0), upload)));
        group.stdin = Some(content.data());
    }
    if let Some(path) = program {
        let name = file_name(path).map_err(said)?;
        let at = finder.add(&folder.join(path), name).map_err(said)?;
        // Where it is named as an input too, it lies in its folder already.
        group.command[0] = format!("./{}", finder.files[at as usize].path).into();
        if !group.inputs.contains(&Input::File(at)) {
            group.inputs.push(Input::File(at));
        }
    }
    let found = found(finder, draft, slots, tasks, Purpose::Job);
    let found = found.map_err(|error| error.to_string())?;
    Ok(Found { trees, ..found })
}

/// Checks the job before anything is hashed: whether it is valid does not depend on the hashes.
fn found(
    finder: Finder<'_>,
    mut draft: Draft,
    mut slots: Vec<(Slot, usize)>,
    tasks: JobSpec,
    purpose: Purpose,
) -> Result<Found, SpecError> {
    for (at, file) in finder.files.into_iter().enumerate() {
        let upload = file.content.upload();
        slots.extend(upload.map(|upload| (Slot::File(at as u32), upload)));
        draft.files.push(FileEntry {
            path: file.path,
            executable: file.executable,
            data: file.content.data(),
        });
    }
    JobSpec::for_submission(purpose.checkable(&draft))?;
    Ok(Found {
        tasks,
        draft,
        uploads: finder.uploads,
        slots,
        trees: Vec::new(),
    })
}

/// Finds the inputs of a group. `own` is the first of the files that its parameters name, and where they are named.
fn group_inputs(
    finder: &mut Finder<'_>,
    group: &mut Group,
    wanted: &[WantedInput],
    own: Option<(u32, Range<usize>)>,
    mistakes: &mut Vec<Mistake>,
) {
    let mut tasks = std::mem::take(&mut group.inputs).into_iter();
    let mut spans = Vec::new();
    for input in wanted {
        let (pattern, span) = match input {
            WantedInput::Task => {
                group.inputs.extend(tasks.next());
                spans.push(0..0);
                continue;
            }
            WantedInput::Files { pattern, span } => (pattern, span),
        };
        let named = |piece| matches!(piece, Piece::Name { .. });
        let found = if pieces(pattern).any(named) {
            finder
                .each(pattern, group)
                .map(|first| vec![Input::FileEach(first)])
        } else {
            finder
                .find(&TaskValues::default().expand(pattern))
                .map(|files| files.into_iter().map(Input::File).collect())
        };
        match found {
            Ok(inputs) => {
                spans.extend(inputs.iter().map(|_| span.clone()));
                group.inputs.extend(inputs);
            }
            Err((what, help)) => mistakes.push(Mistake::new(span.clone(), what, help)),
        }
    }
    if let Some((first, span)) = own {
        group.inputs.push(Input::FileEach(first));
        spans.push(span);
    }
    if mistakes.is_empty() {
        drop_repeated(group, &mut spans);
        mistakes.extend(collision(&finder.files, group, &spans));
        mistakes.extend(too_long(&finder.files, group, &spans));
    }
}

/// A list of shared input files that is too long to send.
fn too_long(files: &[InputFile], group: &Group, spans: &[Range<usize>]) -> Option<Mistake> {
    let mut bytes = 0;
    let mut count = 0;
    for (input, span) in group.inputs.iter().zip(spans) {
        let Input::File(at) = input else { continue };
        let file = &files[*at as usize];
        let content = match &file.content {
            Content::Inline(content) => content.len(),
            Content::Upload { .. } => 0,
        };
        bytes += ENTRY_BYTES + file.path.len() + content;
        count += 1;
        if bytes > GROUP_BYTES_MAX {
            return Some(Mistake::new(
                span.clone(),
                format!("one task cannot have so many input files: here is number {count}"),
                "pack them into one file, for example with tar",
            ));
        }
    }
    None
}

/// A file that is named and also matched by a glob is one input.
fn drop_repeated(group: &mut Group, spans: &mut Vec<Range<usize>>) {
    let mut seen = HashSet::new();
    let fresh: Vec<bool> = group
        .inputs
        .iter()
        .map(|input| match input {
            Input::File(at) => seen.insert(*at),
            _ => true,
        })
        .collect();
    let mut at = fresh.iter();
    group.inputs.retain(|_| *at.next().unwrap_or(&true));
    let mut at = fresh.iter();
    spans.retain(|_| *at.next().unwrap_or(&true));
}

/// Two inputs of one task that would lie under the same path, or one within the other.
fn collision(files: &[InputFile], group: &Group, spans: &[Range<usize>]) -> Option<Mistake> {
    let clash = |path: &str, span: &Range<usize>| {
        Mistake::new(
            span.clone(),
            format!("two inputs of this task would lie at {path:?}"),
            "rename one of the files, or put them into folders",
        )
    };
    let path = |at: u32| &*files[at as usize].path;
    let mut shared = HashSet::new();
    for (input, span) in group.inputs.iter().zip(spans) {
        if let Input::File(at) = input
            && !shared.insert(path(*at))
        {
            return Some(clash(path(*at), span));
        }
    }
    let taken = |set: &HashSet<&str>, path: &str| {
        let parents = path.match_indices('/').map(|(end, _)| &path[..end]);
        parents.into_iter().any(|parent| set.contains(parent))
    };
    let firsts: Vec<_> = group
        .inputs
        .iter()
        .zip(spans)
        .filter_map(|(input, span)| match input {
            Input::FileEach(first) => Some((*first, span)),
            _ => None,
        })
        .collect();
    for (input, span) in group.inputs.iter().zip(spans) {
        if let Input::File(at) = input
            && taken(&shared, path(*at))
        {
            return Some(clash(path(*at), span));
        }
    }
    for offset in 0..group.count() {
        for (position, (first, span)) in firsts.iter().enumerate() {
            let own = path(first + offset);
            let before = firsts[..position].iter();
            if shared.contains(own)
                || taken(&shared, own)
                || before
                    .into_iter()
                    .any(|(other, _)| path(other + offset) == own)
            {
                return Some(clash(own, span));
            }
        }
    }
    None
}
