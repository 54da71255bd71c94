//! Job files: TOML, or JSON of the same shape, read into a [`hedge_model::JobSpec`]. Every mistake is told with
//! the file, line and column, what is wrong and what would be right.
//!
//! Reading has two steps, so that a job can be checked without touching its inputs: [`JobFile::parse`]
//! understands the text, [`resolve::resolve`] finds the input files.

use hedge_model::spec::{Draft, SpecError};
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

mod fields;
mod program;
mod qos;
mod read;
mod report;
pub mod resolve;
mod tree;

pub use program::program;
pub use report::BadJobFile;

/// Longest job file, bytes: far beyond what people write, small enough to keep in memory several times over.
pub const FILE_BYTES_MAX: u64 = 64 << 20;

/// One mistake of a job file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// Where, in bytes of the file.
    pub span: Range<usize>,
    /// What is wrong.
    pub what: String,
    /// What would be right.
    pub help: String,
}

impl Mistake {
    /// A mistake at `span`.
    pub fn new(span: Range<usize>, what: impl Into<String>, help: impl Into<String>) -> Self {
        Self {
            span,
            what: what.into(),
            help: help.into(),
        }
    }
}

/// A job file that is understood, its input files not yet looked for.
#[derive(Debug)]
pub struct JobFile {
    /// The file's name as the user gave it.
    pub name: String,
    /// Its text.
    pub text: Arc<str>,
    /// The job, without its files.
    pub draft: Draft,
    /// For each group the files that it wants.
    pub wanted: Vec<Wanted>,
    places: Places,
}

/// Files that one group wants.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Wanted {
    /// Its inputs in the file's order.
    pub inputs: Vec<WantedInput>,
    /// The file for its standard input.
    pub stdin: Option<(String, Range<usize>)>,
}

/// One item of `inputs`.
#[derive(Clone, Debug, PartialEq)]
pub enum WantedInput {
    /// A file, folder or glob.
    Files {
        /// As written.
        pattern: String,
        /// Where it is written.
        span: Range<usize>,
    },
    /// The outputs of another task; already in the draft.
    Task,
}

/// Where the keys of a job file stand.
#[derive(Debug, Default)]
struct Places {
    job: BTreeMap<&'static str, Spans>,
    groups: Vec<GroupPlaces>,
}

#[derive(Debug, Default)]
struct GroupPlaces {
    whole: Range<usize>,
    keys: BTreeMap<&'static str, Spans>,
    /// For each of the draft's inputs its position in the file's list.
    input_items: Vec<usize>,
}

#[derive(Clone, Debug, Default)]
struct Spans {
    whole: Range<usize>,
    items: Vec<Range<usize>>,
}

impl JobFile {
    /// Reads the job file at `path`, without looking for its inputs.
    ///
    /// # Errors
    /// What is wrong with the file; nothing was changed.
    pub fn read(path: &Path) -> Result<Self, BadJobFile> {
        let name = path.display().to_string();
        let cannot = |why: String| BadJobFile::unreadable(&name, why);
        let told = std::fs::metadata(path).map_err(|e| cannot(e.to_string()))?;
        if told.is_dir() {
            return Err(cannot("it is a folder; name the job file in it".to_owned()));
        }
        if told.len() > FILE_BYTES_MAX {
            return Err(cannot(format!(
                "it is longer than {FILE_BYTES_MAX} bytes; use arrays for tasks that differ by an index only"
            )));
        }
        let bytes = std::fs::read(path).map_err(|e| cannot(e.to_string()))?;
        let text = String::from_utf8(bytes).map_err(|e| {
            let at = e.utf8_error().valid_up_to();
            cannot(format!(
                "it is not UTF-8 text: byte {at} is the first wrong one"
            ))
        })?;
        Self::parse(&name, text)
    }

    /// Reads a job file's text. The name ends in `.json` for JSON; all else is TOML.
    ///
    /// # Errors
    /// All mistakes of the text, or else the first of the job.
    pub fn parse(name: &str, text: String) -> Result<Self, BadJobFile> {
        let text: Arc<str> = text.into();
        let bad = |mistakes| BadJobFile::new(name, text.clone(), mistakes);
        let root = if name.to_ascii_lowercase().ends_with(".json") {
            tree::json(&text)
        } else {
            tree::toml(&text)
        };
        let stem = Path::new(name).file_stem().and_then(|stem| stem.to_str());
        let (draft, wanted, places) = root
            .and_then(|root| read::read(&root, stem.unwrap_or("job")))
            .map_err(bad)?;
        let file = Self {
            name: name.to_owned(),
            text: text.clone(),
            draft,
            wanted,
            places,
        };
        hedge_model::JobSpec::for_submission(file.draft.clone())
            .map_err(|error| file.point(&error))?;
        Ok(file)
    }

    /// Points at a mistake that the job's own check found.
    pub fn point(&self, error: &SpecError) -> BadJobFile {
        let mistake = Mistake::new(self.find(error), error.what.clone(), error.help.clone());
        BadJobFile::new(&self.name, self.text.clone(), vec![mistake])
    }

    fn find(&self, error: &SpecError) -> Range<usize> {
        let place = error.place;
        let group = place.group.and_then(|at| self.places.groups.get(at));
        let keys = group.map_or(&self.places.job, |group| &group.keys);
        let item = match (group, place.key) {
            (Some(group), "inputs") => place
                .item
                .map(|item| group.input_items.get(item).copied().unwrap_or(item)),
            _ => place.item,
        };
        // Dependencies follow from inputs too.
        let spans = keys
            .get(place.key)
            .or_else(|| (place.key == "deps").then(|| keys.get("inputs")).flatten());
        match (spans, item) {
            (Some(spans), Some(item)) => spans.items.get(item).unwrap_or(&spans.whole).clone(),
            (Some(spans), None) => spans.whole.clone(),
            (None, _) => group.map_or(0..0, |group| group.whole.clone()),
        }
    }
}

#[cfg(test)]
mod tests;
