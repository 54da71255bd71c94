//! What is to be run: a job file or a program, checked before anything is started or reached.

use crate::args::Source;
use crate::exit::Failure;
use hedge_job::{Found, JobFile};
use hedge_model::{Hash, JobSpec};
use hedge_node::client::Client;
use std::path::Path;

/// A job that is known to be right as far as this machine can tell. Its big input files are still to be hashed.
pub struct Checked {
    found: Found,
    program: bool,
}

impl Checked {
    /// Reads and checks the job, its input files included.
    ///
    /// # Errors
    /// Mistakes of the job file or the arguments.
    pub fn new(source: Source) -> Result<Self, Failure> {
        let Some(path) = &source.job else {
            let (array, here) = (source.array.as_deref(), Path::new(""));
            let found = hedge_job::program(&source.program, array, source.critical, here);
            return Ok(Self {
                found: found.map_err(Failure::Arguments)?,
                program: true,
            });
        };
        let file = JobFile::read(path)?;
        Ok(Self {
            found: file.find(path.parent().unwrap_or(Path::new("")))?,
            program: false,
        })
    }

    /// Whether it is a program, whose output the user expects to see.
    pub fn is_program(&self) -> bool {
        self.program
    }

    /// The most CPUs that one of its tasks asks for, in thousandths.
    pub fn cpus_max(&self) -> u64 {
        let groups = self.tasks().groups().iter();
        let cpus = groups.map(|group| group.resources.cpus_milli);
        cpus.max().unwrap_or(0)
    }

    /// The job without its input files.
    pub fn tasks(&self) -> &JobSpec {
        self.found.tasks()
    }

    /// The job, its big input files served by `client`.
    ///
    /// # Errors
    /// Files that were lost or changed their kind meanwhile.
    pub async fn finish(self, client: &Client) -> Result<JobSpec, Failure> {
        let uploads = self.found.uploads().iter();
        let paths: Vec<_> = uploads.map(|upload| upload.path.clone()).collect();
        let mut content = Vec::new();
        if !paths.is_empty() {
            let client = client.clone();
            // Hashing takes long where files are big, and the connection must live meanwhile.
            let hashing = tokio::task::spawn_blocking(move || client.add_files(paths));
            let hashed = super::patiently("reading the job's input files", hashing).await;
            let hashed = hashed.map_err(|error| {
                Failure::Local(format!(
                    "the inputs could not be read: {error}; nothing was submitted"
                ))
            })?;
            let read = hashed.into_iter().map(|(path, added)| {
                added.map_err(|error| {
                    Failure::Arguments(format!(
                        "the input {} cannot be read: {error}; nothing was submitted: make it readable, or leave it out",
                        path.display()
                    ))
                })
            });
            content = read.collect::<Result<Vec<(Hash, u64)>, Failure>>()?;
        }
        let job = self.found.job(&content);
        job.map_err(|error| Failure::Arguments(format!("{error}; nothing was submitted")))
    }
}
