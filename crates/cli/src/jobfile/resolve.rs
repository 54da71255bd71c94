//! Finding a job's input files: single files, folders and globs become the job's list of files, small ones
//! with their content, bigger ones handed to a store that names them by their hash.

use super::{BadJobFile, JobFile, Mistake, WantedInput};
use globset::GlobBuilder;
use hedge_model::data::INLINE_BYTES_MAX;
use hedge_model::spec::placeholders::{expand_index, has_index};
use hedge_model::spec::{Draft, Group, Input, check_path};
use hedge_model::{Data, FileEntry, Hash, JobSpec};
use std::collections::{HashMap, HashSet};
use std::io;
use std::ops::Range;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

/// Most input files of one job: each costs memory on every supervisor.
pub const FILES_MAX: usize = 1_000_000;
/// Most entries that are looked at in search of inputs, so that a glob over a whole disk ends.
pub const VISITED_MAX: usize = 10_000_000;
/// Most bytes of small files that travel within the job itself. Further ones are fetched by hash like big ones, many in
/// one request: they neither make every message about the job long, nor does a worker write them again for each attempt.
pub const INLINE_TOTAL_MAX: usize = 128 << 10;

/// Most bytes that the list of one task's input files takes, content of small ones included: the list is sent to
/// each worker as one message.
pub const GROUP_BYTES_MAX: usize = 8 << 20;
/// Bytes that a file's entry takes beside its path: hash, length and flags.
const ENTRY_BYTES: usize = 48;

/// Takes a file into the store that serves it; gives its hash and its length in bytes.
pub type Store<'a> = dyn FnMut(&Path) -> io::Result<(Hash, u64)> + 'a;

/// Finds the inputs of a job file beside it and makes the job.
///
/// # Errors
/// Inputs that do not exist, are no files, leave the folder or are too many. Files already handed to `store`
/// stay there.
pub fn resolve(file: &JobFile, store: &mut Store<'_>) -> Result<JobSpec, BadJobFile> {
    let folder = Path::new(&file.name).parent().unwrap_or(Path::new(""));
    let mut finder = Finder::new(folder, store);
    let mut draft = file.draft.clone();
    let mut mistakes = Vec::new();
    for (group, wanted) in draft.groups.iter_mut().zip(&file.wanted) {
        if let Some((name, span)) = &wanted.stdin {
            match finder.content(name) {
                Ok(data) => group.stdin = Some(data),
                Err((what, help)) => mistakes.push(Mistake::new(span.clone(), what, help)),
            }
        }
        group_inputs(&mut finder, group, &wanted.inputs, &mut mistakes);
    }
    if !mistakes.is_empty() {
        return Err(BadJobFile::new(&file.name, file.text.clone(), mistakes));
    }
    draft.files = finder.files;
    JobSpec::for_submission(draft).map_err(|error| file.point(&error))
}

/// Makes one file an input of every task of the draft's only group, under its own name.
pub(super) fn add_program(
    draft: &mut Draft,
    path: &Path,
    store: &mut Store<'_>,
) -> Result<Arc<str>, (String, String)> {
    let mut finder = Finder::new(Path::new(""), store);
    let name = file_name(path)?;
    let at = finder.add(path, name)?;
    draft.files = finder.files;
    draft.groups[0].inputs.push(Input::File(at));
    Ok(draft.files[at as usize].path.clone())
}

/// What is wrong, what would be right.
type Wrong = (String, String);

struct Finder<'a, 's> {
    folder: &'a Path,
    store: &'a mut Store<'s>,
    files: Vec<FileEntry>,
    known: HashMap<(PathBuf, String), u32>,
    visited: usize,
    inline_total: usize,
}

