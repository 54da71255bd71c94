//! What is to be run: a job file or a program, checked before anything is started or reached.

use crate::args::Source;
use crate::exit::Failure;
use crate::jobfile::{self, JobFile, resolve};
use hedge_model::{Hash, JobSpec};
use hedge_node::client::Client;
use std::io;
use std::path::Path;

/// A job that is known to be right as far as this machine can tell.
pub struct Checked {
    kind: Kind,
    /// The job, unless big input files still have to be taken into the store.
    ready: Option<JobSpec>,
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
        let mut big = false;
        let spec = kind.resolve(&mut |path| {
            big = true;
            std::fs::File::open(path)?;
            Ok((Hash([0; 32]), std::fs::metadata(path)?.len()))
        })?;
        let ready = (!big).then_some(spec);
        Ok(Self { kind, ready })
    }

    /// Whether it is a program, whose output the user expects to see.
    pub fn is_program(&self) -> bool {
        matches!(self.kind, Kind::Program(_))
    }

    /// The job, its big input files served by `client`.
    ///
    /// # Errors
    /// Files that were lost or changed their kind meanwhile.
    pub async fn finish(self, client: &Client) -> Result<JobSpec, Failure> {
        let Self { kind, ready } = self;
        if let Some(spec) = ready {
            return Ok(spec);
        }
        let client = client.clone();
        // Hashing takes long where files are big, and the connection must live meanwhile.
        let hashing =
            tokio::task::spawn_blocking(move || kind.resolve(&mut |path| client.add_file(path)));
        hashing.await.unwrap_or_else(|error| {
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
