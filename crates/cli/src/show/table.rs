//! Plain tables. A pipe gets every column; a terminal gets what fits its width, and no id is ever broken.

use super::escape;
use std::borrow::Cow;
use std::io::IsTerminal;
use std::os::fd::AsFd;
use unicode_width::UnicodeWidthStr;

/// Width of a terminal that does not tell its own.
const WIDTH_UNKNOWN: usize = 80;
/// Between two columns.
const GAP: usize = 2;
/// Shortest forms of names, the second only where nothing else helps.
const NAME_MIN: [usize; 2] = [16, 8];
/// What stands under a row is set in by this.
const INDENT: &str = "    ";

/// A column of a table.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    name: &'static str,
    number: bool,
    fit: Fit,
}

/// What becomes of a column that does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fit {
    Keep,
    Shorten,
    Below,
    Drop(u8),
}

impl Column {
    /// A column that is always whole, such as an id; one whose name ends in `#` holds numbers.
    pub const fn new(name: &'static str) -> Self {
        let (name, number) = match name.as_bytes() {
            [before @ .., b'#'] => (name.split_at(before.len()).0, true),
            _ => (name, false),
        };
        Self {
            name,
            number,
            fit: Fit::Keep,
        }
    }

    /// A column whose texts may be shortened: names that people chose.
    pub const fn name(name: &'static str) -> Self {
        Self {
            fit: Fit::Shorten,
            ..Self::new(name)
        }
    }

    /// A column whose texts stand under their row where the table is too wide.
    pub const fn below(name: &'static str) -> Self {
        Self {
            fit: Fit::Below,
            ..Self::new(name)
        }
    }

    /// A column that is left out where the table is too wide; the highest rank goes first.
    pub const fn drop(name: &'static str, rank: u8) -> Self {
        Self {
            fit: Fit::Drop(rank),
            ..Self::new(name)
        }
    }
}

/// A table of rows under headers, for standard output.
pub fn table(columns: &[Column], rows: Vec<Vec<String>>) -> String {
    lay_out(columns, rows, width())
}

/// The same, set in by two spaces.
pub fn table_set_in(columns: &[Column], rows: Vec<Vec<String>>) -> String {
    let width = width().map(|width| width.saturating_sub(2));
    let table = lay_out(columns, rows, width);
    table.lines().map(|line| format!("  {line}\n")).collect()
}

/// The width of the terminal at standard output; none for a pipe or a file.
pub fn width() -> Option<usize> {
    width_of(&std::io::stdout())
}

/// The width of the terminal that a stream is; none where it is a pipe or a file.
pub fn width_of(stream: &(impl IsTerminal + AsFd)) -> Option<usize> {
    stream.is_terminal().then(|| {
        let size = terminal_size::terminal_size_of(stream);
        let width = size.map(|(width, _)| usize::from(width.0));
        width.filter(|width| *width > 0).unwrap_or(WIDTH_UNKNOWN)
    })
}

/// A table that fits `width`, where there is one.
pub fn lay_out(columns: &[Column], rows: Vec<Vec<String>>, width: Option<usize>) -> String {
    let safe = |cell: String| match escape::line(&cell) {
        Cow::Borrowed(_) => cell,
        Cow::Owned(escaped) => escaped,
    };
    let rows: Vec<Vec<String>> = rows
        .into_iter()
        .map(|row| row.into_iter().map(safe).collect())
        .collect();
    let widths = columns.iter().enumerate().map(|(at, column)| {
        let cells = rows.iter().map(|row| row[at].width());
        cells.max().unwrap_or(0).max(column.name.width())
    });
    let mut layout = Layout {
        columns,
        widths: widths.collect(),
        shown: vec![true; columns.len()],
        below: Vec::new(),
    };
    match width {
        Some(width) if !layout.fit(width) => layout.records(&rows, width),
        width => layout.draw(&rows, width),
    }
}

/// Which columns are shown, and how wide.
struct Layout<'a> {
    columns: &'a [Column],
    widths: Vec<usize>,
    shown: Vec<bool>,
    /// Columns whose texts stand under their rows.
    below: Vec<usize>,
}

