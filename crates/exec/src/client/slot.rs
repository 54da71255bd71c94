//! The spawner of one slot: the worker keeps it running, sends it attempts, and handles its replies.

use super::bounds::{self, Uses};
use super::{Alive, ENDING, PauseAnswer, Shared, State};
use crate::memory;
use crate::process::{self, Started, receive};
use crate::wire::{self, Reply, Request, Setup};
use crate::{Exit, Permissions};
use hedge_model::Ending;
use std::io;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::sync::{Notify, watch};

/// The delays before a spawner that died is started again. The last one is repeated.
const BACK_OFF: [Duration; 6] = [
    Duration::from_millis(20),
    Duration::from_millis(100),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(5),
];
/// After this many failed starts in a row, the attempts that wait for the spawner end.
const FAILED_STARTS_MAX: usize = 4;

/// The worker's state of a spawner.
#[derive(Default)]
pub(super) struct SlotSpawner {
    pub outbox: Vec<u8>,
    /// Notified when a request enters the outbox.
    pub wake: Arc<Notify>,
    /// The process id of its watcher, while it runs.
    pub process: Option<u32>,
    /// Why nothing can run here now; none if something can.
    pub broken: Option<String>,
    /// The permissions of its attempts.
    pub permissions: Permissions,
    /// Whether it must be restarted before the next attempt, because the permissions have changed.
    pub renew: bool,
    /// Callers that wait until its attempts are paused or resumed.
    pub pausing: Vec<(bool, Arc<PauseAnswer>)>,
}

impl SlotSpawner {
    pub fn is_up(&self) -> bool {
        self.process.is_some()
    }

    /// Puts a request into the outbox. Returns whether it fitted.
    pub fn say(&mut self, request: &Request) -> bool {
        let said = wire::encode(request, &mut self.outbox).is_ok();
        self.wake.notify_one();
        said
    }
}

/// Why the worker stops serving a spawner.
enum Stopped {
    /// It died, or sent something invalid.
    Died(String),
    /// It must be restarted with other permissions.
    Renewed,
    /// The last handle was dropped.
    Left,
}

/// Keeps a spawner running for a slot until the last handle is gone; `started` is one that runs already.
pub(super) fn keep(
    shared: &Arc<Shared>,
    alive: &Arc<Alive>,
    slot: u32,
    permissions: Permissions,
    started: Option<Started>,
) {
    let gone = alive.gone.subscribe();
    let working = alive.working.clone();
    let known = SlotSpawner {
        process: started.as_ref().map(|started| started.child.id()),
        permissions,
        ..SlotSpawner::default()
    };
    shared.lock().slots.insert(slot, known);
    let keeper = Keeper {
        shared: Arc::downgrade(shared),
        slot,
    };
    tokio::spawn(async move {
        keeper.run(started, gone).await;
        drop(working);
    });
}

struct Keeper {
    /// Not held for good: handles and attempts hold it.
    shared: Weak<Shared>,
    slot: u32,
}

impl Keeper {
    async fn run(self, mut started: Option<Started>, mut gone: watch::Receiver<()>) {
        while let Some(shared) = self.shared.upgrade() {
            let running = match started.take() {
                Some(started) => started,
                None => tokio::select! {
                    started = self.start(&shared) => started,
                    _ = gone.changed() => break,
                },
            };
            let Started {
                stream,
                child,
                report,
            } = running;
            self.greet(&shared, &child, report);
            let wake = self.wake(&shared);
            let stopped = tokio::select! {
                stopped = serve(&stream, &shared, self.slot, &wake) => stopped,
                _ = gone.changed() => Stopped::Left,
            };
            let pausing = shared.lock().slots.get_mut(&self.slot).map(|slot| {
                slot.process = None;
                std::mem::take(&mut slot.pausing)
            });
            drop((pausing, stream));
            // Its attempts are dead once it is, and their folders can be cleaned up.
            process::wait(child).await;
            let why = match stopped {
                Stopped::Died(why) => why,
                Stopped::Renewed => continue,
                Stopped::Left => break,
            };
            tracing::warn!(
                why,
                "the process that runs tasks has died; starting it again"
            );
            self.lose_all(
                &shared,
                &format!("the process that runs tasks died ({why}); it is started again"),
            );
        }
        if let Some(shared) = self.shared.upgrade() {
            self.lose_all(&shared, ENDING);
            shared.lock().slots.remove(&self.slot);
        }
    }

