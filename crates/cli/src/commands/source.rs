//! What is to be run: a job file or a program, checked before anything is started or reached.

use super::place::check_out;
use crate::args::{Needs, Source};
use crate::exit::Failure;
use crate::show::{escape, note};
use hedge_job::{Found, JobFile, Program, ProgramLines, ProgramStdin, Purpose};
use hedge_model::data::INLINE_BYTES_MAX;
use hedge_model::spec::{Extension, SPEC_BYTES_MAX, SpecError};
use hedge_model::{Hash, JobSpec};
use hedge_node::Temporary;
use hedge_node::client::InputFiles;
use std::io::{self, Read};
use std::os::fd::IntoRawFd;
use std::path::Path;

/// The path that stands for standard input.
const STDIN: &str = "-";

/// A job that is known to be right as far as this machine can tell. Its big input files are still to be hashed.
pub struct Checked {
    found: Found,
    program: bool,
}

impl Checked {
    /// Reads and checks the job, its input files included. Where `hints`, tells people of files that the job's commands
    /// name and that are not sent, and of tasks that could share a kind. The output of a program may be `shown` while it runs.
    ///
    /// # Errors
    /// Mistakes of the job file or the arguments.
    pub fn new(source: Source, hints: bool, shown: bool) -> Result<Self, Failure> {
        let Some(path) = &source.job else {
            let mut program = program(source.needs, source.program)?;
            let one = program.array.is_none() && program.each.is_none();
            program.no_copies = shown && one && !program.critical;
            let here = Path::new("");
            let found = program.find(here);
            let found = found.map_err(Failure::Arguments)?;
            if hints {
                hint(&found, here, true);
            }
            return Ok(Self {
                found,
                program: true,
            });
        };
        Self::of_file(Purpose::Job, path, &source.set, hints)
    }

    /// Reads and checks a job file that is for this; - is standard input.
    ///
    /// # Errors
    /// Mistakes of the job file.
    pub fn of_file(
        purpose: Purpose,
        path: &Path,
        set: &[(String, String)],
        hints: bool,
    ) -> Result<Self, Failure> {
        let (file, folder) = if path.as_os_str() == STDIN {
            let file = JobFile::read_from(purpose, "stdin", io::stdin().lock(), set)?;
            (file, Path::new(""))
        } else {
            let folder = path.parent().unwrap_or(Path::new(""));
            (JobFile::read_as(purpose, path, set)?, folder)
        };
        let found = file.find(folder)?;
        if hints {
            hint(&found, folder, false);
        }
        Ok(Self {
            found,
            program: false,
        })
    }

    /// Whether it is a program, whose output the user expects to see.
    pub fn is_program(&self) -> bool {
        self.program
    }

    /// Whether its tasks leave files.
    pub fn leaves_files(&self) -> bool {
        let mut groups = self.tasks().groups().iter();
        groups.any(|group| !group.outputs.is_empty())
    }

    /// Checks early that the results can go where the user wants them, where they are to be brought at all.
    ///
    /// # Errors
    /// The folder cannot be written, or would stay empty.
    pub fn check_out(&self, out: Option<&Path>, brought: bool) -> Result<(), Failure> {
        let files = !self.program || self.leaves_files();
        if out.is_some() && !files {
            return Err(Failure::Arguments(
                "--out has no effect here, as the program leaves no files; nothing was started: name what it leaves \
                 with --output, or leave --out away"
                    .to_owned(),
            ));
        }
        check_out(out, brought && files)
    }

    /// The job without its input files.
    pub fn tasks(&self) -> &JobSpec {
        self.found.tasks()
    }

    /// The job, and its big input files, which are submitted with it.
    ///
    /// # Errors
    /// Files that were lost or changed their kind meanwhile.
    pub async fn finish(self) -> Result<(JobSpec, InputFiles), Failure> {
        let (found, files, content) = read(self.found).await?;
        let job = found.job(&content);
        Ok((job.map_err(|error| not_submitted(&error))?, files))
    }

    /// The tasks that are added to an open job, and their big input files.
    ///
    /// # Errors
    /// As for [`Checked::finish`].
    pub async fn finish_extension(self) -> Result<(Extension, InputFiles), Failure> {
        let (found, files, content) = read(self.found).await?;
        let extension = found.extension(&content);
        Ok((extension.map_err(|error| not_submitted(&error))?, files))
    }
}

/// Packs the job's trees and reads its big input files; gives their hashes and lengths, too.
async fn read(found: Found) -> Result<(Found, InputFiles, Vec<(Hash, u64)>), Failure> {
    let (found, spool) = match found.has_trees() {
        true => pack(found).await?,
        false => (found, None),
    };
    let uploads = found.uploads().iter();
    let paths: Vec<_> = uploads.map(|upload| upload.path.clone()).collect();
    let (mut files, mut content) = (InputFiles::default(), Vec::new());
    if !paths.is_empty() {
        // Hashing takes long where files are big, and the connection must live meanwhile.
        let hashing = tokio::task::spawn_blocking(move || InputFiles::read(paths));
        let hashed = super::patiently("reading the job's input files", hashing).await;
        let read;
        (files, read) = hashed.map_err(|error| {
            Failure::Local(format!(
                "the inputs could not be read: {error}; nothing was submitted"
            ))
        })?;
        let read = read.into_iter().map(|(path, added)| {
            added.map_err(|error| {
                Failure::Arguments(format!(
                    "the input {} cannot be read: {error}; nothing was submitted: make it readable, or leave it out",
                    path.display()
                ))
            })
        });
        content = read.collect::<Result<Vec<(Hash, u64)>, Failure>>()?;
    }
    if let Some(spool) = spool {
        files.keep(spool);
    }
    Ok((found, files, content))
}

