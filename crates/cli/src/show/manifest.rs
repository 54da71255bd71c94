//! What a job left: each file with its hash and whose work it is, and what is missing.

use super::escape;
use super::table::{Column, table};
use hedge_model::view::FileLine;
use hedge_node::client::Results;
use serde::Serialize;
use std::path::PathBuf;

/// What was brought of a job: where its files are, and where they come from.
#[derive(Default)]
pub struct Brought {
    /// The files.
    pub paths: Vec<PathBuf>,
    /// What each is.
    pub manifest: Manifest,
    /// The folder that they are in.
    pub folder: Option<PathBuf>,
    /// Where what the tasks printed was written, if it was.
    pub logs: Option<PathBuf>,
    /// Which files are not there, why, and where they are instead.
    pub trouble: Option<String>,
}

/// The files of a job's results, and the tasks that left none.
#[derive(Debug, Default, Serialize)]
pub struct Manifest {
    files: Vec<FileLine>,
    missing: Vec<String>,
    missing_count: u32,
}

impl Manifest {
    /// Of what the supervisor says that there is.
    pub fn of(results: &Results) -> Self {
        Self {
            files: results.files().map(FileLine::from).collect(),
            missing: results.missing.clone(),
            missing_count: results.missing_count,
        }
    }

    /// Whether there is nothing to say.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty() && self.missing_count == 0
    }

    /// For people. The hashes are whole, so that `b3sum` can be held against them.
    pub fn text(&self) -> String {
        let row = |line: &FileLine| {
            vec![
                line.path.clone(),
                line.bytes.to_string(),
                line.attempt.clone(),
                line.worker.chars().take(10).collect(),
                line.blake3.clone(),
            ]
        };
        const COLUMNS: [Column; 5] = [
            Column::new("FILE"),
            Column::new("BYTES#"),
            Column::drop("ATTEMPT", 2),
            Column::drop("WORKER", 1),
            Column::below("BLAKE3"),
        ];
        let mut text = match self.files.is_empty() {
            true => "no files\n".to_owned(),
            false => table(&COLUMNS, self.files.iter().map(row).collect()),
        };
        if self.missing_count > 0 {
            let more = self.missing_count as usize - self.missing.len();
            let and = if more > 0 {
                format!(" and {more} more")
            } else {
                String::new()
            };
            text.push_str(&format!(
                "missing: {}{and}\n",
                escape::line(&self.missing.join(", "))
            ));
        }
        text
    }
}
