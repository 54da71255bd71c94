//! Runs the monitor beside the transport. Heartbeats get their time of arrival where they arrive, a thread with
//! raised priority checks for missing ones, and findings of both go into the core's queue.

use super::core_loop::{ConnId, Input};
use super::pending_findings::PendingFindings;
use crate::NodeError;
use crate::clock::Clock;
use crate::frames::send;
use crate::transport::raise_priority;
use hedge_core::monitor::{Attention, Finding, Monitor, Output, Settings, Status, WatchId};
use hedge_core::supervisor::{MeasureMost, Measured};
use hedge_model::msg::{Heartbeat, StatusRequest, ToWorker};
use hedge_model::view::WorkerView;
use hedge_model::{PeerId, Time};
use hedge_net::{Broken, CloseReason, HeartbeatReceiver, LinkSender, Nonce, TcpPort};
use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc};

/// The most heartbeats taken from the transport at once.
const HEARTBEATS_AT_ONCE: usize = 64;
/// The delay before the core's queue is tried again.
const RETRY: Duration = Duration::from_millis(1);
/// The time limit for the measurement of one link, from order to result.
const JUDGED_WITHIN: Duration = Duration::from_millis(1_500);
/// The most links measured at the same time.
const PROBES_MAX: usize = 4;

/// Watches workers; clones share the monitor. Its thread ends with the last clone.
#[derive(Clone, Debug)]
pub(crate) struct Watch(Arc<Ending>);

#[derive(Debug)]
struct Ending(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Signals that a check is due earlier than before.
    earlier: Condvar,
    clock: Clock,
    inputs: mpsc::Sender<Input>,
    transport: Handle,
    tripwires: Option<TcpPort>,
    /// Limits concurrent measurements, which would distort each other.
    probes: Arc<Semaphore>,
}

#[derive(Debug)]
struct State {
    ended: bool,
    monitor: Monitor,
    /// Connections of workers; slots are reused.
    lines: Vec<Option<Line>>,
    by_conn: BTreeMap<ConnId, usize>,
    by_peer: BTreeMap<PeerId, usize>,
    /// Findings that the core's queue had no space for.
    pending: PendingFindings,
    /// When the checking thread will wake by itself, while it sleeps.
    sleeps_until: Option<Time>,
    outputs: Vec<Output>,
}

#[derive(Debug)]
struct Line {
    peer: PeerId,
    conn: ConnId,
    sender: LinkSender,
    /// The worker's id in the monitor while it is watched.
    id: Option<WatchId>,
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.lock().ended = true;
        self.0.earlier.notify_all();
    }
}

