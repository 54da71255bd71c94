//! What attempts do at their machines: they report progress and save checkpoints.

use super::arena::{Arena, Due, World, peer, seconds};
use hedge_core::monitor::{Finding, Found, Progress};
use hedge_core::supervisor;
use hedge_core::worker;
use hedge_model::{AttemptId, Checkpoint, CheckpointId, Data, FileEntry, Time};
use std::sync::Arc;
use std::time::Duration;

/// The file of a checkpoint: it holds the share of the task's work that is done.
pub(crate) const CHECKPOINT_FILE: &str = "checkpoint";

/// What an attempt does.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Course {
    /// Seconds until it runs.
    pub staging: f64,
    /// Seconds that it runs.
    pub running: f64,
    /// CPUs that it keeps busy.
    pub cpus: f64,
    /// Seconds between heartbeats with its progress; 0 if there are none.
    pub heartbeats: f64,
    /// Whether its program reports the share that is done.
    pub tells: bool,
    /// Seconds between its checkpoints; 0 if it saves none.
    pub saves: f64,
}

/// An attempt at its machine.
#[derive(Clone, Debug)]
pub(super) struct Stay {
    /// When it arrived.
    pub from: Time,
    /// When its program started.
    pub started: Option<Time>,
    /// The share of its task's work that was done then.
    begun_at: f64,
    /// Checkpoints that it has saved.
    saved: u32,
    course: Course,
}

impl Stay {
    pub fn new(from: Time, begun_at: f64, course: Course) -> Self {
        Self {
            from,
            started: None,
            begun_at,
            saved: 0,
            course,
        }
    }

    /// The share of its task's work that is done.
    fn done(&self, now: Time) -> f64 {
        let ran = now.since(self.started.unwrap_or(now)).as_secs_f64();
        let share = (ran / self.course.running.max(1e-9)).min(1.0);
        self.begun_at + share * (1.0 - self.begun_at)
    }

    /// The CPU time that it has used.
    pub fn cpu(&self, now: Time) -> Duration {
        let ran = now.since(self.started.unwrap_or(now));
        ran.mul_f64(self.course.cpus)
    }
}

/// The share of a task's work that is done in a checkpoint.
pub(super) fn done_in(files: &[FileEntry]) -> f64 {
    let bytes = files.iter().find_map(|file| match &file.data {
        Data::Inline(bytes) => <[u8; 8]>::try_from(&bytes[..]).ok(),
        Data::Blob { .. } => None,
    });
    bytes.map_or(0.0, f64::from_le_bytes)
}

fn permille(share: f64) -> u16 {
    (share * 1e3) as u16
}

impl<W: World> Arena<W> {
    /// Schedules the first heartbeat and the first checkpoint of an attempt whose program has just started.
    pub(super) fn starts(&mut self, number: u32, attempt: AttemptId) {
        let Some(stay) = self.places[number as usize].stays.get(&attempt) else {
            return;
        };
        let (heartbeats, saves) = (stay.course.heartbeats, stay.course.saves);
        if heartbeats > 0.0 {
            self.at(
                self.now + seconds(heartbeats),
                Due::Reports(number, attempt),
            );
        }
        if saves > 0.0 {
            self.at(self.now + seconds(saves), Due::Saves(number, attempt));
        }
    }

    /// A heartbeat reports an attempt's progress.
    pub(super) fn reports(&mut self, number: u32, attempt: AttemptId) {
        let Some(stay) = self.places[number as usize].stays.get(&attempt) else {
            return;
        };
        let next = self.now + seconds(stay.course.heartbeats);
        let progress = Progress {
            cpu: stay.cpu(self.now),
            permille: stay.course.tells.then(|| permille(stay.done(self.now))),
            ..Progress::default()
        };
        self.at(next, Due::Reports(number, attempt));
        let what = Found::Progress(attempt, progress);
        let peer = peer(self.epoch, number as usize);
        self.tell(supervisor::Event::Found(Finding { peer, what }));
    }

    /// An attempt's program saves a checkpoint.
    pub(super) fn saves(&mut self, number: u32, attempt: AttemptId) {
        let now = self.now;
        let Some(stay) = self.places[number as usize].stays.get_mut(&attempt) else {
            return;
        };
        stay.saved += 1;
        let id = CheckpointId {
            attempt,
            number: stay.saved,
        };
        let done = stay.done(now);
        let next = now + seconds(stay.course.saves);
        let file = FileEntry {
            path: CHECKPOINT_FILE.into(),
            executable: false,
            data: Data::Inline(done.to_le_bytes().into()),
        };
        let saved = Ok(Arc::new(Checkpoint {
            id,
            files: vec![file],
            permille: stay.course.tells.then(|| permille(done)),
        }));
        self.at(next, Due::Saves(number, attempt));
        let event = worker::Event::Checkpoint { id, saved };
        self.at_worker(number as usize, event);
    }
}
