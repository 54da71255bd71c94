//! The numbered events. The newest are in memory, and in a file from which the next gateway continues.

use super::picture::{Change, Picture};
use crate::sse;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::fs::{File, TryLockError};
use std::io::{self, BufRead, BufReader, Seek, Write};
use std::path::Path;
use tokio::time::Instant;

/// The most events that are kept. A client that is further behind is sent the whole state anew.
const EVENTS_MAX: usize = 16_384;
/// The most bytes of these events.
const BYTES_MAX: usize = 32 << 20;
/// Bytes by which the file may grow before it is rewritten.
const FILE_GROWTH_MAX: u64 = 32 << 20;
/// The longest file that is read, in bytes: twice the longest that is written.
const FILE_BYTES_MAX: u64 = 256 << 20;
/// The most bytes that a client is sent at once.
const SENT_BYTES: usize = 256 << 10;

/// Numbered events.
#[derive(Debug)]
pub struct EventLog {
    /// The random name of the stream. Numbers of other streams are invalid here.
    stream: String,
    last: u64,
    events: VecDeque<Event>,
    bytes: usize,
    picture: Picture,
    file: Option<LogFile>,
}

#[derive(Debug)]
struct Event {
    number: u64,
    change: Change,
    text: String,
}

#[derive(Debug)]
struct LogFile {
    file: File,
    written: u64,
    /// Its length when it was rewritten last.
    base: u64,
}

/// A line of the file.
#[derive(Serialize, Deserialize)]
struct Line {
    /// The stream, in the first line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    stream: Option<String>,
    /// The number of the event; none for a line of the state before the first event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    number: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none", flatten)]
    change: Option<Change>,
}

/// What a follower within this process receives.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "event", content = "data", rename_all = "snake_case")]
pub enum Notice {
    /// The whole state follows. What was received before is void.
    Reset,
    /// The whole state was sent.
    Ready,
    /// A change.
    #[serde(untagged)]
    Change(Change),
}

/// How far a client has read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cursor {
    /// Nothing yet.
    Start,
    /// Up to this event.
    Behind(u64),
}

impl EventLog {
    /// Creates a log without a file.
    pub fn new(stream: String) -> Self {
        Self {
            stream,
            last: 0,
            events: VecDeque::new(),
            bytes: 0,
            picture: Picture::default(),
            file: None,
        }
    }

