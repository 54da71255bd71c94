//! The monitor beside the transport: beats are stamped where they arrive, a thread at raised priority checks
//! who is silent, and what both find joins the core's queue.

use super::core_loop::{ConnId, Input};
use crate::NodeError;
use crate::clock::Clock;
use crate::frames::send;
use crate::transport::raise_priority;
use hedge_core::monitor::{Attention, Finding, Found, Monitor, Output, Settings, Status, WatchId};
use hedge_model::PeerId;
use hedge_model::msg::{Beat, StatusRequest, ToWorker};
use hedge_net::{BeatReceiver, LinkSender};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;

/// Beats taken from the transport at once.
const BEATS_AT_ONCE: usize = 64;
/// Findings that wait for room in the core's queue. Beyond, news of progress are dropped; what remains is
/// bounded by the number of workers.
const WAITING_MAX: usize = 10_000;
/// How long to wait before the core's queue is tried again.
const RETRY: Duration = Duration::from_millis(1);

/// Watches workers; clones share the monitor. Its thread ends with the last clone.
#[derive(Clone, Debug)]
pub(crate) struct Watch(Arc<Ending>);

#[derive(Debug)]
struct Ending(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// A check is due earlier than before.
    earlier: Condvar,
    clock: Clock,
    inputs: mpsc::Sender<Input>,
}

#[derive(Debug)]
struct State {
    ended: bool,
    monitor: Monitor,
    lines: BTreeMap<WatchId, LinkSender>,
    by_peer: BTreeMap<PeerId, (ConnId, WatchId)>,
    waiting: VecDeque<Finding>,
    outputs: Vec<Output>,
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.lock().ended = true;
        self.0.earlier.notify_all();
    }
}