    fn wake(&self, shared: &Shared) -> Arc<Notify> {
        let state = shared.lock();
        state
            .slots
            .get(&self.slot)
            .map(|slot| slot.wake.clone())
            .unwrap_or_default()
    }

    /// Returns the setup for the next process.
    fn next_setup(&self, shared: &Shared) -> (Setup, Arc<Notify>) {
        let mut state = shared.lock();
        let slot = state.slots.entry(self.slot).or_default();
        slot.renew = false;
        let setup = shared.setup.for_slot(self.slot, slot.permissions.clone());
        (setup, slot.wake.clone())
    }

    fn is_renewed(&self, shared: &Shared) -> bool {
        let state = shared.lock();
        state.slots.get(&self.slot).is_some_and(|slot| slot.renew)
    }

    /// Starts the process, and tries again until that succeeds. After some failures the attempts that wait for it end.
    async fn start(&self, shared: &Shared) -> Started {
        let mut failed = 0;
        loop {
            let (setup, wake) = self.next_setup(shared);
            let error = match process::start(&shared.config, &setup).await {
                Ok(started) => return started,
                Err(error) => error,
            };
            tracing::warn!(%error, "cannot start the process that runs tasks");
            failed += 1;
            if failed >= FAILED_STARTS_MAX {
                let why = format!("the process that runs tasks cannot be started so far: {error}");
                if let Some(slot) = shared.lock().slots.get_mut(&self.slot) {
                    slot.broken = Some(why.clone());
                }
                self.lose_all(shared, &why);
            }
            let back_off = tokio::time::sleep(BACK_OFF[(failed - 1).min(BACK_OFF.len() - 1)]);
            tokio::pin!(back_off);
            loop {
                tokio::select! {
                    () = &mut back_off => break,
                    // With other permissions it may start.
                    () = wake.notified() => if self.is_renewed(shared) {
                        failed = 0;
                        break;
                    },
                }
            }
        }
    }

    /// Sends a spawner that has just started the current pause, priority and measuring interval, before any attempt.
    fn greet(&self, shared: &Shared, child: &std::process::Child, report: crate::Report) {
        let mut state = shared.lock();
        state.report = report;
        let (paused, lowered, look_every) = (state.paused, state.lowered, state.look_every);
        let Some(slot) = state.slots.get_mut(&self.slot) else {
            return;
        };
        slot.broken = None;
        slot.process = Some(child.id());
        let waiting = std::mem::take(&mut slot.outbox);
        if paused {
            slot.say(&Request::Pause(true));
        }
        if lowered {
            slot.say(&Request::Lower(true));
        }
        if let Some(every) = look_every {
            slot.say(&Request::LookEvery(every));
        }
        slot.outbox.extend(waiting);
    }

    /// Reports everything in hand as lost.
    fn lose_all(&self, shared: &Shared, reason: &str) {
        let mut state = shared.lock();
        let pausing = state.slots.get_mut(&self.slot).map(|slot| {
            slot.outbox.clear();
            std::mem::take(&mut slot.pausing)
        });
        let running: Vec<_> = state
            .running
            .extract_if(|_, in_hand| in_hand.slot == self.slot)
            .collect();
        let leaving: Vec<_> = state
            .leaving
            .extract_if(|_, (slot, _)| *slot == self.slot)
            .collect();
        state.readings.lose(self.slot);
        drop(state);
        drop((leaving, pausing));
        for (_, in_hand) in running {
            drop(in_hand.lease);
            let ending = Ending::worker(reason);
            let _ = in_hand.exit.send(Exit::without_process(ending));
        }
    }
}

