//! Finds the declared outputs of an attempt in its scratch directory.

use crate::shortage::shortage;
use globset::{GlobBuilder, GlobMatcher};
use hedge_model::Ending;
use hedge_model::ending::OutputFault;
use rustix::fs::{Access, AtFlags, CWD};
use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// The most output files of one attempt.
pub const OUTPUTS_MAX: usize = 100_000;

/// The most entries of the directory that are compared with patterns.
const ENTRIES_MAX: usize = 1_000_000;

/// An output file of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputFile {
    /// Its path relative to the attempt's folder, separated by `/`.
    pub path: String,
    /// Whether it may be executed.
    pub executable: bool,
    /// The path at which its content can be read while the [`crate::Scratch`] exists.
    pub file: PathBuf,
    /// Length in bytes.
    pub size: u64,
}

/// Declared outputs. They tell, before the attempt has run, whether a path would be an output.
pub struct OutputPatterns {
    names: Vec<String>,
    globs: Vec<GlobMatcher>,
}

impl OutputPatterns {
    /// Creates them from names and patterns. An invalid pattern only matches the file of that name.
    pub fn new<P: AsRef<str>>(patterns: &[P]) -> OutputPatterns {
        let names: Vec<String> = patterns.iter().map(|it| normal(it.as_ref())).collect();
        let globs = names.iter().filter(|name| is_pattern(name));
        let globs = globs.filter_map(|name| matcher(name).ok()).collect();
        OutputPatterns { names, globs }
    }

    /// Returns whether a file at this path in the attempt's folder would be an output.
    pub fn cover(&self, path: &str) -> bool {
        if self.names.is_empty() {
            return false;
        }
        let path = normal(path);
        let folders = path.match_indices('/').map(|(end, _)| &path[..end]);
        let mut ways = folders.chain([&*path]);
        let whole = self.names.iter().any(String::is_empty);
        whole
            || ways.any(|way| {
                self.names.iter().any(|name| name == way)
                    || self.globs.iter().any(|glob| glob.is_match(way))
            })
    }
}

struct Collection<'a> {
    root: &'a Path,
    found: BTreeMap<String, OutputFile>,
    looked: usize,
}

pub(crate) fn collect(root: &Path, patterns: &[&str]) -> Result<Vec<OutputFile>, Ending> {
    let mut collection = Collection {
        root,
        found: BTreeMap::new(),
        looked: 0,
    };
    let mut globs: Vec<(&str, GlobMatcher, bool)> = Vec::new();
    for pattern in patterns {
        super::path_fault(pattern).map_err(|why| bad_path(pattern, why))?;
        let plain = normal(pattern);
        if root.join(&plain).symlink_metadata().is_ok() {
            collection.check_way(&plain)?;
            collection.take(plain.clone())?;
            // Nothing of an empty folder can leave; a pattern that ends in a slash allows for that.
            if !pattern.ends_with('/') && !collection.holds(&plain) {
                return Err(odd(*pattern, "an empty folder"));
            }
        } else if is_pattern(pattern) {
            let glob = matcher(&plain)
                .map_err(|error| bad_path(pattern, &format!("is no pattern: {}", error.kind())))?;
            globs.push((pattern, glob, false));
        } else {
            return Err(fault(*pattern, OutputFault::Missing));
        }
    }
    if !globs.is_empty() {
        collection.match_below(String::new(), &mut globs)?;
    }
    if let Some((pattern, ..)) = globs.iter().find(|(_, _, matched)| !matched) {
        return Err(fault(*pattern, OutputFault::Missing));
    }
    Ok(collection.found.into_values().collect())
}

