//! The audit log: one line of JSON for each change that somebody requested.

use crate::clock::unix_millis;
use crate::folders::private_file;
use hedge_model::PeerId;
use hedge_model::msg::{Reply, Request, Role};
use serde::Serialize;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// The most lines that wait for the disk. Further ones are dropped and counted, and a later line says how many.
const LINES_MAX: usize = 10_000;
/// A longer file is renamed to `audit.jsonl.1`, and the one before to `audit.jsonl.2`; older ones are dropped.
const FILE_BYTES_MAX: u64 = 16 << 20;
const OLD_FILES: u32 = 2;
/// The longest text from outside in one line, in characters.
const TEXT_MAX: usize = 200;

/// Writes the audit log. A separate thread writes the file.
pub(crate) struct Audit {
    lines: Option<SyncSender<String>>,
    lost: u64,
}

/// A requested change whose outcome is not known yet.
#[derive(Debug)]
pub(crate) struct Asked {
    peer: PeerId,
    role: Option<Role>,
    what: String,
}

impl Audit {
    /// Creates an audit log that writes nothing.
    pub fn off() -> Self {
        Self {
            lines: None,
            lost: 0,
        }
    }

    /// Writes to `audit.jsonl` in this directory.
    pub fn start(dir: &Path) -> Self {
        let (lines, queue) = sync_channel(LINES_MAX);
        let path = dir.join("audit.jsonl");
        let started = std::thread::Builder::new()
            .name("audit".into())
            .spawn(move || write(&path, &queue));
        Self {
            lines: started.is_ok().then_some(lines),
            lost: 0,
        }
    }

    /// Returns what to log about a request once it is answered; none if the request changes nothing.
    pub fn asked(&self, peer: PeerId, role: Option<Role>, request: &Request) -> Option<Asked> {
        self.lines.as_ref()?;
        let what = request.change()?;
        Some(Asked { peer, role, what })
    }

    /// Logs a change with its outcome.
    pub fn answered(&mut self, asked: &Asked, reply: &Reply) {
        let outcome = match reply {
            Reply::No(refusal) => format!("refused: {}", refusal.why),
            Reply::Accepted(job) => format!("job {job}"),
            Reply::Extended(added) => format!("{} tasks from {} on", added.tasks, added.first),
            _ => "done".to_owned(),
        };
        self.note(asked.peer, asked.role, &asked.what, &outcome);
    }

    /// Writes a line.
    pub fn note(&mut self, peer: PeerId, role: Option<Role>, what: &str, outcome: &str) {
        let Some(lines) = &self.lines else { return };
        if self.lost > 0 {
            let line = line(peer, None, "audit", &format!("{} lines lost", self.lost));
            if lines.try_send(line).is_ok() {
                self.lost = 0;
            }
        }
        if lines.try_send(line(peer, role, what, outcome)).is_err() {
            self.lost += 1;
        }
    }
}

#[derive(Serialize)]
struct Line<'a> {
    time_unix_ms: u64,
    peer: String,
    role: Option<Role>,
    what: &'a str,
    outcome: &'a str,
}

fn line(peer: PeerId, role: Option<Role>, what: &str, outcome: &str) -> String {
    let line = Line {
        time_unix_ms: unix_millis(),
        peer: peer.to_string(),
        role,
        what: short(what),
        outcome: short(outcome),
    };
    // Plain fields always have a JSON form.
    let mut line = serde_json::to_string(&line).unwrap_or_default();
    line.push('\n');
    line
}

fn short(text: &str) -> &str {
    let end = text.char_indices().nth(TEXT_MAX);
    end.map_or(text, |(end, _)| &text[..end])
}

fn write(path: &Path, queue: &Receiver<String>) {
    let mut file: Option<(File, u64)> = None;
    let mut told = false;
    while let Ok(line) = queue.recv() {
        let written = append(path, &mut file, line.as_bytes());
        if let Err(error) = &written
            && !told
        {
            tracing::error!(%error, path = %path.display(), "the audit log cannot be written");
        }
        told = written.is_err();
    }
}

fn append(path: &Path, file: &mut Option<(File, u64)>, line: &[u8]) -> std::io::Result<()> {
    if file
        .as_ref()
        .is_some_and(|(_, size)| *size >= FILE_BYTES_MAX)
    {
        *file = None;
        for old in (0..OLD_FILES).rev() {
            let from = numbered(path, old);
            if from.exists() {
                std::fs::rename(from, numbered(path, old + 1))?;
            }
        }
    }
    let (file, size) = match file {
        Some(open) => open,
        None => {
            let opened = private_file(path)?;
            let size = opened.metadata()?.len();
            file.insert((opened, size))
        }
    };
    *size += line.len() as u64;
    file.write_all(line)
}

fn numbered(path: &Path, number: u32) -> PathBuf {
    match number {
        0 => path.to_owned(),
        number => path.with_extension(format!("jsonl.{number}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_from_outside_stays_in_its_field_and_short() {
        let long = "\"},\n{".to_owned() + &"ü".repeat(1000);
        let line = line(PeerId([1; 32]), Some(Role::Client), &long, "done");
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["what"].as_str().unwrap().chars().count(), TEXT_MAX);
        assert_eq!(value["outcome"], "done");
        assert_eq!(line.lines().count(), 1);
    }

    #[test]
    fn a_long_log_is_put_aside_twice_and_then_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.jsonl");
        let mut file = None;
        for number in 0..4u8 {
            append(&path, &mut file, &[b'0' + number]).unwrap();
            file.as_mut().unwrap().1 = FILE_BYTES_MAX;
        }
        let read = |number| std::fs::read_to_string(numbered(&path, number)).unwrap();
        assert_eq!([read(0), read(1), read(2)], ["3", "2", "1"]);
        assert!(!numbered(&path, 3).exists());
    }
}
