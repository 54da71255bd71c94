//! Finding what an attempt was asked to make.

use crate::ExecError;
use globset::{GlobBuilder, GlobMatcher};
use std::collections::BTreeMap;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Most files that one attempt may hand over.
pub const OUTPUTS_MAX: usize = 100_000;

/// Most entries of the folder that are looked at for patterns.
const ENTRIES_MAX: usize = 1_000_000;

/// A file that the attempt made and that leaves its folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputFile {
    /// Where it lies in the attempt's folder: relative, `/`-separated.
    pub path: String,
    /// Whether it may be executed.
    pub executable: bool,
    /// Where its content can be read as long as the [`crate::Scratch`] is kept.
    pub file: PathBuf,
    /// Length in bytes.
    pub size: u64,
}

struct Collection<'a> {
    root: &'a Path,
    found: BTreeMap<String, OutputFile>,
    looked: usize,
}

pub(crate) fn collect(root: &Path, patterns: &[&str]) -> Result<Vec<OutputFile>, ExecError> {
    let mut collection = Collection {
        root,
        found: BTreeMap::new(),
        looked: 0,
    };
    let mut globs: Vec<(&str, GlobMatcher, bool)> = Vec::new();
    for pattern in patterns {
        super::check_path(pattern)?;
        let plain = normal(pattern);
        if root.join(&plain).symlink_metadata().is_ok() {
            collection.check_way(&plain)?;
            collection.take(plain)?;
        } else if pattern.contains(['*', '?', '[', '{']) {
            let glob = GlobBuilder::new(&plain)
                .literal_separator(true)
                .build()
                .map_err(|error| ExecError::BadPattern {
                    pattern: (*pattern).to_owned(),
                    why: error.kind().to_string(),
                })?;
            globs.push((pattern, glob.compile_matcher(), false));
        } else {
            return Err(ExecError::OutputMissing {
                pattern: (*pattern).to_owned(),
            });
        }
    }
    if !globs.is_empty() {
        collection.match_below(String::new(), &mut globs)?;
    }
    if let Some((pattern, ..)) = globs.iter().find(|(_, _, matched)| !matched) {
        return Err(ExecError::OutputMissing {
            pattern: (*pattern).to_owned(),
        });
    }
    Ok(collection.found.into_values().collect())
}

impl Collection<'_> {
    /// Takes a file, or a folder with all in it.
    fn take(&mut self, path: String) -> Result<(), ExecError> {
        let mut waiting = vec![path];
        while let Some(path) = waiting.pop() {
            let at = self.root.join(&path);
            let failed = |error| ExecError::io("read the output", &at, error);
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
                return Err(ExecError::OutputRefused { path, what });
            }
        }
        Ok(())
    }

    /// Refuses a name that leads through a link out of the folder.
    fn check_way(&self, path: &str) -> Result<(), ExecError> {
        let at = self.root.join(path);
        let inside = |folder: &Path| {
            let (root, real) = (
                std::fs::canonicalize(self.root),
                std::fs::canonicalize(folder),
            );
            root.is_ok_and(|root| real.is_ok_and(|real| real.starts_with(root)))
        };
        match at.parent() {
            Some(parent) if !path.is_empty() && !inside(parent) => Err(ExecError::OutputRefused {
                path: path.to_owned(),
                what: "behind a link that leaves the task's folder",
            }),
            _ => Ok(()),
        }
    }

    fn take_link(&mut self, path: String, at: &Path) -> Result<(), ExecError> {
        let refused = |path, what| Err(ExecError::OutputRefused { path, what });
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

    fn add(&mut self, path: String, file: PathBuf) -> Result<(), ExecError> {
        let about = file
            .metadata()
            .map_err(|error| ExecError::io("read the output", &file, error))?;
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
            return Err(ExecError::TooManyOutputs { limit: OUTPUTS_MAX });
        }
        Ok(())
    }

    /// Takes what matches below a folder; folders that match are taken whole.
    fn match_below(
        &mut self,
        folder: String,
        globs: &mut [(&str, GlobMatcher, bool)],
    ) -> Result<(), ExecError> {
        let mut waiting = vec![folder];
        while let Some(folder) = waiting.pop() {
            for path in self.entries(&folder)? {
                let mut matches = false;
                for (_, glob, matched) in globs.iter_mut() {
                    if glob.is_match(&path) {
                        matches = true;
                        *matched = true;
                    }
                }
                let at = self.root.join(&path);
                let is_dir = at.symlink_metadata().is_ok_and(|about| about.is_dir());
                if matches {
                    self.take(path.clone())?;
                }
                // Also where it was taken: other patterns may need what is in it to match.
                if is_dir {
                    waiting.push(path);
                }
            }
        }
        Ok(())
    }

    fn entries(&mut self, folder: &str) -> Result<Vec<String>, ExecError> {
        let at = self.root.join(folder);
        let failed = |error| ExecError::io("read the output folder", &at, error);
        let mut paths = Vec::new();
        for entry in std::fs::read_dir(&at).map_err(failed)? {
            self.looked += 1;
            if self.looked > ENTRIES_MAX {
                return Err(ExecError::TooManyOutputs { limit: OUTPUTS_MAX });
            }
            let name = entry.map_err(failed)?.file_name();
            let Some(name) = name.to_str() else {
                let path = at.join(&name).to_string_lossy().into_owned();
                return Err(ExecError::OutputRefused {
                    path,
                    what: "a name that is not UTF-8",
                });
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

/// A path without `.`, doubled or trailing slashes.
fn normal(path: &str) -> String {
    path.split('/')
        .filter(|part| !part.is_empty() && *part != ".")
        .collect::<Vec<_>>()
        .join("/")
}