impl Watch {
    /// Starts the checking thread. Heartbeats are read on `transport`.
    pub fn start(
        settings: Settings,
        clock: Clock,
        inputs: mpsc::Sender<Input>,
        transport: Handle,
        tripwires: Option<TcpPort>,
    ) -> Result<Self, NodeError> {
        let state = State {
            ended: false,
            monitor: Monitor::new(settings),
            lines: Vec::new(),
            by_conn: BTreeMap::new(),
            by_peer: BTreeMap::new(),
            pending: PendingFindings::default(),
            sleeps_until: None,
            outputs: Vec::new(),
        };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            earlier: Condvar::new(),
            clock,
            inputs,
            transport,
            tripwires,
            probes: Arc::new(Semaphore::new(PROBES_MAX)),
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

    /// Sets a worker's connection, which replaces an older one, and reads its heartbeats until [`Watch::unlink`].
    pub fn link(
        &self,
        peer: PeerId,
        conn: ConnId,
        sender: LinkSender,
        heartbeats: HeartbeatReceiver,
    ) {
        let shared = &self.0.0;
        let mut state = shared.lock();
        let line = Line {
            peer,
            conn,
            sender,
            id: None,
        };
        let free = state.lines.iter().position(Option::is_none);
        let at = free.unwrap_or(state.lines.len());
        match free {
            Some(at) => state.lines[at] = Some(line),
            None => state.lines.push(Some(line)),
        }
        state.by_conn.insert(conn, at);
        state.by_peer.insert(peer, at);
        if let Some(line) = &state.lines[at] {
            shared.offer_tripwire(&line.sender, conn);
        }
        drop(state);
        let reading = read(shared.clone(), at, conn, heartbeats);
        shared.transport.spawn(reading);
    }

    /// Removes a closed connection.
    pub fn unlink(&self, conn: ConnId) {
        let shared = &self.0.0;
        let mut state = shared.lock();
        let Some(at) = state.by_conn.remove(&conn) else {
            return;
        };
        let Some(line) = state.lines[at].take() else {
            return;
        };
        if state.by_peer.get(&line.peer) == Some(&at) {
            state.by_peer.remove(&line.peer);
        }
        state.pending.forget(conn);
        state.stop(shared, line.id);
        shared.carry_out(&mut state);
    }

    /// Sets how closely a worker is watched; none stops it.
    pub fn watch(&self, peer: PeerId, attention: Option<Attention>) {
        let shared = &self.0.0;
        let now = shared.clock.now();
        let mut state = shared.lock();
        let State {
            monitor,
            outputs,
            lines,
            by_peer,
            ..
        } = &mut *state;
        let line = by_peer.get(&peer).and_then(|at| lines[*at].as_mut());
        let Some(line) = line else { return };
        match (attention, line.id) {
            (Some(attention), known) => {
                let id = known.unwrap_or_else(|| monitor.start(now, peer, outputs));
                line.id = Some(id);
                monitor.set_attention(now, id, attention, outputs);
            }
            (None, known) => {
                line.id = None;
                state.stop(shared, known);
            }
        }
        shared.carry_out(&mut state);
    }

    /// Applies new settings to all workers.
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

    /// Sets the measured rate of a worker's link, in bytes per second.
    pub fn link_rate(&self, peer: PeerId, rate: u64) {
        let shared = &self.0.0;
        let now = shared.clock.now();
        let mut state = shared.lock();
        if let Some(id) = state.line(peer).and_then(|line| line.id) {
            let State {
                monitor, outputs, ..
            } = &mut *state;
            monitor.measured(now, id, rate, outputs);
            shared.carry_out(&mut state);
        }
    }

    /// Measures the link to a worker beside its connection, and reports the result; zero if that is not possible.
    /// Must be called on a runtime other than the transport's.
    pub fn measure(&self, peer: PeerId, most: MeasureMost) {
        let shared = self.0.0.clone();
        let line = shared.lock();
        let known = line.line(peer).map(|line| (line.sender.clone(), line.conn));
        drop(line);
        let Some((sender, conn)) = known else { return };
        tokio::spawn(async move {
            let found = shared.probe(&sender, most).await.unwrap_or_default();
            let measured = Input::LinkMeasured { peer, conn, found };
            _ = shared.inputs.send(measured).await;
        });
    }

    /// Adds what the monitor knows to the views of workers.
    pub fn show(&self, workers: Vec<(PeerId, WorkerView)>) -> Vec<WorkerView> {
        let (shared, now) = (&self.0.0, self.0.0.clock.now());
        let state = shared.lock();
        let shown = workers.into_iter().map(|(peer, mut view)| {
            let id = state.line(peer).and_then(|line| line.id);
            if let Some(status) = id.and_then(|id| state.monitor.status(now, id)) {
                show(&mut view, &status);
            }
            view
        });
        shown.collect()
    }
}

/// Adds what the monitor knows to the view of a worker.
fn show(view: &mut WorkerView, status: &Status) {
    let ms = |span: Duration| span.as_secs_f64() * 1e3;
    view.liveness = status.liveness.name().to_owned();
    view.heartbeat_interval_ms = ms(status.interval);
    view.heartbeat_mode = status.mode.name().to_owned();
    view.silent_ms = ms(status.silent);
    view.heartbeats = status.heartbeats;
    view.suspicions = status.suspicions;
    view.late_gaps = status.late_gaps;
    view.missed_heartbeats = status.missed;
    view.held_up_heartbeats = status.was_delayed;
}

/// Reads a worker's heartbeats until its connection closes.
async fn read(shared: Arc<Shared>, at: usize, conn: ConnId, mut heartbeats: HeartbeatReceiver) {
    let mut batch = vec![bytes::Bytes::new(); HEARTBEATS_AT_ONCE];
    while let Ok(count) = heartbeats.recv(&mut batch).await {
        let now = shared.clock.now();
        let mut state = shared.lock();
        if state.ended || !state.is(at, conn) {
            return;
        }
        let State {
            monitor,
            outputs,
            lines,
            ..
        } = &mut *state;
        let Some(id) = lines[at].as_ref().and_then(|line| line.id) else {
            continue;
        };
        for bytes in batch.iter().take(count) {
            if let Ok(heartbeat) = Heartbeat::decode(bytes) {
                monitor.heartbeat(now, id, &heartbeat, bytes.len(), outputs);
            }
        }
        shared.carry_out(&mut state);
    }
}

impl Shared {
    async fn probe(&self, sender: &LinkSender, most: MeasureMost) -> Option<Measured> {
        let _place = self.probes.acquire().await.ok()?;
        let MeasureMost { bytes, window } = most;
        let tripwires = self.tripwires.as_ref()?;
        let mut nonce = Nonce::default();
        getrandom::fill(&mut nonce).ok()?;
        let expected = tripwires.expect_probe(nonce);
        let port = tripwires.port();
        let order = ToWorker::Probe {
            port,
            nonce,
            bytes,
            window,
        };
        send(sender, &[order]);
        let since = Instant::now();
        let probe = tokio::time::timeout(JUDGED_WITHIN, expected).await.ok()??;
        let left = JUDGED_WITHIN.saturating_sub(since.elapsed());
        let probed = tokio::task::spawn_blocking(move || probe.run(bytes, window, true, left));
        let probed = probed.await.ok()?;
        let probed = probed
            .inspect_err(
                |error| tracing::debug!(peer = %sender.peer().short(), %error, "not measured"),
            )
            .ok()?;
        Some(Measured {
            up: probed.arrived,
            round_trip: probed.round_trip,
        })
    }

