//! Finding input files: single files, folders and globs.

use crate::Upload;
use globset::GlobBuilder;
use hedge_model::data::INLINE_BYTES_MAX;
use hedge_model::spec::{Group, check_path};
use hedge_model::{Data, Hash};
use std::collections::HashMap;
use std::io;
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

/// What is wrong, what would be right.
pub type Wrong = (String, String);

/// A file: where it is, and where it lies in a task's scratch directory.
pub type Match = (PathBuf, String);

/// Finds files, and holds those that it found.
pub struct Finder<'a> {
    folder: &'a Path,
    /// Where relative inputs are, for messages.
    pub place: &'static str,
    /// Whether files outside of the folder are refused.
    confined: bool,
    /// What was found.
    pub files: Vec<InputFile>,
    /// What is to be uploaded, each path once.
    pub uploads: Vec<Upload>,
    known: HashMap<(PathBuf, String), u32>,
    uploaded: HashMap<PathBuf, usize>,
    visited: usize,
    inline_total: usize,
}

/// An input file.
pub struct InputFile {
    /// Where it lies in the task's scratch directory.
    pub path: Arc<str>,
    /// Whether it may be run.
    pub executable: bool,
    /// What is in it.
    pub content: Content,
}

/// The content of a file.
pub enum Content {
    /// Travels within the job.
    Inline(Arc<[u8]>),
    /// The position in the list of uploads, and the length when it was found.
    Upload {
        /// The position.
        upload: usize,
        /// The length.
        bytes: u64,
    },
}

impl Content {
    /// The position in the list of uploads.
    pub fn upload(&self) -> Option<usize> {
        match self {
            Content::Inline(_) => None,
            Content::Upload { upload, .. } => Some(*upload),
        }
    }

    /// The content as a job has it; of an upload, with a hash of zeros.
    pub fn data(self) -> Data {
        match self {
            Content::Inline(content) => Data::Inline(content),
            Content::Upload { bytes, .. } => Data::Blob {
                hash: Hash([0; 32]),
                size: bytes,
            },
        }
    }
}

impl<'a> Finder<'a> {
    pub fn new(folder: &'a Path) -> Self {
        Self {
            folder,
            place: "beside the job file",
            confined: false,
            files: Vec::new(),
            uploads: Vec::new(),
            known: HashMap::new(),
            uploaded: HashMap::new(),
            visited: 0,
            inline_total: 0,
        }
    }

    /// Finds files in a folder that was made for one submission, and nowhere else.
    pub fn within(folder: &'a Path) -> Self {
        Self {
            place: "among the files of the submission",
            confined: true,
            ..Self::new(folder)
        }
    }

    /// Refuses a name that leads out of the folder, where that is not allowed.
    fn check_inside(&self, name: &str) -> Result<(), Wrong> {
        let outside = |part| !matches!(part, Component::Normal(_) | Component::CurDir);
        if self.confined && Path::new(name).components().any(outside) {
            return Err((
                format!("the file {name:?} is outside of the submission"),
                "send it with the submission, and name it by a relative path".to_owned(),
            ));
        }
        Ok(())
    }

    /// The files of one item of `inputs`, by position.
    pub fn find(&mut self, pattern: &str) -> Result<Vec<u32>, Wrong> {
        let found = self.matches(pattern)?.into_iter();
        found.map(|(path, lands)| self.add(&path, lands)).collect()
    }

    /// Where the files of a pattern are, and where they lie in a task's scratch directory.
    pub fn matches(&mut self, pattern: &str) -> Result<Vec<Match>, Wrong> {
        let pattern = normal(pattern)?;
        self.check_inside(pattern)?;
        let path = self.folder.join(pattern);
        match std::fs::metadata(&path) {
            Ok(told) if told.is_file() => {
                let lands = if pattern.starts_with('/') {
                    file_name(&path)?
                } else {
                    pattern.to_owned()
                };
                Ok(vec![(path, lands)])
            }
            Ok(told) if told.is_dir() => self.walk_folder(pattern, &path),
            Ok(_) => Err(no_file(pattern)),
            Err(_) if pattern.contains(['*', '?', '[', '{']) => self.walk_glob(pattern),
            Err(error) => Err(self.missing("input", pattern, &error)),
        }
    }