/// Moves frames in both directions until the spawner is gone. Returns why.
async fn serve(stream: &UnixStream, shared: &Arc<Shared>, slot: u32, wake: &Notify) -> Stopped {
    let mut inbox = Vec::new();
    let mut outgoing = Vec::new();
    loop {
        if let Some(slot) = shared.lock().slots.get_mut(&slot) {
            if slot.renew {
                return Stopped::Renewed;
            }
            if outgoing.is_empty() {
                std::mem::swap(&mut outgoing, &mut slot.outbox);
            }
        }
        if !outgoing.is_empty() {
            match stream.try_write(&outgoing) {
                Ok(written) => drop(outgoing.drain(..written)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Stopped::Died(error.to_string()),
            }
        }
        let blocked = !outgoing.is_empty();
        let readable = tokio::select! {
            ready = stream.readable() => ready.is_ok(),
            _ = stream.writable(), if blocked => false,
            () = wake.notified(), if !blocked => false,
        };
        if readable {
            match receive(stream, &mut inbox) {
                Ok(true) => {}
                Ok(false) => return Stopped::Died("its socket closed".to_owned()),
                Err(error) => return Stopped::Died(error.to_string()),
            }
            if let Err(error) = deliver(&mut inbox, shared, slot) {
                return Stopped::Died(error.0);
            }
        }
    }
}

fn deliver(inbox: &mut Vec<u8>, shared: &Arc<Shared>, slot: u32) -> Result<(), wire::BadFrame> {
    let mut at = 0;
    while let Some(reply) = wire::decode(inbox, &mut at)? {
        let mut state = shared.lock();
        match reply {
            Reply::Exited { id, gone, exit } => {
                if let Some(in_hand) = state.running.remove(&id) {
                    let kept = (!gone).then(|| (slot, in_hand.lease.clone()));
                    state.leaving.extend(kept.map(|kept| (id, kept)));
                    drop(state);
                    drop(in_hand.lease);
                    let _ = in_hand.exit.send(exit);
                }
            }
            Reply::Gone { id } => {
                let lease = state.leaving.remove(&id);
                drop(state);
                drop(lease);
            }
            Reply::Paused(on) => {
                let answered = answered(&mut state, slot, on);
                drop(state);
                drop(answered);
                if on && shared.config.free_memory {
                    free_memory(shared.clone(), slot);
                }
            }
            Reply::Uses {
                id,
                memory,
                unlinked,
            } => {
                let uses = Uses { memory, unlinked };
                let over = bounds::note_uses(&mut state, id, uses, shared.config.memory_max);
                drop(state);
                if let Some((id, ending)) = over {
                    shared.end(id, ending);
                }
            }
            Reply::Awake { id, times } => {
                drop(state);
                tracing::warn!(
                    attempt = id,
                    times,
                    "a task ran although it was stopped; it was stopped again, and is ended if that goes on"
                );
            }
            Reply::Advanced { id, to } => {
                let in_hand = state.running.get(&id);
                if let Some(observer) = in_hand.and_then(|in_hand| in_hand.observer.as_ref()) {
                    observer(to);
                }
            }
            Reply::Printed { reading, pieces } => state.readings.answered(reading, pieces),
            Reply::Ready(_) | Reply::Refused { .. } => {
                return Err(wire::BadFrame("it spoke out of turn".to_owned()));
            }
        }
    }
    inbox.drain(..at);
    Ok(())
}

/// Removes and returns the callers that waited for this reply of a spawner.
fn answered(state: &mut State, slot: u32, on: bool) -> Vec<(bool, Arc<PauseAnswer>)> {
    let slot = state.slots.get_mut(&slot);
    let pausing = slot.map(|slot| slot.pausing.extract_if(.., |(to, _)| *to == on).collect());
    pausing.unwrap_or_default()
}

/// Pushes the memory of paused attempts out to swap, on a thread of its own: swap may be slow, and the attempts may
/// resume at any time.
fn free_memory(shared: Arc<Shared>, slot: u32) {
    let push = move || {
        let process = || shared.lock().slots.get(&slot).and_then(|slot| slot.process);
        let Some(watcher) = process() else { return };
        let _one = shared.pushing.lock();
        let stopped = || process() == Some(watcher) && shared.lock().paused;
        if let Err(error) = memory::push_out(watcher, stopped) {
            tracing::debug!(%error, "the memory of stopped tasks stays where it is");
        }
    };
    let thread = std::thread::Builder::new().name("push-out".to_owned());
    if let Err(error) = thread.spawn(push) {
        tracing::debug!(%error, "the memory of stopped tasks stays where it is");
    }
}
