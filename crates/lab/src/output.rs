//! What is printed: text or JSON.

use crate::failure::Failure;
use serde::Serialize;
use std::io::{self, ErrorKind, Write};

/// How figures are printed.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    /// JSON instead of text.
    pub json: bool,
}

impl Output {
    /// Prints a value: as JSON, or as the text that `text` makes.
    ///
    /// # Errors
    /// The output was closed or cannot be written.
    pub fn print<T: Serialize>(
        self,
        value: &T,
        text: impl FnOnce() -> String,
    ) -> Result<(), Failure> {
        let text = match self.json {
            true => serde_json::to_string(value).map(|line| line + "\n"),
            false => Ok(text()),
        };
        let written = text
            .map_err(io::Error::from)
            .and_then(|text| io::stdout().lock().write_all(text.as_bytes()));
        written.map_err(|error| match error.kind() {
            ErrorKind::BrokenPipe => Failure::OutputClosed,
            _ => Failure::Local(format!("standard output cannot be written: {error}")),
        })
    }
}

/// A table. Columns whose title ends in `#` hold numbers and stand to the right.
pub fn table(titles: &[&str], rows: &[Vec<String>]) -> String {
    let title = |column: usize| titles[column].trim_end_matches('#');
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells
            .chain([title(column).chars().count()])
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..titles.len()).map(width).collect();
    let line =
        |cells: &dyn Fn(usize) -> String| {
            let cells = widths.iter().enumerate().map(|(column, width)| {
                match titles[column].ends_with('#') {
                    true => format!("{:>width$}", cells(column)),
                    false => format!("{:<width$}", cells(column)),
                }
            });
            let cells: Vec<String> = cells.collect();
            cells.join("  ").trim_end().to_owned() + "\n"
        };
    let mut text = line(&|column| title(column).to_owned());
    for row in rows {
        text += &line(&|column| row[column].clone());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stand_to_the_right() {
        let rows = [("auto", "1.25"), ("µ", "10.5")];
        let rows = rows.map(|(name, number)| vec![name.to_owned(), number.to_owned()]);
        let right = "policy  mean\nauto    1.25\nµ       10.5\n";
        assert_eq!(table(&["policy", "mean#"], &rows), right);
    }
}