impl Watch {
    /// Starts the thread that checks.
    pub fn start(
        settings: Settings,
        clock: Clock,
        inputs: mpsc::Sender<Input>,
    ) -> Result<Self, NodeError> {
        let state = State {
            ended: false,
            monitor: Monitor::new(settings),
            lines: BTreeMap::new(),
            by_peer: BTreeMap::new(),
            waiting: VecDeque::new(),
            outputs: Vec::new(),
        };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            earlier: Condvar::new(),
            clock,
            inputs,
        });
        let checking = shared.clone();
        let thread = std::thread::Builder::new().name("monitor".into());
        let started = thread.spawn(move || {
            raise_priority();
            checking.run();
        });
        started.map_err(|error| NodeError::Other(format!("cannot start the monitor: {error}")))?;
        Ok(Self(Arc::new(Ending(shared))))
    }

    /// Watches a worker on this connection instead of any older one, until [`Watch::forget`].
    pub fn follow(&self, peer: PeerId, conn: ConnId, sender: LinkSender) -> WatchId {
        let shared = &self.0.0;
        let mut state = shared.lock();
        if let Some((_, old)) = state.by_peer.remove(&peer) {
            state.stop(shared, old);
        }
        let now = shared.clock.now();
        let State {
            monitor, outputs, ..
        } = &mut *state;
        let id = monitor.start(now, peer, outputs);
        state.lines.insert(id, sender);
        state.by_peer.insert(peer, (conn, id));
        shared.carry_out(&mut state);
        id
    }

    /// The connection is closed.
    pub fn forget(&self, peer: PeerId, conn: ConnId) {
        let shared = &self.0.0;
        let mut state = shared.lock();
        if let Some((_, id)) = state
            .by_peer
            .get(&peer)
            .filter(|(of, _)| *of == conn)
            .copied()
        {
            state.by_peer.remove(&peer);
            state.stop(shared, id);
            shared.carry_out(&mut state);
        }
    }

    /// What a worker has in hand changed.
    pub fn attend(&self, peer: PeerId, attention: Attention) {
        let shared = &self.0.0;
        let mut state = shared.lock();
        let Some((_, id)) = state.by_peer.get(&peer).copied() else {
            return;
        };
        let now = shared.clock.now();
        let State {
            monitor, outputs, ..
        } = &mut *state;
        monitor.attend(now, id, attention, outputs);
        shared.carry_out(&mut state);
    }

    /// Workers are watched like this from now on.
    pub fn set(&self, settings: Settings) {
        let shared = &self.0.0;
        let mut state = shared.lock();
        let now = shared.clock.now();
        let State {
            monitor, outputs, ..
        } = &mut *state;
        monitor.set(now, settings, outputs);
        shared.carry_out(&mut state);
    }

    /// How a worker is watched, and whether it shows signs of life.
    pub fn status(&self, peer: PeerId) -> Option<Status> {
        let shared = &self.0.0;
        let state = shared.lock();
        let (_, id) = state.by_peer.get(&peer)?;
        state.monitor.status(shared.clock.now(), *id)
    }

    /// Reads a worker's beats until its connection ends.
    pub async fn read(self, id: WatchId, mut beats: BeatReceiver) {
        let mut batch = vec![bytes::Bytes::new(); BEATS_AT_ONCE];
        while let Ok(count) = beats.recv(&mut batch).await {
            let shared = &self.0.0;
            let now = shared.clock.now();
            let mut state = shared.lock();
            for bytes in batch.iter().take(count) {
                let Ok(beat) = postcard::from_bytes::<Beat>(bytes) else {
                    continue;
                };
                let State {
                    monitor, outputs, ..
                } = &mut *state;
                monitor.beat(now, id, &beat, bytes.len(), outputs);
            }
            shared.carry_out(&mut state);
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        let mut state = self.lock();
        while !state.ended {
            let now = self.clock.now();
            let next = state.monitor.next_check();
            if next.is_some_and(|at| at <= now) {
                let State {
                    monitor, outputs, ..
                } = &mut *state;
                monitor.check(now, outputs);
                self.carry_out(&mut state);
                continue;
            }
            self.hand_on(&mut state);
            let retry = (!state.waiting.is_empty()).then_some(RETRY);
            let sleep = next.map(|at| at.since(now)).into_iter().chain(retry).min();
            state = match sleep {
                Some(sleep) => {
                    let wait = self.earlier.wait_timeout(state, sleep);
                    wait.unwrap_or_else(PoisonError::into_inner).0
                }
                None => {
                    let wait = self.earlier.wait(state);
                    wait.unwrap_or_else(PoisonError::into_inner)
                }
            };
        }
    }

    fn carry_out(&self, state: &mut State) {
        let mut outputs = std::mem::take(&mut state.outputs);
        let mut planned = false;
        for output in outputs.drain(..) {
            match output {
                Output::Found(finding) => {
                    let news = matches!(finding.what, Found::Progress(..));
                    if !news || state.waiting.len() < WAITING_MAX {
                        state.waiting.push_back(finding);
                    }
                }
                Output::Plan { id, plan, .. } => {
                    planned = true;
                    if let Some(sender) = state.lines.get(&id) {
                        send(sender, &[ToWorker::Beat(plan)]);
                    }
                }
                Output::Ask { id, seq, .. } => {
                    let ask = postcard::to_stdvec(&StatusRequest { seq });
                    if let (Some(sender), Ok(ask)) = (state.lines.get(&id), ask) {
                        // Lost like one that the network lost; the next is on its way soon.
                        _ = sender.send_beat(ask.into());
                    }
                }
            }
        }
        state.outputs = outputs;
        self.hand_on(state);
        if planned || !state.waiting.is_empty() {
            self.earlier.notify_all();
        }
    }

    /// Hands what was found to the core, as far as there is room.
    fn hand_on(&self, state: &mut State) {
        while let Some(finding) = state.waiting.front() {
            if self.inputs.try_send(Input::Found(*finding)).is_err() {
                return;
            }
            state.waiting.pop_front();
        }
    }
}

impl State {
    fn stop(&mut self, shared: &Shared, id: WatchId) {
        self.lines.remove(&id);
        self.monitor.stop(shared.clock.now(), id, &mut self.outputs);
    }
}
