//! How mistakes of a job file are shown.

use super::Mistake;
use serde_json::json;
use std::fmt;
use std::sync::Arc;

/// Most mistakes shown at once; the rest are counted.
const SHOWN_MAX: usize = 10;

/// A job file that cannot be used: every mistake with its place. Nothing was submitted.
#[derive(Debug)]
pub struct BadJobFile {
    name: String,
    text: Arc<str>,
    mistakes: Vec<Mistake>,
}

impl BadJobFile {
    pub(super) fn new(name: &str, text: Arc<str>, mut mistakes: Vec<Mistake>) -> Self {
        mistakes.sort_by_key(|mistake| mistake.span.start);
        Self {
            name: name.to_owned(),
            text,
            mistakes,
        }
    }

    /// A file that could not be read at all.
    pub(super) fn unreadable(name: &str, why: String) -> Self {
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

    /// For people: each mistake with the lines around it.
    pub fn show(&self, colour: bool, width: usize) -> String {
        let theme = if colour {
            miette::GraphicalTheme::unicode()
        } else {
            miette::GraphicalTheme::unicode_nocolor()
        };
        let handler = miette::GraphicalReportHandler::new_themed(theme)
            .with_links(false)
            .with_width(width)
            .with_context_lines(1);
        let mut shown = String::new();
        for (at, mistake) in self.mistakes.iter().take(SHOWN_MAX).enumerate() {
            if at > 0 {
                shown.push('\n');
            }
            let one = Shown {
                source: (!self.text.is_empty())
                    .then(|| miette::NamedSource::new(&self.name, self.text.clone())),
                name: &self.name,
                mistake,
            };
            // Writing into a String does not fail.
            let _ = handler.render_report(&mut shown, &one);
        }
        if let Some(more) = self.mistakes.len().checked_sub(SHOWN_MAX + 1) {
            shown.push_str(&format!("\nand {} more\n", more + 1));
        }
        shown
    }

    /// For programs: file, line, column (counted from 1), what and help of each mistake.
    pub fn to_json(&self) -> serde_json::Value {
        let mistakes: Vec<_> = self
            .mistakes
            .iter()
            .take(SHOWN_MAX)
            .map(|mistake| {
                let (line, column) = self.line_column(mistake.span.start);
                json!({ "file": self.name, "line": line, "column": column,
                        "what": mistake.what, "help": mistake.help })
            })
            .collect();
        mistakes.into()
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

/// One mistake in the shape that is drawn.
#[derive(Debug)]
struct Shown<'a> {
    source: Option<miette::NamedSource<Arc<str>>>,
    name: &'a str,
    mistake: &'a Mistake,
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.source.is_none() {
            write!(f, "{}: ", self.name)?;
        }
        f.write_str(&self.mistake.what)
    }
}

impl std::error::Error for Shown<'_> {}

impl miette::Diagnostic for Shown<'_> {
    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        Some(Box::new(&self.mistake.help))
    }

    fn source_code(&self) -> Option<&dyn miette::SourceCode> {
        self.source
            .as_ref()
            .map(|source| source as &dyn miette::SourceCode)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = miette::LabeledSpan> + '_>> {
        let span = &self.mistake.span;
        let source = self.source.as_ref()?.inner();
        // Of something that spans lines, the first is enough to find it.
        let lines = source.get(span.clone()).unwrap_or("");
        let length = lines.find('\n').unwrap_or(span.len());
        let label = miette::LabeledSpan::new(None, span.start, length);
        Some(Box::new(std::iter::once(label)))
    }
}