    /// Lets a worker connect its tripwire, if it can. When its process dies, its connection is closed.
    fn offer_tripwire(&self, sender: &LinkSender, conn: ConnId) {
        let Some(tripwires) = &self.tripwires else {
            return;
        };
        let mut nonce = Nonce::default();
        if getrandom::fill(&mut nonce).is_err() {
            return;
        }
        let _in_transport = self.transport.enter();
        let expected = tripwires.expect(nonce);
        let port = tripwires.port();
        send(sender, &[ToWorker::Tripwire { port, nonce }]);
        let (sender, inputs) = (sender.clone(), self.inputs.clone());
        self.transport.spawn(async move {
            let Some(mut tripwire) = expected.await else {
                return;
            };
            let broken = tokio::select! {
                broken = tripwire.broken() => broken,
                _ = sender.closed() => return,
            };
            if broken == Broken::LetGo {
                // The worker heard nothing from here for the idle timeout: this process was frozen, or the network
                // failed.
                let (peer, silent) = (sender.peer(), true);
                _ = inputs.send(Input::Gone { peer, conn, silent }).await;
            }
            sender.close(CloseReason::Lost);
        });
    }

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
            let retry = (!state.pending.is_empty()).then_some(RETRY);
            let sleep = next.map(|at| at.since(now)).into_iter().chain(retry).min();
            state.sleeps_until = Some(sleep.map_or(Time(u64::MAX), |sleep| now + sleep));
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
            state.sleeps_until = None;
        }
    }

    fn carry_out(&self, state: &mut State) {
        let mut outputs = std::mem::take(&mut state.outputs);
        for output in outputs.drain(..) {
            match output {
                Output::Found(finding) => {
                    if let Some(conn) = state.line(finding.peer).map(|line| line.conn) {
                        self.hand_on(state);
                        if !state.pending.is_empty() || !self.pass(conn, finding) {
                            state.pending.add(conn, finding);
                        }
                    }
                }
                Output::Plan { peer, plan, .. } => {
                    if let Some(line) = state.line(peer) {
                        send(&line.sender, &[ToWorker::Heartbeat(plan)]);
                    }
                }
                Output::Ask { peer, seq, .. } => {
                    let request_id = postcard::to_stdvec(&StatusRequest { seq });
                    if let (Some(line), Ok(request_id)) = (state.line(peer), request_id) {
                        // A lost status request is harmless: the next one follows soon.
                        _ = line.sender.send_heartbeat(request_id.into());
                    }
                }
            }
        }
        state.outputs = outputs;
        self.hand_on(state);
        let next = state.monitor.next_check();
        let earlier = next.is_some_and(|at| state.sleeps_until.is_some_and(|until| at < until));
        if earlier || !state.pending.is_empty() {
            state.sleeps_until = None;
            self.earlier.notify_all();
        }
    }

    /// Passes a finding to the core. Returns false if its queue is full.
    fn pass(&self, conn: ConnId, finding: Finding) -> bool {
        let input = Input::Found { conn, finding };
        self.inputs.try_send(input).is_ok()
    }

    /// Passes pending findings to the core, as far as its queue has space.
    fn hand_on(&self, state: &mut State) {
        while !state.pending.is_empty() {
            let Ok(slot) = self.inputs.try_reserve() else {
                return;
            };
            let Some((conn, finding)) = state.pending.take() else {
                return;
            };
            slot.send(Input::Found { conn, finding });
        }
    }
}

impl State {
    /// Returns whether the slot still holds this connection.
    fn is(&self, at: usize, conn: ConnId) -> bool {
        self.by_conn.get(&conn) == Some(&at)
    }

    fn line(&self, peer: PeerId) -> Option<&Line> {
        self.lines[*self.by_peer.get(&peer)?].as_ref()
    }

    fn stop(&mut self, shared: &Shared, id: Option<WatchId>) {
        if let Some(id) = id {
            self.monitor.stop(shared.clock.now(), id, &mut self.outputs);
        }
    }
}
