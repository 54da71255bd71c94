//! What happened, in JSON lines with the time since the start: one file for each client and one for the nemesis.

use super::peers::lock;
use anyhow::Result;
use serde_json::{Value, json};
use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Instant;

/// A line of the log.
#[derive(Clone, Debug)]
pub struct Line {
    /// Milliseconds since the start.
    pub at_ms: u64,
    /// Whose.
    pub who: String,
    /// What.
    pub what: Value,
}

/// The log of a campaign, in memory and in files.
pub struct Log {
    start: Instant,
    folder: PathBuf,
    lines: Mutex<Vec<Line>>,
}

impl Log {
    /// An empty one, in a folder that is there.
    pub fn new(folder: &Path) -> Log {
        Log {
            start: Instant::now(),
            folder: folder.to_owned(),
            lines: Mutex::default(),
        }
    }

    /// Milliseconds since the start.
    pub fn now_ms(&self) -> u64 {
        self.start.elapsed().as_millis() as u64
    }

    /// Adds a line.
    pub fn add(&self, who: &str, what: Value) {
        let at_ms = self.now_ms();
        let mut lines = lock(&self.lines);
        if let Err(error) = self.write(who, at_ms, &what) {
            eprintln!("the log is not complete: {error}");
        }
        lines.push(Line {
            at_ms,
            who: who.to_owned(),
            what,
        });
    }

    fn write(&self, who: &str, at_ms: u64, what: &Value) -> Result<()> {
        let path = self.folder.join(format!("{who}.jsonl"));
        let mut file = OpenOptions::new().create(true).append(true).open(path)?;
        let line = json!({ "at_ms": at_ms, "what": what });
        writeln!(file, "{line}")?;
        Ok(())
    }

    /// All lines so far.
    pub fn lines(&self) -> Vec<Line> {
        lock(&self.lines).clone()
    }
}