    /// Continues with the events of a file. Starts anew if there is none, another gateway has it, or it is damaged.
    pub fn open(path: &Path, stream: String) -> Self {
        let mut log = Self::new(stream.clone());
        let opened = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path);
        let Ok(file) = opened else { return log };
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock | TryLockError::Error(_)) => return log,
        }
        if let Err(error) = log.read(&file) {
            tracing::warn!(%error, "earlier events cannot be read; clients are told everything anew");
            log = Self::new(stream.clone());
        }
        log.file = Some(LogFile {
            file,
            written: 0,
            base: 0,
        });
        log.rewrite();
        log
    }

    fn read(&mut self, file: &File) -> io::Result<()> {
        let length = file.metadata()?.len();
        if length == 0 {
            return Ok(());
        }
        let damaged = || io::Error::from(io::ErrorKind::InvalidData);
        if length > FILE_BYTES_MAX {
            return Err(damaged());
        }
        let mut headed = false;
        for line in BufReader::new(file).split(b'\n') {
            // The process may have ended within the last line.
            let Ok(line) = serde_json::from_slice::<Line>(&line?) else {
                break;
            };
            if let Some(stream) = line.stream {
                self.stream = stream;
                headed = true;
            }
            if !headed {
                return Err(damaged());
            }
            match (line.number, line.change) {
                (Some(number), Some(change)) if number > self.last => {
                    self.add(number, change, None)
                }
                (None, Some(change)) => self.picture.apply(&change, None),
                (Some(number), None) => self.last = self.last.max(number),
                _ => {}
            }
        }
        headed.then_some(()).ok_or_else(damaged)
    }

    /// The last known state of the grid.
    pub fn picture(&self) -> &Picture {
        &self.picture
    }

    /// Numbers changes and adds them.
    pub fn publish(&mut self, now: Instant, changes: Vec<Change>) {
        let mut lines = Vec::new();
        for change in changes {
            let number = self.last + 1;
            push_line(&mut lines, Some(number), Some(&change));
            self.add(number, change, Some(now));
        }
        let Some(file) = self.file.as_mut().filter(|_| !lines.is_empty()) else {
            return;
        };
        match file.file.write_all(&lines) {
            Ok(()) => file.written += lines.len() as u64,
            Err(error) => {
                tracing::warn!(%error, "events cannot be stored; after a restart clients are told everything anew");
                _ = file.file.set_len(0);
                self.file = None;
                return;
            }
        }
        if file.written > file.base + FILE_GROWTH_MAX {
            self.rewrite();
        }
    }

    fn add(&mut self, number: u64, change: Change, at: Option<Instant>) {
        self.picture.apply(&change, at);
        let mut text = Vec::new();
        let id = format!("{}-{number}", self.stream);
        event(&mut text, &change, Some(&id));
        let text = String::from_utf8_lossy(&text).into_owned();
        self.last = number;
        self.bytes += text.len();
        self.events.push_back(Event {
            number,
            change,
            text,
        });
        while self.events.len() > EVENTS_MAX || self.bytes > BYTES_MAX {
            let Some(oldest) = self.events.pop_front() else {
                break;
            };
            self.bytes -= oldest.text.len();
        }
    }

    /// Rewrites the file with the newest events and the state before them.
    fn rewrite(&mut self) {
        let Some(file) = &mut self.file else { return };
        let mut lines = Vec::new();
        let head = Line {
            stream: Some(self.stream.clone()),
            number: None,
            change: None,
        };
        line(&mut lines, &head);
        for event in &self.events {
            push_line(&mut lines, Some(event.number), Some(&event.change));
        }
        for change in self.picture.all() {
            push_line(&mut lines, None, Some(&change));
        }
        push_line(&mut lines, Some(self.last), None);
        let written = file
            .file
            .set_len(0)
            .and_then(|()| file.file.rewind())
            .and_then(|()| file.file.write_all(&lines));
        match written {
            Ok(()) => {
                file.written = lines.len() as u64;
                file.base = file.written;
            }
            Err(error) => {
                tracing::warn!(%error, "events cannot be stored; after a restart clients are told everything anew");
                _ = file.file.set_len(0);
                self.file = None;
            }
        }
    }

    /// Returns the cursor of an event's id; the start for an id of another stream.
    pub fn cursor(&self, id: &str) -> Cursor {
        let number = id
            .strip_prefix(&self.stream)
            .and_then(|rest| rest.strip_prefix('-'));
        let number = number.and_then(|number| number.parse().ok());
        match number.filter(|number| *number <= self.last) {
            Some(number) => Cursor::Behind(number),
            None => Cursor::Start,
        }
    }

    /// Returns the events behind a cursor, a bounded number, and moves the cursor behind them; none if there are none.
    pub fn next(&self, cursor: &mut Cursor) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        match self.behind(cursor) {
            Some(events) => {
                for event in events {
                    if bytes.len() >= SENT_BYTES {
                        break;
                    }
                    bytes.extend_from_slice(event.text.as_bytes());
                    *cursor = Cursor::Behind(event.number);
                }
            }
            None => {
                sse::raw_event(&mut bytes, "reset", None, "{}");
                for change in self.picture.all() {
                    event(&mut bytes, &change, None);
                }
                let id = format!("{}-{}", self.stream, self.last);
                sse::raw_event(&mut bytes, "ready", Some(&id), "{}");
                *cursor = Cursor::Behind(self.last);
            }
        }
        (!bytes.is_empty()).then_some(bytes)
    }

    /// The same for a follower within this process.
    pub fn notices(&self, cursor: &mut Cursor) -> Vec<Notice> {
        let notices = match self.behind(cursor) {
            Some(events) => events
                .map(|event| Notice::Change(event.change.clone()))
                .collect(),
            None => {
                let all = self.picture.all().into_iter().map(Notice::Change);
                let all = [Notice::Reset].into_iter().chain(all);
                all.chain([Notice::Ready]).collect()
            }
        };
        *cursor = Cursor::Behind(self.last);
        notices
    }

    /// Returns the events behind a cursor; none if the whole state must be sent anew.
    fn behind(&self, cursor: &Cursor) -> Option<impl Iterator<Item = &Event> + use<'_>> {
        let oldest = self.last + 1 - self.events.len() as u64;
        let Cursor::Behind(number) = *cursor else {
            return None;
        };
        let from = (number + 1).checked_sub(oldest)?;
        Some(self.events.range(from as usize..))
    }
}

