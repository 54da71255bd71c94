//! The repository's files, read once for all checks.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use super::Finding;

/// One text file.
pub struct SourceFile {
    /// Its path from the repository's root, with `/` between the parts.
    pub path: String,
    /// What it holds.
    pub text: String,
    /// The same, understood, where it is Rust.
    pub rust: Option<syn::File>,
}

/// All text files of the repository that are not ignored.
pub struct Repository {
    /// In the order of their paths.
    pub files: Vec<SourceFile>,
    /// Rust files that could not be understood.
    pub broken: Vec<Finding>,
}

impl Repository {
    /// One file of this path and text.
    #[cfg(test)]
    pub fn of_one(path: String, text: &str) -> Self {
        let file = SourceFile {
            path,
            text: text.to_owned(),
            rust: syn::parse_file(text).ok(),
        };
        Self {
            files: vec![file],
            broken: Vec::new(),
        }
    }

    /// Reads the files that are committed or could be.
    ///
    /// # Errors
    /// The list of files or one of them could not be read.
    pub fn read(root: &Path) -> Result<Repository> {
        // A clone may belong to another user than the one who checks it, and reading it is harmless.
        let list = Command::new("git")
            .args(["-c", "safe.directory=*"])
            .args([
                "ls-files",
                "-z",
                "--cached",
                "--others",
                "--exclude-standard",
            ])
            .current_dir(root)
            .stdin(Stdio::null())
            .output()
            .context("cannot run git to list the repository's files")?;
        ensure!(
            list.status.success(),
            "git cannot list the repository's files: {}",
            String::from_utf8_lossy(&list.stderr).trim()
        );
        let list = String::from_utf8(list.stdout).context("a file's name is not UTF-8")?;
        let mut paths: Vec<&str> = list.split('\0').filter(|path| !path.is_empty()).collect();
        paths.sort_unstable();
        paths.dedup();
        let mut repository = Repository {
            files: Vec::new(),
            broken: Vec::new(),
        };
        for path in paths {
            // A file may be deleted but not yet committed, and pictures are not text.
            let Ok(bytes) = std::fs::read(root.join(path)) else {
                continue;
            };
            if let Ok(text) = String::from_utf8(bytes) {
                repository.add(path, text);
            }
        }
        Ok(repository)
    }

    /// A repository of the given files.
    #[cfg(test)]
    pub fn of(files: &[(&str, &str)]) -> Repository {
        let mut repository = Repository {
            files: Vec::new(),
            broken: Vec::new(),
        };
        for (path, text) in files {
            repository.add(path, (*text).to_owned());
        }
        repository
    }

    /// The file at `path`.
    pub fn file(&self, path: &str) -> Option<&SourceFile> {
        self.files.iter().find(|file| file.path == path)
    }

    /// The Rust files, with what they mean.
    pub fn rust(&self) -> impl Iterator<Item = (&SourceFile, &syn::File)> {
        self.files
            .iter()
            .filter_map(|file| Some((file, file.rust.as_ref()?)))
    }

    fn add(&mut self, path: &str, text: String) {
        let rust = match path.ends_with(".rs").then(|| syn::parse_file(&text)) {
            Some(Err(error)) => {
                let place = format!("{path}:{}", error.span().start().line);
                self.broken
                    .push(Finding::new(place, format!("not valid Rust: {error}")));
                None
            }
            Some(Ok(file)) => Some(file),
            None => None,
        };
        self.files.push(SourceFile {
            path: path.to_owned(),
            text,
            rust,
        });
    }
}
