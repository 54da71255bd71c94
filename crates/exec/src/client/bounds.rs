//! Limits on disk and memory: each attempt's own limit on disk space, and what all of them together must leave to the
//! machine's owner. An attempt over its own limit is ended; if all together use too much, one that uses most is, those
//! whose task has no limit first.

use super::{InHand, Shared, State};
use crate::disk::{DiskLimit, SetBy, disk_shortage};
use crate::reserve;
use hedge_model::Ending;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// Minimum delay between two measurements of an attempt's folders.
const MEASURE_EVERY: Duration = Duration::from_millis(200);
/// The delay is at least this many times the duration of a measurement.
const MEASURE_FACTOR: u32 = 10;
/// How often the free space of the disk is checked while attempts run.
const RESERVE_EVERY: Duration = Duration::from_millis(100);

/// What an attempt uses in bytes, by its spawner's last report.
#[derive(Clone, Copy, Default)]
pub(super) struct Uses {
    pub memory: u64,
    /// Disk space of its files without a name.
    pub unlinked: u64,
}

impl InHand {
    /// Returns the bytes of its files without a name.
    fn unlinked(&self) -> u64 {
        self.uses.map_or(0, |uses| uses.unlinked)
    }
}

/// An attempt's folders, which are measured while it runs. The worker measures them, because a large folder would keep
/// the spawner from its other work.
pub(super) struct MeasuredFolders {
    disk: Arc<DiskLimit>,
    /// When to measure next; none during a measurement.
    due: Option<Instant>,
}

impl MeasuredFolders {
    pub(super) fn new(disk: Arc<DiskLimit>) -> Self {
        let due = Some(Instant::now() + MEASURE_EVERY);
        Self { disk, due }
    }
}

/// Measures the folders that are due, and ends attempts that exceed their limit.
fn measure_folders(shared: &Arc<Shared>) {
    let now = Instant::now();
    let mut state = shared.lock();
    for (id, one) in &mut state.running {
        let unlinked = one.unlinked();
        let due = one
            .disk
            .as_mut()
            .filter(|one| one.due.is_some_and(|at| at <= now));
        if let Some(folders) = due {
            folders.due = None;
            tokio::spawn(measure(shared.clone(), *id, folders.disk.clone(), unlinked));
        }
    }
}

async fn measure(shared: Arc<Shared>, id: u64, disk: Arc<DiskLimit>, unlinked: u64) {
    let (ending, took) = disk.check(unlinked).await;
    if let Some(ending) = ending {
        return shared.end(id, ending);
    }
    let mut state = shared.lock();
    if let Some(folders) = state.running.get_mut(&id).and_then(|one| one.disk.as_mut()) {
        folders.due = Some(Instant::now() + MEASURE_EVERY.max(took * MEASURE_FACTOR));
    }
}

/// While attempts run, measures their folders and keeps the reserve of the disk free for the owner and the worker: if
/// less is free, ends the attempt that uses most. Attempts without a limit of their task end first, for exceeding a
/// limit; others end because the machine is short of disk space.
pub(super) async fn enforce(shared: Weak<Shared>, mut gone: watch::Receiver<()>) {
    while let Some(shared) = shared.upgrade() {
        tokio::select! {
            () = shared.busy.notified() => {}
            _ = gone.changed() => return,
        }
        while !shared.lock().running.is_empty() {
            tokio::select! {
                () = tokio::time::sleep(RESERVE_EVERY) => {}
                _ = gone.changed() => return,
            }
            measure_folders(&shared);
            keep_reserve(&shared).await;
        }
    }
}

async fn keep_reserve(shared: &Arc<Shared>) {
    let Some(short_of) = reserve::short_of(&shared.setup.folder, shared.setup.disk_reserve) else {
        return;
    };
    let all: Vec<_> = {
        let state = shared.lock();
        let all = state.running.iter();
        all.map(|(id, one)| (*id, one.disk_set_by, one.folders.clone(), one.unlinked()))
            .collect()
    };
    let most = tokio::task::spawn_blocking(move || {
        let all = all.into_iter();
        let used = all.map(|(id, set_by, folders, unlinked)| {
            let used = crate::scratch::space_used(&folders) + unlinked;
            (set_by == SetBy::Worker, used, id)
        });
        used.filter(|(_, used, _)| *used > 0).max()
    });
    if let Ok(Some((is_unlimited, used, id))) = most.await {
        tracing::warn!(
            attempt = id,
            used,
            "the disk is nearly full; the task that uses most of it is ended"
        );
        let limit = used.saturating_sub(short_of);
        let ending = match is_unlimited {
            true => Ending::DiskLimit { limit, used },
            false => disk_shortage(),
        };
        shared.end(id, ending);
    }
}

/// Records what an attempt uses. If all attempts together use more memory than the worker offers, returns the attempt to
/// end: of those without a limit of their task, or of all if each has one, the one that uses most.
pub(super) fn note_uses(
    state: &mut State,
    id: u64,
    uses: Uses,
    memory_max: Option<u64>,
) -> Option<(u64, Ending)> {
    *state.running.get_mut(&id)?.uses.as_mut()? = uses;
    let limit = memory_max?;
    let all = state.running.iter_mut();
    let all = all
        .filter_map(|(id, one)| Some((*id, one.has_memory_limit, one.uses.as_mut()?.memory, one)));
    let mut all: Vec<_> = all.collect();
    let used = all.iter().map(|(_, _, memory, _)| memory).sum();
    if used <= limit {
        return None;
    }
    all.sort_by_key(|(_, limited, memory, _)| (!limited, *memory));
    let (id, _, _, most) = all.pop()?;
    // It no longer counts, because its memory is about to be free.
    most.uses = None;
    Some((id, Ending::MemoryLimit { limit, used }))
}
