//! What attempts may take of the worker's disk and memory together, so that something is left for its owner.

use super::{InHand, Shared, State};
use crate::disk::{DiskLimit, short};
use crate::reserve;
use hedge_model::Ending;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::watch;

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

/// Ends an attempt whose folders grow beyond its limit. Here and not in the spawner, which a large folder
/// would keep from its other work.
pub(super) async fn watch_folders(shared: Arc<Shared>, id: u64, disk: Arc<DiskLimit>) {
    let unlinked = || {
        let state = shared.lock();
        state.running.get(&id).map(InHand::unlinked)
    };
    if let Some(ending) = disk.watch(unlinked).await {
        shared.end(id, ending);
    }
}

/// Ends the attempt that takes most of the disk, whenever less is left than the owner and the worker itself need: of
/// those that did not say how much they need, if there are any. For others it is the machine's fault.
pub(super) async fn keep_reserve(shared: Weak<Shared>, mut gone: watch::Receiver<()>) {
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
            let Some(short_of) = reserve::short_of(&shared.setup.folder, shared.setup.disk_reserve)
            else {
                continue;
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