impl Collection<'_> {
    /// Returns whether a file was found at a path or below it.
    fn holds(&self, path: &str) -> bool {
        let below = format!("{path}/");
        let mut next = self.found.range(below.clone()..);
        let below = next
            .next()
            .is_some_and(|(path, _)| path.starts_with(&below));
        below || self.found.contains_key(path) || (path.is_empty() && !self.found.is_empty())
    }

    /// Adds a file, or a folder with everything in it.
    fn take(&mut self, path: String) -> Result<(), Ending> {
        let mut waiting = vec![path];
        while let Some(path) = waiting.pop() {
            let at = self.root.join(&path);
            let failed = |error| unreadable(&path, &error);
            let kind = at.symlink_metadata().map_err(failed)?.file_type();
            if kind.is_dir() {
                waiting.extend(self.entries(&path)?);
            } else if kind.is_symlink() {
                self.take_link(path, &at)?;
            } else if kind.is_file() {
                self.add(path, at)?;
            } else {
                let what = if kind.is_fifo() {
                    "a named pipe"
                } else if kind.is_socket() {
                    "a socket"
                } else {
                    "a device"
                };
                return Err(odd(path, what));
            }
        }
        Ok(())
    }

    /// Refuses a path that leaves the attempt's folder through a link.
    fn check_way(&self, path: &str) -> Result<(), Ending> {
        let at = self.root.join(path);
        let inside = |folder: &Path| {
            let (root, real) = (
                std::fs::canonicalize(self.root),
                std::fs::canonicalize(folder),
            );
            root.is_ok_and(|root| real.is_ok_and(|real| real.starts_with(root)))
        };
        match at.parent() {
            Some(parent) if !path.is_empty() && !inside(parent) => {
                Err(odd(path, "behind a link that leaves the task's folder"))
            }
            _ => Ok(()),
        }
    }

    fn take_link(&mut self, path: String, at: &Path) -> Result<(), Ending> {
        let refused = |path: String, what| Err(odd(path, what));
        let (Ok(root), Ok(real)) = (std::fs::canonicalize(self.root), std::fs::canonicalize(at))
        else {
            return refused(path, "a link that leads nowhere");
        };
        if !real.starts_with(&root) {
            return refused(path, "a link that leaves the task's folder");
        }
        if !real.is_file() {
            return refused(path, "a link to something that is not a regular file");
        }
        self.add(path, real)
    }

    fn add(&mut self, path: String, file: PathBuf) -> Result<(), Ending> {
        let about = file.metadata().map_err(|error| unreadable(&path, &error))?;
        rustix::fs::accessat(CWD, &file, Access::READ_OK, AtFlags::EACCESS)
            .map_err(|error| unreadable(&path, &error.into()))?;
        let executable = about.permissions().mode() & 0o111 != 0;
        self.found.insert(
            path.clone(),
            OutputFile {
                path,
                executable,
                file,
                size: about.len(),
            },
        );
        if self.found.len() > OUTPUTS_MAX {
            return Err(too_many());
        }
        Ok(())
    }

    /// Adds what matches below a folder. Of a folder that matches everything is added.
    fn match_below(
        &mut self,
        folder: String,
        globs: &mut [(&str, GlobMatcher, bool)],
    ) -> Result<(), Ending> {
        let mut waiting = vec![folder];
        while let Some(folder) = waiting.pop() {
            for path in self.entries(&folder)? {
                let at = self.root.join(&path);
                let is_dir = at.symlink_metadata().is_ok_and(|about| about.is_dir());
                if globs.iter().any(|(_, glob, _)| glob.is_match(&path)) {
                    self.take(path.clone())?;
                    let holds = self.holds(&path);
                    for (pattern, glob, matched) in globs.iter_mut() {
                        *matched |= glob.is_match(&path) && (holds || pattern.ends_with('/'));
                    }
                }
                // Even if it was added, other patterns may match what is in it.
                if is_dir {
                    waiting.push(path);
                }
            }
        }
        Ok(())
    }

    fn entries(&mut self, folder: &str) -> Result<Vec<String>, Ending> {
        let at = self.root.join(folder);
        let failed = |error| unreadable(folder, &error);
        let mut paths = Vec::new();
        for entry in std::fs::read_dir(&at).map_err(failed)? {
            self.looked += 1;
            if self.looked > ENTRIES_MAX {
                return Err(too_many());
            }
            let name = entry.map_err(failed)?.file_name();
            let Some(name) = name.to_str() else {
                let path = Path::new(folder).join(&name);
                return Err(bad_path(&path.to_string_lossy(), "is not UTF-8"));
            };
            let is_top = folder.is_empty();
            paths.push(if is_top {
                name.to_owned()
            } else {
                format!("{folder}/{name}")
            });
        }
        Ok(paths)
    }
}

fn fault(path: impl Into<String>, fault: OutputFault) -> Ending {
    Ending::Output {
        path: path.into(),
        fault,
    }
}

fn odd(path: impl Into<String>, what: &str) -> Ending {
    let what = what.to_owned();
    fault(path, OutputFault::Odd { what })
}

fn bad_path(path: &str, why: &str) -> Ending {
    let why = why.to_owned();
    fault(path, OutputFault::BadPath { why })
}

fn too_many() -> Ending {
    let limit = OUTPUTS_MAX as u64;
    fault("", OutputFault::TooMany { limit })
}

/// Returns the ending for an output that cannot be read. It is the task's fault if the file is gone or its rights were
/// removed.
fn unreadable(path: &str, error: &io::Error) -> Ending {
    use io::ErrorKind::{NotADirectory, NotFound, PermissionDenied};
    let why = error.to_string();
    match (shortage(error), error.kind()) {
        (Some(of), _) => Ending::Short {
            of,
            doing: format!("read the output {path:?}"),
        },
        (None, PermissionDenied | NotFound | NotADirectory) => {
            fault(path, OutputFault::Unreadable { why })
        }
        (None, _) => Ending::worker(format!("it cannot read the output {path:?}: {why}")),
    }
}

fn is_pattern(name: &str) -> bool {
    name.contains(['*', '?', '[', '{'])
}

fn matcher(pattern: &str) -> Result<GlobMatcher, globset::Error> {
    let glob = GlobBuilder::new(pattern).literal_separator(true).build()?;
    Ok(glob.compile_matcher())
}

/// Returns a path without `.`, doubled or trailing slashes.
fn normal(path: &str) -> String {
    path.split('/')
        .filter(|part| !part.is_empty() && *part != ".")
        .collect::<Vec<_>>()
        .join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_covered_by_its_name_its_folders_and_patterns() {
        let patterns = OutputPatterns::new(&["./state/", "log.txt", "maps/*.png", "[bad"]);
        for covered in [
            "state/a/b",
            "log.txt",
            "maps/a.png",
            "./state",
            "maps/a.png/x",
        ] {
            assert!(patterns.cover(covered), "{covered}");
        }
        for free in ["states", "a/log.txt", "maps/sub/a.png", "maps", "b"] {
            assert!(!patterns.cover(free), "{free}");
        }
        assert!(OutputPatterns::new(&["."]).cover("a/b"));
        assert!(!OutputPatterns::new::<&str>(&[]).cover("a"));
    }
}
