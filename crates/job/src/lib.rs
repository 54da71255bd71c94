//! Job files: TOML, or JSON of the same shape, read into a [`hedge_model::JobSpec`]. Every mistake has its file, line
//! and column, and says what is wrong and what would be right.
//!
//! A job is read in three steps, so that it can be checked without its inputs, and before anything is hashed:
//!
//! ```
//! use hedge_job::{JobFile, Syntax};
//! # let folder = tempfile::tempdir()?;
//! # std::fs::write(folder.path().join("scene.pov"), "sphere")?;
//! let text = r#"
//!     [[task]]
//!     id = "frame"
//!     command = ["povray", "scene.pov"]
//!     inputs = ["scene.pov"]
//! "#;
//! // Understands the text.
//! let file = JobFile::parse("job.toml", Syntax::Toml, text)?;
//! // Finds the input files in a base folder.
//! let found = file.find(folder.path())?;
//! // The caller hashes what is too long to travel within the job, and serves it.
//! let content: Vec<_> = found.uploads().iter().map(|upload| my_hash(&upload.path)).collect();
//! let job = found.job(&content)?;
//! assert_eq!(job.files().len(), 1);
//! # fn my_hash(_: &std::path::Path) -> (hedge_model::Hash, u64) { unreachable!("a small file") }
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! ```
//!
//! Nothing here prints, reaches a network or ends the process. The keys are one table, [`keys::TABLES`].

use each::WantedEach;
use find::Finder;
use hedge_model::JobSpec;
use hedge_model::spec::{Draft, SpecError};
use mounts::WantedMount;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

mod access;
mod each;
mod extension;
mod fields;
mod find;
mod inputs;
pub mod keys;
mod kinds;
mod mistake;
mod mounts;
mod pack;
mod parameters;
mod program;
mod qos;
mod read;
mod tree;
mod unsent;
mod words;

pub use extension::Purpose;
pub use find::{FILES_MAX, INLINE_TOTAL_MAX, VISITED_MAX};
pub use inputs::{Found, GROUP_BYTES_MAX, Upload};
pub use kinds::SingleKinds;
pub use mistake::{BadJobFile, Located, MISTAKES_MAX, Mistake};
pub use pack::{PackedBlob, PackedTree, pack_folder};
pub use parameters::Setting;
pub use program::{Program, ProgramLines, ProgramStdin};
pub use unsent::UNSENT_MAX;

/// Longest job file, bytes: far beyond what people write, small enough to keep in memory several times over.
pub const FILE_BYTES_MAX: u64 = 64 << 20;

/// How a job file is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Syntax {
    /// TOML.
    Toml,
    /// JSON of the same shape.
    Json,
}

impl Syntax {
    /// The syntax of a file of this name: JSON if it ends in `.json`, else TOML.
    pub fn of(name: &str) -> Self {
        if name.to_ascii_lowercase().ends_with(".json") {
            Self::Json
        } else {
            Self::Toml
        }
    }
}

/// A job file that is understood, its input files not yet looked for.
#[derive(Clone, Debug)]
pub struct JobFile {
    name: String,
    text: Arc<str>,
    purpose: Purpose,
    /// The job without its files, and without the values that are in files.
    draft: Draft,
    /// The same, valid by itself.
    tasks: JobSpec,
    /// For each group the files that it wants.
    wanted: Vec<Wanted>,
    places: Places,
}

/// Files that one group wants.
#[derive(Clone, Debug, Default, PartialEq)]
struct Wanted {
    /// Its inputs in the file's order.
    inputs: Vec<WantedInput>,
    /// The file for its standard input, and where it is written.
    stdin: Option<(String, Range<usize>)>,
    /// Where values of its parameters come from.
    each: WantedEach,
    /// Trees that its tasks see.
    mounts: Vec<WantedMount>,
}

/// One item of `inputs`.
#[derive(Clone, Debug, PartialEq)]
enum WantedInput {
    /// A file, folder or glob.
    Files {
        /// As written.
        pattern: String,
        /// Where it is written.
        span: Range<usize>,
    },
    /// The outputs of another task; already in the job.
    Task,
}

/// Where the keys of a job file stand.
#[derive(Clone, Debug, Default)]
struct Places {
    job: BTreeMap<&'static str, Spans>,
    groups: Vec<GroupPlaces>,
}

#[derive(Clone, Debug, Default)]
struct GroupPlaces {
    whole: Range<usize>,
    keys: BTreeMap<&'static str, Spans>,
    /// For each of the job's inputs its position in the file's list.
    input_items: Vec<usize>,
    /// For each of the job's dependencies its position in the file's list, those by place last.
    dep_items: Vec<usize>,
}

#[derive(Clone, Debug, Default)]
struct Spans {
    whole: Range<usize>,
    items: Vec<Range<usize>>,
}

impl JobFile {
    /// Reads the job file at `path` with parameters set, without looking for its inputs. They lie beside it: hand the
    /// path's parent to [`JobFile::find`].
    ///
    /// # Errors
    /// What is wrong with the file; nothing was changed.
    pub fn read(path: &Path, set: &[Setting]) -> Result<Self, BadJobFile> {
        Self::read_as(Purpose::Job, path, set)
    }

    /// The same for a file that is for something else than a job.
    ///
    /// # Errors
    /// What is wrong with the file; nothing was changed.
    pub fn read_as(purpose: Purpose, path: &Path, set: &[Setting]) -> Result<Self, BadJobFile> {
        let name = path.display().to_string();
        let cannot = |why: String| BadJobFile::unreadable(&name, why);
        let told = std::fs::metadata(path).map_err(|e| cannot(e.to_string()))?;
        if told.is_dir() {
            return Err(cannot("it is a folder; name the job file in it".to_owned()));
        }
        if told.len() > FILE_BYTES_MAX {
            return Err(cannot(too_long()));
        }
        let bytes = std::fs::read(path).map_err(|e| cannot(e.to_string()))?;
        let text = text(bytes).map_err(cannot)?;
        Self::parse_as(purpose, &name, Syntax::of(&name), text, set)
    }

    /// Reads a job file from a stream, such as standard input: JSON where the first character is a brace, else TOML.
    ///
    /// # Errors
    /// What is wrong with the text; nothing was changed.
    pub fn read_from(
        purpose: Purpose,
        name: &str,
        stream: impl std::io::Read,
        set: &[Setting],
    ) -> Result<Self, BadJobFile> {
        let cannot = |why: String| BadJobFile::unreadable(name, why);
        let mut bytes = Vec::new();
        let mut bounded = std::io::Read::take(stream, FILE_BYTES_MAX + 1);
        std::io::Read::read_to_end(&mut bounded, &mut bytes).map_err(|e| cannot(e.to_string()))?;
        if bytes.len() as u64 > FILE_BYTES_MAX {
            return Err(cannot(too_long()));
        }
        let text = text(bytes).map_err(cannot)?;
        let json = text.trim_start().starts_with('{');
        let syntax = if json { Syntax::Json } else { Syntax::Toml };
        Self::parse_as(purpose, name, syntax, text, set)
    }

    /// Reads a job file's text, its parameters at their defaults. `name` stands in messages, and without its folder and ending it names a job that has
    /// no name of its own.
    ///
    /// # Errors
    /// All mistakes of the text, or else the first of the job.
    pub fn parse(
        name: &str,
        syntax: Syntax,
        text: impl Into<Arc<str>>,
    ) -> Result<Self, BadJobFile> {
        Self::parse_with(name, syntax, text, &[])
    }

    /// Reads a job file's text with parameters set.
    ///
    /// # Errors
    /// All mistakes of the text, or else the first of the job.
    pub fn parse_with(
        name: &str,
        syntax: Syntax,
        text: impl Into<Arc<str>>,
        set: &[Setting],
    ) -> Result<Self, BadJobFile> {
        Self::parse_as(Purpose::Job, name, syntax, text, set)
    }

    /// Reads the text of a file that is for this, with parameters set.
    ///
    /// # Errors
    /// All mistakes of the text, or else the first of the job.
    pub fn parse_as(
        purpose: Purpose,
        name: &str,
        syntax: Syntax,
        text: impl Into<Arc<str>>,
        set: &[Setting],
    ) -> Result<Self, BadJobFile> {
        let text = text.into();
        let bad = |mistakes| BadJobFile::new(name, text.clone(), mistakes);
        let root = match syntax {
            Syntax::Toml => tree::toml(&text),
            Syntax::Json => tree::json(&text),
        };
        let stem = Path::new(name).file_stem().and_then(|stem| stem.to_str());
        let read = root.and_then(|root| read::read(root, stem.unwrap_or("job"), set));
        let (mut draft, wanted, places) = read.map_err(bad)?;
        purpose.apply(&mut draft, &places).map_err(bad)?;
        let later = wanted.iter().any(|wanted| wanted.each.is_later());
        let tasks = match later {
            true => each::unchecked(purpose.checkable(&draft)),
            false => JobSpec::for_submission(purpose.checkable(&draft)),
        };
        let tasks = tasks.map_err(|error| bad(vec![located(&places, &error)]))?;
        Ok(Self {
            name: name.to_owned(),
            text: text.clone(),
            purpose,
            draft,
            tasks,
            wanted,
            places,
        })
    }

    /// The job without its files, which is valid by itself. A parameter whose values are in files has one value: those are
    /// found with the inputs.
    pub fn tasks(&self) -> &JobSpec {
        &self.tasks
    }

    /// Finds the job's input files in `folder`. Small ones are read; bigger ones become uploads.
    ///
    /// # Errors
    /// Inputs that do not exist, are no files, leave the folder or are too many.
    pub fn find(&self, folder: &Path) -> Result<Found, BadJobFile> {
        inputs::find(self, Finder::new(folder))
    }

    /// The same in a folder that holds the files of one submission; files elsewhere are refused. Its links lead to
    /// whatever the caller lets them lead to.
    ///
    /// # Errors
    /// As for [`JobFile::find`], and names that lead out of the folder.
    pub fn find_within(&self, folder: &Path) -> Result<Found, BadJobFile> {
        inputs::find(self, Finder::within(folder))
    }

    fn point(&self, error: &SpecError) -> BadJobFile {
        let mistakes = vec![located(&self.places, error)];
        BadJobFile::new(&self.name, self.text.clone(), mistakes)
    }
}

fn too_long() -> String {
    format!(
        "it is longer than {FILE_BYTES_MAX} bytes; use arrays for tasks that differ by an index only"
    )
}

fn text(bytes: Vec<u8>) -> Result<String, String> {
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        format!("it is not UTF-8 text: byte {at} is the first wrong one")
    })
}

/// The mistake that the job's own check found, at its place in the file.
fn located(places: &Places, error: &SpecError) -> Mistake {
    let place = error.place;
    let group = place.group.and_then(|at| places.groups.get(at));
    let keys = group.map_or(&places.job, |group| &group.keys);
    let item = match (group, place.key) {
        (Some(group), "inputs") => place
            .item
            .map(|item| group.input_items.get(item).copied().unwrap_or(item)),
        (Some(group), "deps") => place
            .item
            .map(|item| group.dep_items.get(item).copied().unwrap_or(item)),
        _ => place.item,
    };
    // Dependencies follow from inputs too.
    let spans = keys
        .get(place.key)
        .or_else(|| (place.key == "deps").then(|| keys.get("inputs")).flatten());
    let span = match (spans, item) {
        (Some(spans), Some(item)) => spans.items.get(item).unwrap_or(&spans.whole).clone(),
        (Some(spans), None) => spans.whole.clone(),
        (None, _) => group.map_or(0..0, |group| group.whole.clone()),
    };
    Mistake::new(span, error.what.clone(), error.help.clone())
}

#[cfg(test)]
mod tests;