fn group_inputs(
    finder: &mut Finder<'_, '_>,
    group: &mut Group,
    wanted: &[WantedInput],
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
        let found = if has_index(pattern) {
            let (from, to) = group.array.unwrap_or((0, 1));
            finder
                .each(pattern, from, to)
                .map(|first| vec![Input::FileEach(first)])
        } else {
            finder
                .find(&expand_index(pattern, None))
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
    if mistakes.is_empty() {
        drop_repeated(group, &mut spans);
        mistakes.extend(collision(&finder.files, group, &spans));
        mistakes.extend(too_long(&finder.files, group, &spans));
    }
}

/// A list of shared input files that is too long to send.
fn too_long(files: &[FileEntry], group: &Group, spans: &[Range<usize>]) -> Option<Mistake> {
    let mut bytes = 0;
    let mut count = 0;
    for (input, span) in group.inputs.iter().zip(spans) {
        let Input::File(at) = input else { continue };
        let file = &files[*at as usize];
        let content = match &file.data {
            Data::Inline(content) => content.len(),
            Data::Blob { .. } => 0,
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
fn collision(files: &[FileEntry], group: &Group, spans: &[Range<usize>]) -> Option<Mistake> {
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

impl<'a, 's> Finder<'a, 's> {
    fn new(folder: &'a Path, store: &'a mut Store<'s>) -> Self {
        Self {
            folder,
            store,
            files: Vec::new(),
            known: HashMap::new(),
            visited: 0,
            inline_total: 0,
        }
    }

    /// The files of one item of `inputs`, by position.
    fn find(&mut self, pattern: &str) -> Result<Vec<u32>, Wrong> {
        let pattern = normal(pattern)?;
        let path = self.folder.join(pattern);
        match std::fs::metadata(&path) {
            Ok(told) if told.is_file() => {
                let lands = if pattern.starts_with('/') {
                    file_name(&path)?
                } else {
                    pattern.to_owned()
                };
                Ok(vec![self.add(&path, lands)?])
            }
            Ok(told) if told.is_dir() => self.walk_folder(pattern, &path),
            Ok(_) => Err(no_file(pattern)),
            Err(_) if pattern.contains(['*', '?', '[', '{']) => self.walk_glob(pattern),
            Err(error) => Err(self.missing(pattern, &error)),
        }
    }

    /// One file for each index, at consecutive positions; gives the first one's.
    fn each(&mut self, pattern: &str, from: u32, to: u32) -> Result<u32, Wrong> {
        let first = self.files.len() as u32;
        for index in from..to {
            let own = expand_index(pattern, Some(index));
            let own = normal(&own)?;
            let path = self.folder.join(own);
            let told = std::fs::metadata(&path).map_err(|error| self.missing(own, &error))?;
            if !told.is_file() {
                return Err((
                    format!("the input {own:?} is no file"),
                    "an input with `${index}` gives each index one file of its own".to_owned(),
                ));
            }
            let lands = if own.starts_with('/') {
                file_name(&path)?
            } else {
                own.to_owned()
            };
            self.push(&path, lands)?;
        }
        Ok(first)
    }

    /// The content of a file, for a standard input.
    fn content(&mut self, name: &str) -> Result<Data, Wrong> {
        let path = self.folder.join(name);
        match std::fs::metadata(&path) {
            Ok(told) if told.is_file() => self.load(&path, told.len()),
            Ok(_) => Err(no_file(name)),
            Err(error) => Err(self.missing(name, &error)),
        }
    }

    fn walk_folder(&mut self, pattern: &str, folder: &Path) -> Result<Vec<u32>, Wrong> {
        let prefix = match (pattern, pattern.starts_with('/')) {
            (".", _) => String::new(),
            (_, true) => format!("{}/", file_name(folder)?),
            (_, false) => format!("{pattern}/"),
        };
        let found = self.walk(folder, usize::MAX, true, |rest| {
            Some(format!("{prefix}{rest}"))
        })?;
        if found.is_empty() {
            return Err((
                format!("the folder {pattern:?} holds no file"),
                "put files into it, or leave it out".to_owned(),
            ));
        }
        Ok(found)
    }

    fn walk_glob(&mut self, pattern: &str) -> Result<Vec<u32>, Wrong> {
        let special = |part: &str| part.contains(['*', '?', '[', '{']);
        let parts: Vec<&str> = pattern.split('/').collect();
        let literal = parts.iter().take_while(|part| !special(part)).count();
        let base = parts[..literal].join("/");
        let rest = parts[literal..].join("/");
        let matcher = GlobBuilder::new(&rest)
            .literal_separator(true)
            .backslash_escape(true)
            .build()
            .map_err(|error| {
                (
                    format!("{pattern:?} is no valid glob: {}", error.kind()),
                    "write `*` for any part of a name, `**` for any folders, `[ab]` for one of these".to_owned(),
                )
            })?
            .compile_matcher();
        let absolute = pattern.starts_with('/');
        let folder = match (absolute, &*base) {
            (true, "") => PathBuf::from("/"),
            _ => self.folder.join(&base),
        };
        let folder = if folder.as_os_str().is_empty() {
            PathBuf::from(".")
        } else {
            folder
        };
        let depth = if rest.contains("**") {
            usize::MAX
        } else {
            parts.len() - literal
        };
        let hidden = rest.starts_with('.') || rest.contains("/.");
        let prefix = if absolute || base.is_empty() {
            String::new()
        } else {
            format!("{base}/")
        };
        let found = self.walk(&folder, depth, hidden, |path| {
            matcher.is_match(path).then(|| format!("{prefix}{path}"))
        })?;
        if found.is_empty() {
            return Err((
                format!("no file matches {pattern:?}"),
                "inputs are looked for beside the job file; `*` does not cross folders, `**` does"
                    .to_owned(),
            ));
        }
        Ok(found)
    }

    /// Adds the files below `folder` for which `lands` says where they lie in the task's folder.
    fn walk(
        &mut self,
        folder: &Path,
        depth: usize,
        hidden: bool,
        lands: impl Fn(&str) -> Option<String>,
    ) -> Result<Vec<u32>, Wrong> {
        let mut found = Vec::new();
        let walk = walkdir::WalkDir::new(folder)
            .min_depth(1)
            .max_depth(depth)
            .sort_by_file_name()
            .into_iter()
            .filter_entry(|entry| {
                hidden
                    || entry.depth() == 0
                    || !entry.file_name().as_encoded_bytes().starts_with(b".")
            });
        for entry in walk {
            self.visited += 1;
            if self.visited > VISITED_MAX {
                return Err((
                    format!("more than {VISITED_MAX} files and folders were looked at"),
                    "name the inputs more closely".to_owned(),
                ));
            }
            let entry = entry.map_err(|error| {
                (
                    format!("cannot be read: {error}"),
                    "make it readable, or leave it out".to_owned(),
                )
            })?;
            if entry.file_type().is_dir() {
                continue;
            }
            let rest = entry.path().strip_prefix(folder).unwrap_or(entry.path());
            let Some(rest) = rest.to_str() else {
                return Err((
                    format!("{} is no UTF-8 name", entry.path().display()),
                    "rename the file, or leave it out".to_owned(),
                ));
            };
            let Some(lands) = lands(rest) else { continue };
            let told =
                std::fs::metadata(entry.path()).map_err(|error| broken(entry.path(), &error))?;
            if told.is_dir() {
                return Err((
                    format!("{} is a link to a folder", entry.path().display()),
                    "links to folders are not followed: name that folder as an input of its own"
                        .to_owned(),
                ));
            }
            found.push(self.add(entry.path(), lands)?);
        }
        Ok(found)
    }

    /// The position of a file, added unless it is there already.
    fn add(&mut self, path: &Path, lands: String) -> Result<u32, Wrong> {
        let key = (path.to_owned(), lands);
        if let Some(at) = self.known.get(&key) {
            return Ok(*at);
        }
        let at = self.push(path, key.1.clone())?;
        self.known.insert(key, at);
        Ok(at)
    }

    fn push(&mut self, path: &Path, lands: String) -> Result<u32, Wrong> {
        if self.files.len() >= FILES_MAX {
            return Err((
                format!("the job has more than {FILES_MAX} input files"),
                "pack them, for example with tar".to_owned(),
            ));
        }
        if let Err(why) = check_path(&lands) {
            return Err((
                format!("the input {lands:?} {why}"),
                "rename the file, or leave it out".to_owned(),
            ));
        }
        let told = std::fs::metadata(path).map_err(|error| broken(path, &error))?;
        if !told.is_file() {
            return Err(no_file(&path.display().to_string()));
        }
        let data = self.load(path, told.len())?;
        self.files.push(FileEntry {
            path: lands.into(),
            executable: told.permissions().mode() & 0o111 != 0,
            data,
        });
        Ok(self.files.len() as u32 - 1)
    }

    fn load(&mut self, path: &Path, size: u64) -> Result<Data, Wrong> {
        let cannot = |error: io::Error| broken(path, &error);
        if size <= INLINE_BYTES_MAX as u64 && self.inline_total + size as usize <= INLINE_TOTAL_MAX
        {
            let content = std::fs::read(path).map_err(cannot)?;
            // It may have grown since it was looked at.
            if content.len() <= INLINE_BYTES_MAX {
                self.inline_total += content.len();
                return Ok(Data::Inline(content.into()));
            }
        }
        let (hash, size) = (self.store)(path).map_err(cannot)?;
        Ok(Data::Blob { hash, size })
    }

    fn missing(&self, name: &str, error: &io::Error) -> Wrong {
        if error.kind() != io::ErrorKind::NotFound {
            return broken(Path::new(name), error);
        }
        let place = if name.starts_with('/') {
            ""
        } else {
            "inputs are looked for beside the job file"
        };
        let near = self.nearest(name);
        let help = match (near, place) {
            (Some(near), "") => format!("did you mean {near:?}?"),
            (Some(near), place) => format!("{place}; did you mean {near:?}?"),
            (None, "") => "check the path".to_owned(),
            (None, place) => place.to_owned(),
        };
        (format!("the input {name:?} does not exist"), help)
    }

    fn nearest(&self, name: &str) -> Option<String> {
        let path = self.folder.join(name);
        let wanted = path.file_name()?.to_str()?;
        let parent = path.parent()?;
        let parent = if parent.as_os_str().is_empty() {
            Path::new(".")
        } else {
            parent
        };
        let (distance, near) = std::fs::read_dir(parent)
            .ok()?
            .take(NAMES_COMPARED_MAX)
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .map(|other| (strsim::osa_distance(wanted, &other), other))
            .min()?;
        let cut = name.len() - wanted.len();
        (distance <= (wanted.len() / 3).max(1)).then(|| format!("{}{near}", &name[..cut]))
    }
}

/// Most names of a folder that are compared with a wrong one.
const NAMES_COMPARED_MAX: usize = 2_000;

/// A pattern without `./` before and `/` behind it; it stays beside the job file unless it is absolute.
fn normal(pattern: &str) -> Result<&str, Wrong> {
    let mut short = pattern;
    while let Some(rest) = short.strip_prefix("./") {
        short = rest.trim_start_matches('/');
    }
    if short.len() > 1 {
        short = short.trim_end_matches('/');
    }
    if short.is_empty() && !pattern.is_empty() {
        short = ".";
    }
    if short.starts_with('/') || short == "." {
        return Ok(short);
    }
    if Path::new(short)
        .components()
        .any(|part| part == Component::ParentDir)
    {
        return Err((
            format!("the input {pattern:?} leaves the job file's folder"),
            "write an absolute path: the file then lies under its own name".to_owned(),
        ));
    }
    check_path(short).map_err(|why| {
        (
            format!("the input {pattern:?} {why}"),
            "write a path like \"data/scene.pov\"".to_owned(),
        )
    })?;
    Ok(short)
}

fn file_name(path: &Path) -> Result<String, Wrong> {
    let name = path.file_name().and_then(|name| name.to_str());
    name.map(str::to_owned).ok_or_else(|| {
        (
            format!("{} has no usable name", path.display()),
            "name a file or folder by its path".to_owned(),
        )
    })
}

fn no_file(name: &str) -> Wrong {
    (
        format!("{name:?} is neither a file nor a folder"),
        "name regular files; devices, sockets and pipes cannot be sent".to_owned(),
    )
}

fn broken(path: &Path, error: &io::Error) -> Wrong {
    if error.kind() == io::ErrorKind::NotFound {
        let link = std::fs::symlink_metadata(path).is_ok();
        let what = if link {
            "is a link to nothing"
        } else {
            "does not exist"
        };
        return (
            format!("{} {what}", path.display()),
            "check the path".to_owned(),
        );
    }
    (
        format!("{} cannot be read: {error}", path.display()),
        "make it readable, or leave it out".to_owned(),
    )
}
