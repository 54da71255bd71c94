//! Plain tables that also read well through a pipe.

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use std::io::IsTerminal;

/// A table of rows under headers; columns whose header ends in `#` hold numbers and stand at the right.
pub fn table(headers: &[&str], rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    if std::io::stdout().is_terminal() {
        table.set_content_arrangement(ContentArrangement::Dynamic);
    }
    table.set_header(headers.iter().map(|name| name.trim_end_matches('#')));
    table.add_rows(rows);
    for (at, name) in headers.iter().enumerate() {
        let Some(column) = table.column_mut(at) else {
            continue;
        };
        column.set_padding((0, 2));
        if name.ends_with('#') {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let mut text: String = table
        .lines()
        .map(|line| format!("{}\n", line.trim_end()))
        .collect();
    if text.is_empty() {
        text.push('\n');
    }
    text
}