/// Packs the folders that tasks see as trees, into a folder that is needed until the job is submitted.
async fn pack(mut found: Found) -> Result<(Found, Option<Temporary>), Failure> {
    let local = |what: &str, error: &dyn std::fmt::Display| {
        Failure::Local(format!("{what}: {error}; nothing was submitted"))
    };
    let spool = Temporary::private("hedge-trees-");
    let spool = spool.map_err(|error| local("no temporary folder can be made", &error))?;
    let path = spool.path().to_owned();
    let packing = tokio::task::spawn_blocking(move || found.pack(&path).map(|()| found));
    let packed = super::patiently("reading the job's trees", packing).await;
    let packed = packed.map_err(|error| local("the trees could not be read", &error))?;
    let found =
        packed.map_err(|why| Failure::Arguments(format!("{why}; nothing was submitted")))?;
    Ok((found, Some(spool)))
}

fn not_submitted(error: &SpecError) -> Failure {
    Failure::Arguments(format!("{error}; nothing was submitted"))
}

fn program(needs: Needs, words: Vec<String>) -> Result<Program, Failure> {
    if needs.each.as_deref() == Some(STDIN) && needs.stdin.as_deref() == Some(STDIN) {
        let why = "--each - and --stdin - would both read the standard input; nothing was started: name a file for one \
                   of them";
        return Err(Failure::Arguments(why.to_owned()));
    }
    let stdin = stdin(needs.stdin.as_deref())?;
    let each = lines(needs.each)?;
    let gpus = needs.gpus.map(|gpus| ("gpus".to_owned(), u64::from(gpus)));
    Ok(Program {
        words,
        name: needs.name,
        array: needs.array,
        each,
        critical: needs.critical,
        no_copies: false,
        retries: needs.retries,
        rerun: needs.rerun,
        redundancy: needs.redundancy,
        shares: needs.uses_share,
        cwd: needs.cwd,
        network: needs.network,
        inputs: needs.input,
        mounts: needs.mount,
        outputs: needs.output,
        env: needs.env,
        cpus_milli: needs.cpus,
        memory: needs.memory,
        resources: gpus.into_iter().collect(),
        stdin,
    })
}

/// The lines that there is a task for.
fn lines(name: Option<String>) -> Result<Option<ProgramLines>, Failure> {
    if name.as_deref() != Some(STDIN) {
        return Ok(name.map(ProgramLines::File));
    }
    let mut bytes = Vec::new();
    let mut bounded = io::stdin().lock().take(SPEC_BYTES_MAX as u64 + 1);
    bounded.read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() > SPEC_BYTES_MAX {
        let why = format!(
            "standard input is longer than the {SPEC_BYTES_MAX} bytes that a job takes; nothing was started: split the job"
        );
        return Err(Failure::Arguments(why));
    }
    Ok(Some(ProgramLines::Bytes(bytes)))
}

fn unreadable(error: io::Error) -> Failure {
    Failure::Local(format!(
        "standard input cannot be read: {error}; nothing was submitted"
    ))
}

/// What the program is to read.
fn stdin(name: Option<&str>) -> Result<Option<ProgramStdin>, Failure> {
    let Some(name) = name else {
        return Ok(None);
    };
    if name != STDIN {
        return Ok(Some(ProgramStdin::File(name.to_owned())));
    }
    let (mut bytes, mut stream) = (Vec::new(), io::stdin().lock());
    let mut first = stream.by_ref().take(INLINE_BYTES_MAX as u64 + 1);
    first.read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() <= INLINE_BYTES_MAX {
        return Ok(Some(ProgramStdin::Bytes(bytes)));
    }
    // The file has no name, so that nothing of it stays wherever this process ends.
    let mut spool = tempfile::tempfile().map_err(unreadable)?;
    let mut all = bytes.as_slice().chain(stream);
    io::copy(&mut all, &mut spool).map_err(unreadable)?;
    // It stays open until the process ends, because the grid may fetch its content until then.
    let path = format!("/proc/{}/fd/{}", std::process::id(), spool.into_raw_fd());
    Ok(Some(ProgramStdin::File(path)))
}

/// Tells of files that exist here, are named in a command, and are not sent, of environments that lack their interpreter,
/// and of tasks that could share a kind.
fn hint(found: &Found, folder: &Path, program: bool) {
    for (task, name) in found.unsent(folder) {
        let shown = escape::line(&name);
        let how = match program {
            true => format!("`--input {shown}` sends it"),
            false => format!("inputs = [{shown:?}] sends it"),
        };
        let task = escape::line(&task);
        note(&format!(
            "hint: {task} names {shown}, which exists here and is not sent with the job: {how}"
        ));
    }
    for (env, base) in found.without_interpreter() {
        let (env, base) = (env.display().to_string(), base.display().to_string());
        let (env, base) = (escape::line(&env), escape::line(&base));
        let how = match program {
            true => format!("`--mount {base}` sends it"),
            false => format!("{{ tree = {base:?} }} in `mounts` sends it"),
        };
        note(&format!(
            "hint: the interpreter of {env} lies in {base}, which tasks do not see: {how}"
        ));
    }
    if let Some(told) = found.single_kinds() {
        let (id, kind) = (escape::line(&told.id), escape::line(&told.kind));
        note(&format!(
            "hint: {} of {} kinds of tasks have one task, and nothing is learned from one kind about another: \
             kind = {kind:?} on {id} and the {} tasks like it makes them one kind",
            told.single,
            told.kinds,
            told.alike - 1
        ));
    }
}
