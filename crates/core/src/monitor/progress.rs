//! The progress of one worker's attempts, as reported in its heartbeats.

use super::{Found, Progress, Settings};
use hedge_model::msg::{AttemptHeartbeat, Heartbeat, Phase};
use hedge_model::{AttemptId, Time};
use std::collections::BTreeMap;
use std::time::Duration;

/// The most attempts tracked for one worker. Beyond it, those heard of longest ago are forgotten.
const TRACKS_MAX: usize = 4_096;
/// A change of a task's own figure by at least this many thousandths is reported once the last report is this old.
const STEP_PERMILLE: u16 = 10;
const STEP_EVERY: Duration = Duration::from_millis(100);
/// Any change is reported once the last report is this old.
const REPORT_EVERY: Duration = Duration::from_secs(1);

/// The attempts of one worker.
#[derive(Clone, Debug, Default)]
pub(super) struct Tracks(BTreeMap<AttemptId, Track>);

#[derive(Clone, Copy, Debug)]
struct Track {
    progress: Progress,
    notes: u32,
    moved_at: Time,
    heard_at: Time,
    reported_at: Time,
    reported: Progress,
    stalled: bool,
}

impl Tracks {
    /// Takes in the progress in a heartbeat. An attempt that reports that it waits is not stalled.
    pub fn on_heartbeat(
        &mut self,
        now: Time,
        settings: &Settings,
        heartbeat: &Heartbeat,
        mut found: impl FnMut(Found),
    ) {
        for said in &heartbeat.attempts {
            if said.phase != Phase::Running && said.phase != Phase::Waiting {
                self.0.remove(&said.attempt);
                continue;
            }
            self.on_progress(now, settings, said, &mut found);
        }
        let most = (heartbeat.in_hand as usize).min(TRACKS_MAX);
        while self.0.len() > most {
            let oldest = self.0.iter().min_by_key(|(_, track)| track.heard_at);
            let Some(id) = oldest.map(|(id, _)| *id) else {
                return;
            };
            self.0.remove(&id);
        }
    }

    /// Excludes the unusual part of a gap from the time without progress, because nothing could be heard in it. The
    /// time before the gap still counts; otherwise no attempt of a worker that is often a little late would ever
    /// count as stalled.
    pub fn discount_gap(&mut self, now: Time, excess: Duration) {
        let tracks = self.0.values_mut();
        tracks.for_each(|track| track.moved_at = (track.moved_at + excess).min(now));
    }

    fn on_progress(
        &mut self,
        now: Time,
        settings: &Settings,
        said: &AttemptHeartbeat,
        found: &mut impl FnMut(Found),
    ) {
        let id = said.attempt;
        let progress = Progress {
            cpu: Duration::from_micros(said.cpu_us),
            written: said.written,
            permille: said.permille,
            waits: said.phase == Phase::Waiting,
        };
        let track = self.0.entry(id).or_insert(Track {
            progress,
            notes: said.notes,
            moved_at: now,
            heard_at: now,
            reported_at: now,
            reported: Progress::default(),
            stalled: false,
        });
        track.heard_at = now;
        let moved = track.progress != progress || track.notes != said.notes;
        (track.progress, track.notes) = (progress, said.notes);
        if moved || said.phase == Phase::Waiting {
            track.moved_at = now;
            if std::mem::take(&mut track.stalled) {
                found(Found::Moving(id));
            }
        }
        let idle = now.since(track.moved_at);
        if settings.stalled_after().is_some_and(|limit| idle >= limit) && !track.stalled {
            track.stalled = true;
            found(Found::Stalled { attempt: id, idle });
        }
        let old = now.since(track.reported_at);
        let share = |progress: &Progress| progress.permille.unwrap_or(0);
        let stepped = share(&progress).abs_diff(share(&track.reported)) >= STEP_PERMILLE;
        if (stepped && old >= STEP_EVERY) || (progress != track.reported && old >= REPORT_EVERY) {
            (track.reported, track.reported_at) = (progress, now);
            found(Found::Progress(id, progress));
        }
    }
}
