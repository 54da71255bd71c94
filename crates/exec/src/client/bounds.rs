//! What attempts may take of the worker's disk and memory together, so that something is left for its owner.

use super::{InHand, Shared, State};
use crate::disk::{DiskLimit, short};
use crate::reserve;
use hedge_model::Ending;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// Time between two looks at an attempt's folders, at least; and how many times longer than the look itself.
const LOOK_EVERY: Duration = Duration::from_millis(200);
const LOOK_FACTOR: u32 = 10;
/// Time between two looks at the disk while attempts run.
const RESERVE_EVERY: Duration = Duration::from_millis(100);

/// What an attempt uses, as its spawner said last, bytes.
#[derive(Clone, Copy, Default)]
pub(super) struct Uses {
    pub memory: u64,
    /// Of files without a name.
    pub unlinked: u64,
}

impl InHand {
    /// Space of its files without a name, bytes.
    fn unlinked(&self) -> u64 {
        self.uses.map_or(0, |uses| uses.unlinked)
    }
}

/// An attempt's folders, which are looked at while it runs. Here and not in the spawner, which a large folder would
/// keep from its other work.
pub(super) struct Folders {
    disk: Arc<DiskLimit>,
    /// When to look next; none while somebody looks.
    due: Option<Instant>,
}

impl Folders {
    pub(super) fn new(disk: Arc<DiskLimit>) -> Folders {
        let due = Some(Instant::now() + LOOK_EVERY);
        Folders { disk, due }
    }
}

/// Looks at the folders that are due, and ends attempts that passed their limit.
fn look_at_folders(shared: &Arc<Shared>) {
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
            tokio::spawn(look(shared.clone(), *id, folders.disk.clone(), unlinked));
        }
    }
}

async fn look(shared: Arc<Shared>, id: u64, disk: Arc<DiskLimit>, unlinked: u64) {
    let (ending, took) = disk.check(unlinked).await;
    if let Some(ending) = ending {
        return shared.end(id, ending);
    }
    let mut state = shared.lock();
    if let Some(folders) = state.running.get_mut(&id).and_then(|one| one.disk.as_mut()) {
        folders.due = Some(Instant::now() + LOOK_EVERY.max(took * LOOK_FACTOR));
    }
}

/// While attempts run, looks at their folders, and at what is left of the disk: whenever that is less than the owner and
/// the worker itself need, ends the attempt that takes most of it, of those that did not say how much they need, if
/// there are any. For others it is the machine's fault.
pub(super) async fn keep(shared: Weak<Shared>, mut gone: watch::Receiver<()>) {
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
            look_at_folders(&shared);
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
        all.map(|(id, one)| (*id, one.asks_disk, one.folders.clone(), one.unlinked()))
            .collect()
    };
    let most = tokio::task::spawn_blocking(move || {
        let all = all.into_iter();
        let used = all.map(|(id, asks, folders, unlinked)| {
            (!asks, crate::scratch::space_used(&folders) + unlinked, id)
        });
        used.filter(|(_, used, _)| *used > 0).max()
    });
    if let Ok(Some((unasked, used, id))) = most.await {
        tracing::warn!(
            attempt = id,
            used,
            "the disk is nearly full; the task that uses most of it is ended"
        );
        let limit = used.saturating_sub(short_of);
        let ending = match unasked {
            true => Ending::DiskLimit { limit, used },
            false => short(),
        };
        shared.end(id, ending);
    }
}

/// Takes what an attempt uses. Says which attempt is to be ended, where all together use more memory than the worker
/// offers: the one that uses most, of those without a limit of their own if there are any.
pub(super) fn take(
    state: &mut State,
    id: u64,
    uses: Uses,
    memory_max: Option<u64>,
) -> Option<(u64, Ending)> {
    *state.running.get_mut(&id)?.uses.as_mut()? = uses;
    let limit = memory_max?;
    let all = state.running.iter_mut();
    let all =
        all.filter_map(|(id, one)| Some((*id, one.asks_memory, one.uses.as_mut()?.memory, one)));
    let mut all: Vec<_> = all.collect();
    let used = all.iter().map(|(_, _, memory, _)| memory).sum();
    if used <= limit {
        return None;
    }
    all.sort_by_key(|(_, asks, memory, _)| (!asks, *memory));
    let (id, _, _, most) = all.pop()?;
    // It counts no more: what it uses is about to be free.
    most.uses = None;
    Some((id, Ending::MemoryLimit { limit, used }))
}
