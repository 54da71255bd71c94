//! What is wrong with a job file, and where.

use serde::Serialize;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// Most mistakes that are told at once; the rest are counted.
pub const MISTAKES_MAX: usize = 10;

/// One mistake of a job file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// Where, in bytes of the text.
    pub span: Range<usize>,
    /// What is wrong.
    pub what: String,
    /// What would be right.
    pub help: String,
}

impl Mistake {
    pub(crate) fn new(
        span: Range<usize>,
        what: impl Into<String>,
        help: impl Into<String>,
    ) -> Self {
        Self {
            span,
            what: what.into(),
            help: help.into(),
        }
    }
}

/// A mistake as programs read it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Located {
    /// The job file's name.
    pub file: String,
    /// Line, counted from 1.
    pub line: usize,
    /// Column in characters, counted from 1.
    pub column: usize,
    /// What is wrong.
    pub what: String,
    /// What would be right.
    pub help: String,
}

/// A job file that cannot be used, with all its mistakes. Nothing was submitted.
#[derive(Clone, Debug)]
pub struct BadJobFile {
    name: String,
    text: Arc<str>,
    mistakes: Vec<Mistake>,
}

impl BadJobFile {
    pub(crate) fn new(name: &str, text: Arc<str>, mut mistakes: Vec<Mistake>) -> Self {
        mistakes.sort_by_key(|mistake| mistake.span.start);
        Self {
            name: name.to_owned(),
            text,
            mistakes,
        }
    }

    /// A file that could not be read at all.
    pub(crate) fn unreadable(name: &str, why: String) -> Self {
        Self {
            name: name.to_owned(),
            text: "".into(),
            mistakes: vec![Mistake::new(
                0..0,
                format!("the job file cannot be read: {why}"),
                "give the path of a job file (TOML or JSON), or a program behind `--`",
            )],
        }
    }

    /// The job file's name as it was given.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The job file's text; empty where it could not be read.
    pub fn text(&self) -> &Arc<str> {
        &self.text
    }

    /// The first [`MISTAKES_MAX`] mistakes, by their place.
    pub fn mistakes(&self) -> &[Mistake] {
        &self.mistakes[..self.mistakes.len().min(MISTAKES_MAX)]
    }

    /// How many more mistakes there are.
    pub fn more(&self) -> usize {
        self.mistakes.len().saturating_sub(MISTAKES_MAX)
    }

    /// The first [`MISTAKES_MAX`] mistakes with line and column, for programs.
    pub fn located(&self) -> Vec<Located> {
        let locate = |mistake: &Mistake| {
            let (line, column) = self.line_column(mistake.span.start);
            Located {
                file: self.name.clone(),
                line,
                column,
                what: mistake.what.clone(),
                help: mistake.help.clone(),
            }
        };
        self.mistakes().iter().map(locate).collect()
    }

    fn line_column(&self, at: usize) -> (usize, usize) {
        let mut at = at.min(self.text.len());
        while !self.text.is_char_boundary(at) {
            at -= 1;
        }
        let before = &self.text[..at];
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
        (line, column)
    }
}

impl fmt::Display for BadJobFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(first) = self.mistakes.first() else {
            return write!(f, "{}: the job file is wrong", self.name);
        };
        let (line, column) = self.line_column(first.span.start);
        write!(
            f,
            "{}:{line}:{column}: {}; {}",
            self.name, first.what, first.help
        )
    }
}

impl std::error::Error for BadJobFile {}
