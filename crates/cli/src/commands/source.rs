//! What is to be run: a job file or a program, checked before anything is started or reached.

use crate::args::Source;
use crate::exit::Failure;
use crate::jobfile::{self, JobFile, resolve};
use hedge_model::{Hash, JobSpec};
use hedge_node::client::Client;
use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

/// A job that is known to be right as far as this machine can tell.
pub struct Checked {
    kind: Kind,
    spec: JobSpec,
    /// Big input files, which still have to be hashed; until then their hashes in `spec` are zero.
    big: Vec<PathBuf>,
}

enum Kind {
    File(Box<JobFile>),
    Program(Source),
}

impl Checked {
    /// Reads and checks the job, its input files included.
    ///
    /// # Errors
    /// Mistakes of the job file or the arguments.
    pub fn new(source: Source) -> Result<Self, Failure> {
        let kind = match &source.job {
            Some(path) => Kind::File(Box::new(JobFile::read(path)?)),
            None => Kind::Program(source),
        };
        let mut big = Vec::new();
        let spec = kind.resolve(&mut |path| {
            big.push(path.to_owned());
            std::fs::File::open(path)?;
            Ok((Hash([0; 32]), std::fs::metadata(path)?.len()))
        })?;
        Ok(Self { kind, spec, big })
    }

    /// Whether it is a program, whose output the user expects to see.
    pub fn is_program(&self) -> bool {
        matches!(self.kind, Kind::Program(_))
    }

    /// The most CPUs that one of its tasks asks for, in thousandths.
    pub fn cpus_max(&self) -> u64 {
        let groups = self.spec.groups().iter();
        let cpus = groups.map(|group| group.resources.cpus_milli);
        cpus.max().unwrap_or(0)
    }

    /// The job; the hashes of big input files are zero.
    pub fn spec(&self) -> &JobSpec {
        &self.spec
    }

    /// The job, its big input files served by `client`.
    ///
    /// # Errors
    /// Files that were lost or changed their kind meanwhile.
    pub async fn finish(self, client: &Client) -> Result<JobSpec, Failure> {
        let Self { kind, spec, big } = self;
        if big.is_empty() {
            return Ok(spec);
        }
        let client = client.clone();
        // Hashing takes long where files are big, and the connection must live meanwhile.
        let hashing = tokio::task::spawn_blocking(move || {
            let mut hashed: HashMap<PathBuf, _> = client.add_files(big).into_iter().collect();
            // A file that is an input twice, or came meanwhile.
            kind.resolve(&mut |path| match hashed.remove(path) {
                Some(hashed) => hashed,
                None => client.add_file(path),
            })
        });
        let hashed = super::patiently("reading the job's input files", hashing);
        hashed.await.unwrap_or_else(|error| {
            Err(Failure::Local(format!(
                "the inputs could not be read: {error}; nothing was submitted"
            )))
        })
    }
}

impl Kind {
    fn resolve(
        &self,
        store: &mut dyn FnMut(&Path) -> io::Result<(Hash, u64)>,
    ) -> Result<JobSpec, Failure> {
        match self {
            Kind::File(file) => Ok(resolve::resolve(file, store)?),
            Kind::Program(source) => {
                let array = source.array.as_deref();
                jobfile::program(&source.program, array, source.critical, store)
                    .map_err(Failure::Arguments)
            }
        }
    }
}