fn event(to: &mut Vec<u8>, change: &Change, id: Option<&str>) {
    let name = change.name();
    match change {
        Change::Job(view) => sse::event(to, name, id, view),
        Change::JobGone(gone) => sse::event(to, name, id, gone),
        Change::Worker(view) => sse::event(to, name, id, view),
        Change::WorkerGone(gone) => sse::event(to, name, id, gone),
        Change::Grid(state) => sse::event(to, name, id, state),
        Change::Incident(incident) => sse::event(to, name, id, incident),
    }
}

fn push_line(to: &mut Vec<u8>, number: Option<u64>, change: Option<&Change>) {
    line(
        to,
        &Line {
            stream: None,
            number,
            change: change.cloned(),
        },
    );
}

fn line(to: &mut Vec<u8>, line: &Line) {
    // Our own types: text and numbers alone.
    to.extend(serde_json::to_vec(line).unwrap_or_default());
    to.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::super::picture::{GridState, JobGone};
    use super::*;
    use hedge_model::JobId;

    fn gone(id: u64) -> Change {
        Change::JobGone(JobGone { id: JobId(id) })
    }

    fn lost(why: &str) -> Change {
        Change::Grid(GridState {
            reachable: false,
            why: Some(why.into()),
        })
    }

    fn text(log: &EventLog, cursor: &mut Cursor) -> String {
        String::from_utf8(log.next(cursor).unwrap_or_default()).unwrap()
    }

    #[test]
    fn another_gateway_goes_on_with_the_numbers() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events");
        let mut log = EventLog::open(&path, "one".into());
        log.publish(Instant::now(), vec![gone(1), lost("a")]);
        // The file belongs to the first gateway for as long as that lives.
        let beside = EventLog::open(&path, "two".into());
        assert_eq!(beside.cursor("one-1"), Cursor::Start);
        drop(log);
        let mut log = EventLog::open(&path, "three".into());
        let mut cursor = log.cursor("one-1");
        assert_eq!(cursor, Cursor::Behind(1));
        assert!(text(&log, &mut cursor).contains("id: one-2\n"));
        assert_eq!(text(&log, &mut cursor), "");
        log.publish(Instant::now(), vec![lost("b")]);
        assert!(text(&log, &mut cursor).starts_with("event: grid\nid: one-3\n"));
        assert_eq!(log.cursor("one-4"), Cursor::Start, "it is still to come");
        assert_eq!(log.cursor("two-1"), Cursor::Start);
        drop(log);
        // The last line was not written whole.
        let length = std::fs::metadata(&path).unwrap().len();
        File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_len(length - 3)
            .unwrap();
        let log = EventLog::open(&path, "four".into());
        assert_eq!(log.cursor("one-2"), Cursor::Behind(2));
        assert_eq!(log.cursor("one-3"), Cursor::Start);
        drop(log);
        std::fs::write(&path, "{}\n").unwrap();
        let log = EventLog::open(&path, "five".into());
        assert_eq!(log.cursor("one-1"), Cursor::Start);
        assert_eq!(log.cursor("five-0"), Cursor::Behind(0));
    }

    #[test]
    fn who_is_too_far_behind_is_told_everything_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events");
        let mut log = EventLog::open(&path, "one".into());
        let mut cursor = log.cursor("one-0");
        for number in 0..EVENTS_MAX as u64 + 1 {
            log.publish(Instant::now(), vec![gone(number)]);
        }
        let all = text(&log, &mut cursor);
        assert!(
            all.starts_with("event: reset\n") && all.contains("event: ready\n"),
            "{all}"
        );
        assert_eq!(cursor, Cursor::Behind(EVENTS_MAX as u64 + 1));
        assert_eq!(log.events.len(), EVENTS_MAX);
        log.rewrite();
        drop(log);
        let log = EventLog::open(&path, "two".into());
        assert_eq!(log.events.len(), EVENTS_MAX);
        assert_eq!(log.last, EVENTS_MAX as u64 + 1);
    }
}