    /// Adds files at consecutive positions; gives the first one's.
    pub fn add_each<'f>(&mut self, files: impl Iterator<Item = &'f Match>) -> Result<u32, Wrong> {
        let first = self.files.len() as u32;
        for (path, lands) in files {
            self.push(path, lands.clone())?;
        }
        Ok(first)
    }

    /// One file for each task of a group, at consecutive positions; gives the first one's.
    pub fn each(&mut self, pattern: &str, group: &Group) -> Result<u32, Wrong> {
        let first = self.files.len() as u32;
        for offset in 0..group.count() {
            let own = group.with_values(offset, |values| values.expand(pattern).into_owned());
            let own = normal(&own)?;
            self.check_inside(own)?;
            let path = self.folder.join(own);
            let told =
                std::fs::metadata(&path).map_err(|error| self.missing("input", own, &error))?;
            if !told.is_file() {
                return Err((
                    format!("the input {own:?} is no file"),
                    "an input with a placeholder gives each task one file of its own".to_owned(),
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
    pub fn content(&mut self, name: &str) -> Result<Content, Wrong> {
        let path = self.path(name)?;
        match std::fs::metadata(&path) {
            Ok(told) if told.is_file() => self.load(&path, told.len()),
            Ok(_) => Err(no_file(name)),
            Err(error) => Err(self.missing("input", name, &error)),
        }
    }

    /// Whether the files are those of one submission. Its trees are packed, and none of this machine's folders.
    pub fn is_confined(&self) -> bool {
        self.confined
    }

    /// Where a tree is.
    pub fn tree_path(&self, name: &str) -> Result<PathBuf, Wrong> {
        self.check_inside(name)?;
        match name {
            "" => Err((
                "the tree has no name".to_owned(),
                "name a folder: mounts = [{ tree = \".venv\" }]".to_owned(),
            )),
            name => Ok(self.folder.join(name)),
        }
    }

    /// Where a name is.
    pub fn path(&self, name: &str) -> Result<PathBuf, Wrong> {
        self.check_inside(name)?;
        Ok(self.folder.join(name))
    }

    fn walk_folder(&mut self, pattern: &str, folder: &Path) -> Result<Vec<Match>, Wrong> {
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

    fn walk_glob(&mut self, pattern: &str) -> Result<Vec<Match>, Wrong> {
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
                format!(
                    "inputs are looked for {}; `*` does not cross folders, `**` does",
                    self.place
                ),
            ));
        }
        Ok(found)
    }

    /// The files below `folder` for which `lands` says where they lie in the task's folder.
    fn walk(
        &mut self,
        folder: &Path,
        depth: usize,
        hidden: bool,
        lands: impl Fn(&str) -> Option<String>,
    ) -> Result<Vec<Match>, Wrong> {
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
            let told = std::fs::metadata(entry.path())
                .map_err(|error| cannot_read(entry.path(), &error))?;
            if told.is_dir() {
                return Err((
                    format!("{} is a link to a folder", entry.path().display()),
                    "links to folders are not followed: name that folder as an input of its own"
                        .to_owned(),
                ));
            }
            found.push((entry.into_path(), lands));
        }
        Ok(found)
    }

    /// The position of a file, added unless it is there already.
    pub fn add(&mut self, path: &Path, lands: String) -> Result<u32, Wrong> {
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
        let told = std::fs::metadata(path).map_err(|error| cannot_read(path, &error))?;
        if !told.is_file() {
            return Err(no_file(&path.display().to_string()));
        }
        let content = self.load(path, told.len())?;
        self.files.push(InputFile {
            path: lands.into(),
            executable: told.permissions().mode() & 0o111 != 0,
            content,
        });
        Ok(self.files.len() as u32 - 1)
    }

    fn load(&mut self, path: &Path, bytes: u64) -> Result<Content, Wrong> {
        let cannot = |error: io::Error| cannot_read(path, &error);
        if bytes <= INLINE_BYTES_MAX as u64
            && self.inline_total + bytes as usize <= INLINE_TOTAL_MAX
        {
            let content = std::fs::read(path).map_err(cannot)?;
            // It may have grown since it was looked at.
            if content.len() <= INLINE_BYTES_MAX {
                self.inline_total += content.len();
                return Ok(Content::Inline(content.into()));
            }
        }
        std::fs::File::open(path).map_err(cannot)?;
        let upload = *self.uploaded.entry(path.to_owned()).or_insert_with(|| {
            let path = path.to_owned();
            self.uploads.push(Upload { path, bytes });
            self.uploads.len() - 1
        });
        Ok(Content::Upload { upload, bytes })
    }

    /// Says that there is no file or folder `name`, which is meant to be a `what`.
    pub fn missing(&self, what: &str, name: &str, error: &io::Error) -> Wrong {
        if error.kind() != io::ErrorKind::NotFound {
            return cannot_read(Path::new(name), error);
        }
        let place = if name.starts_with('/') {
            String::new()
        } else {
            format!("{what}s are looked for {}", self.place)
        };
        let near = self.nearest(name);
        let help = match (near, &*place) {
            (Some(near), "") => format!("did you mean {near:?}?"),
            (Some(near), place) => format!("{place}; did you mean {near:?}?"),
            (None, "") => "check the path".to_owned(),
            (None, _) => place,
        };
        (format!("the {what} {name:?} does not exist"), help)
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
            format!("the input {pattern:?} leaves the job's folder"),
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

pub fn file_name(path: &Path) -> Result<String, Wrong> {
    let name = path.file_name().and_then(|name| name.to_str());
    name.map(str::to_owned).ok_or_else(|| {
        (
            format!("{} has no usable name", path.display()),
            "name a file or folder by its path".to_owned(),
        )
    })
}

pub fn no_file(name: &str) -> Wrong {
    (
        format!("{name:?} is neither a file nor a folder"),
        "name regular files; devices, sockets and pipes cannot be sent".to_owned(),
    )
}

pub fn cannot_read(path: &Path, error: &io::Error) -> Wrong {
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
