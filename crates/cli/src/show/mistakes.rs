//! How mistakes of a job file are shown to people.

use hedge_job::{BadJobFile, Mistake};
use std::fmt;
use std::sync::Arc;

/// Each mistake with the lines around it.
pub fn mistakes(bad: &BadJobFile, colour: bool, width: usize) -> String {
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
    for (at, mistake) in bad.mistakes().iter().enumerate() {
        if at > 0 {
            shown.push('\n');
        }
        let one = Shown {
            source: (!bad.text().is_empty())
                .then(|| miette::NamedSource::new(bad.name(), bad.text().clone())),
            name: bad.name(),
            mistake,
        };
        // Writing into a String does not fail.
        let _ = handler.render_report(&mut shown, &one);
    }
    if bad.more() > 0 {
        shown.push_str(&format!("\nand {} more\n", bad.more()));
    }
    shown
}

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