impl Layout<'_> {
    fn shown(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.columns.len()).filter(|at| self.shown[*at])
    }

    fn width(&self) -> usize {
        let all = self.shown().map(|at| self.widths[at] + GAP);
        all.sum::<usize>().saturating_sub(GAP)
    }

    /// Makes the table as narrow as it has to be; whether that is possible.
    fn fit(&mut self, width: usize) -> bool {
        if self.width() <= width {
            return true;
        }
        for at in 0..self.columns.len() {
            if self.columns[at].fit == Fit::Below {
                self.shown[at] = false;
                self.below.push(at);
            }
        }
        self.shorten(width, NAME_MIN[0]);
        while self.width() > width {
            let shown = self
                .shown()
                .filter(|at| matches!(self.columns[*at].fit, Fit::Drop(_)));
            let Some(last) = shown.max_by_key(|at| self.columns[*at].fit) else {
                break;
            };
            self.shown[last] = false;
        }
        self.shorten(width, NAME_MIN[1]);
        self.width() <= width
    }

    fn shorten(&mut self, width: usize, least: usize) {
        for at in 0..self.columns.len() {
            let over = self.width().saturating_sub(width);
            if self.columns[at].fit == Fit::Shorten && over > 0 {
                let least = least.max(self.columns[at].name.len()).min(self.widths[at]);
                self.widths[at] = self.widths[at].saturating_sub(over).max(least);
            }
        }
    }

    fn draw(&self, rows: &[Vec<String>], width: Option<usize>) -> String {
        let names: Vec<String> = self
            .columns
            .iter()
            .map(|column| column.name.to_owned())
            .collect();
        let mut text = self.line(&names);
        let used = |at: &&usize| rows.iter().any(|row| !row[**at].is_empty());
        let titled = self.below.iter().filter(used).count() > 1;
        for row in rows {
            text.push_str(&self.line(row));
            for at in self.below.iter().filter(|at| !row[**at].is_empty()) {
                let title = if titled {
                    format!("{}: ", self.columns[*at].name.to_lowercase())
                } else {
                    String::new()
                };
                push_wrapped(&format!("{title}{}", row[*at]), width, &mut text);
            }
        }
        let left_out = |at: &usize| !self.shown[*at] && !self.below.contains(at);
        let left_out: Vec<&str> = (0..self.columns.len())
            .filter(left_out)
            .map(|at| self.columns[at].name)
            .collect();
        if !left_out.is_empty() {
            let hint = format!(
                "not shown: {}; a wider terminal or `| cat` shows all",
                left_out.join(", ")
            );
            push_wrapped(&hint, width, &mut text);
        }
        text
    }

    fn line(&self, cells: &[String]) -> String {
        let mut line = String::new();
        for at in self.shown() {
            let (cell, width) = (shortened(&cells[at], self.widths[at]), self.widths[at]);
            let pad = " ".repeat(width.saturating_sub(cell.width()));
            let parts = if self.columns[at].number {
                [&pad, &*cell]
            } else {
                [&*cell, &pad]
            };
            line.extend(parts);
            line.push_str(&" ".repeat(GAP));
        }
        format!("{}\n", line.trim_end())
    }

    /// Each row as lines of its own, for terminals that are too narrow for any table.
    fn records(&self, rows: &[Vec<String>], width: usize) -> String {
        let names = self.columns.iter().map(|column| column.name.width());
        let title = names.max().unwrap_or(0) + GAP;
        let indent = " ".repeat(title);
        let mut text = String::new();
        for (number, row) in rows.iter().enumerate() {
            text.push_str(if number > 0 { "\n" } else { "" });
            for (column, cell) in self.columns.iter().zip(row) {
                if cell.is_empty() {
                    continue;
                }
                let first = format!("{:<title$}", column.name);
                let options = textwrap::Options::new(width)
                    .initial_indent(&first)
                    .subsequent_indent(&indent)
                    .word_splitter(textwrap::WordSplitter::NoHyphenation)
                    .break_words(false);
                text.push_str(&textwrap::fill(cell, options));
                text.push('\n');
            }
        }
        text
    }
}

fn push_wrapped(line: &str, width: Option<usize>, text: &mut String) {
    let options = textwrap::Options::new(width.unwrap_or(usize::MAX))
        .initial_indent(INDENT)
        .subsequent_indent(INDENT)
        .word_splitter(textwrap::WordSplitter::NoHyphenation)
        .break_words(false);
    text.push_str(&textwrap::fill(line, options));
    text.push('\n');
}

/// A text of at most `width` columns.
pub fn shortened(text: &str, width: usize) -> Cow<'_, str> {
    use unicode_width::UnicodeWidthChar;
    if text.width() <= width {
        return Cow::Borrowed(text);
    }
    let mut used = 0;
    let kept = text.chars().take_while(|c| {
        used += c.width().unwrap_or(0);
        used < width
    });
    Cow::Owned(kept.chain(['…']).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: [Column; 6] = [
        Column::new("ID"),
        Column::name("NAME"),
        Column::new("STATE"),
        Column::drop("DONE#", 1),
        Column::drop("LOST#", 2),
        Column::below("WHY"),
    ];

    fn rows() -> Vec<Vec<String>> {
        let row = |cells: [&str; 6]| cells.map(str::to_owned).to_vec();
        vec![
            row([
                "0123456789",
                "a name that somebody made long",
                "live",
                "12",
                "3",
                "",
            ]),
            row([
                "abcdef0123",
                "日本\u{1b}[2J",
                "away",
                "1",
                "0",
                "its owner is at the keyboard",
            ]),
        ]
    }

    #[test]
    fn tables_fit_their_width_and_a_pipe_gets_everything() {
        let texts = [None, Some(80), Some(40), Some(20)].map(|width| {
            let text = lay_out(&COLUMNS, rows(), width);
            for line in text.lines().filter(|_| width.is_some()) {
                let longest_word = line.split(' ').map(UnicodeWidthStr::width).max();
                let most = width.unwrap_or(0).max(longest_word.unwrap_or(0) + 7);
                assert!(line.width() <= most, "{width:?}: {line:?}");
            }
            for id in ["0123456789", "abcdef0123"] {
                assert!(text.contains(id), "{width:?}: {text}");
            }
            assert!(!text.contains('\u{1b}'), "{text}");
            format!("{width:?}\n{text}")
        });
        insta::assert_snapshot!(texts.join("\n"));
    }
}
