//! Carries out the core's actions.

use super::core_loop::{ConnId, Input, Loop};
use crate::frames::send;
use crate::grants::sign;
use hedge_core::supervisor::{Action, FetchFailure, GrantRequest};
use hedge_model::group::{FromLeader, LeaderSays, ToLeader};
use hedge_model::msg::{Answer, GrantedBody, Grants, HASHES_MAX, Reply, ToWorker};
use hedge_model::{Hash, PeerAddr, PeerId, Source};
use hedge_net::FetchError;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// The most assignment hints in one message to another supervisor.
const HINTS_MAX: usize = 10_000;
/// The interval of messages that contain only hints. If this supervisor fails meanwhile, tasks that it assigned in
/// that time may be started again.
const HINTS_EVERY: Duration = Duration::from_millis(10);

/// Blobs up to this length are fetched together with others.
const SMALL_BYTES_MAX: u64 = 1 << 20;
/// The most blobs that are fetched and persisted together.
const FETCHED_TOGETHER_MAX: usize = 2048;

/// A blob that the core wants in this supervisor's store.
struct BlobFetch {
    hash: Hash,
    size: u64,
    sources: Vec<Source>,
}

impl Loop {
    /// Removes and returns the core's actions, and updates the metrics by them.
    fn take_actions(&mut self) -> Vec<Action> {
        let actions = std::mem::take(&mut self.effects.actions);
        self.tally.on_actions(self.setup.clock.uptime(), &actions);
        actions
    }

    /// Carries out the core's actions in order, with one frame for each peer.
    pub(super) fn carry_out(&mut self) {
        let mut orders: BTreeMap<PeerId, Vec<ToWorker>> = BTreeMap::new();
        let mut answers: BTreeMap<ConnId, Vec<Answer>> = BTreeMap::new();
        let mut fetches = Vec::new();
        for action in self.take_actions() {
            match action {
                Action::Send { to, msg } => orders.entry(to).or_default().push(msg),
                Action::SendBody { to, body, grant } => {
                    let grants = self.sign(&grant);
                    let body = Arc::new(GrantedBody { body, grants });
                    orders.entry(to).or_default().push(ToWorker::Body(body));
                }
                Action::SendAssignment { to, order } => {
                    let grants = self.sign(&order.grant);
                    let order = ToWorker::Assign(order.with(grants));
                    orders.entry(to).or_default().push(order);
                }
                Action::Answer { to: _, answer } => {
                    self.answer(answer.id, answer.reply, &mut answers);
                }
                Action::AnswerWorkers { to: _, id, workers } => {
                    let reply = Reply::Workers(self.setup.watch.show(workers));
                    self.answer(id, reply, &mut answers);
                }
                Action::AnswerGranted {
                    to: _,
                    id,
                    reply,
                    grant,
                } => {
                    let grants = self.sign(&grant);
                    self.answer(id, reply.with(grants), &mut answers);
                }
                Action::Watch { peer, attention } => self.setup.watch.watch(peer, attention),
                Action::WatchSettings(settings) => self.setup.watch.set(settings),
                Action::MeasureLink { peer, most } => self.setup.watch.measure(peer, most),
                Action::LinkRate { peer, rate } => self.setup.watch.link_rate(peer, rate),
                Action::Tell { to, reply } => self.notify(to, &reply, &mut answers),
                Action::ToSupervisor { to, msg } => self.queue_for_follower(to, msg),
                Action::ToLeader { to, msg } => self.send_to_leader(to, msg),
                Action::TellHoldings { to } => self.send_holdings(to),
                Action::Expel(peer) => self.expel(peer),
                Action::Admit { peer, refused } => self.admit(peer, refused),
                Action::Fetch {
                    hash,
                    size,
                    sources,
                } => fetches.push(BlobFetch {
                    hash,
                    size,
                    sources,
                }),
                Action::Prove { holder, blobs } => self.prove(holder, blobs),
                Action::Drop(hashes) => drop(tokio::spawn(self.setup.store.forget(hashes))),
            }
        }
        self.start_fetches(fetches);
        self.send_queued_if_due();
        for (peer, batch) in orders {
            if let Some(worker) = self.workers.get(&peer) {
                send(&worker.sender, &batch);
            }
        }
        for (conn, batch) in answers {
            if let Some(sender) = self.clients.get(&conn) {
                send(sender, &batch);
            }
        }
    }

    /// Queues a message for a follower. Hints for one follower are sent in one message, in order: each assignment creates
    /// some, and a message for each would cost more than the assignment.
    fn queue_for_follower(&mut self, to: PeerId, msg: FromLeader) {
        let before = self
            .queued
            .get_mut(&to)
            .filter(|one| one.epoch == msg.epoch);
        let before = before.and_then(|one| match &mut one.what {
            LeaderSays::Hints(hints) => Some(hints),
            _ => None,
        });
        if let (Some(before), LeaderSays::Hints(hints)) = (before, &msg.what)
            && before.len() + hints.len() <= HINTS_MAX
        {
            return before.extend_from_slice(hints);
        }
        if let Some(before) = self.queued.insert(to, msg) {
            self.setup.links.tell(to, before);
        }
    }

    /// Sends the queued messages, unless they are only hints and the last ones were sent just now.
    fn send_queued_if_due(&mut self) {
        let now = Instant::now();
        let hints = |msg: &FromLeader| matches!(msg.what, LeaderSays::Hints(_));
        if self.queued.is_empty() || (now < self.hints_at && self.queued.values().all(hints)) {
            return;
        }
        self.hints_at = now + HINTS_EVERY;
        self.send_queued();
    }

    /// Sends the queued messages.
    pub(super) fn send_queued(&mut self) {
        for (peer, msg) in std::mem::take(&mut self.queued) {
            self.setup.links.tell(peer, msg);
        }
    }

    /// Sends the leader the list of the blobs in this supervisor's store.
    fn send_holdings(&self, to: PeerId) {
        let held = self.setup.store.list().into_iter().map(|(hash, _)| hash);
        let mut held: Vec<Hash> = held.collect();
        let rest = held.split_off(held.len().min(HASHES_MAX));
        self.send_to_leader(to, ToLeader::Holds(held));
        for part in rest.chunks(HASHES_MAX) {
            self.send_to_leader(to, ToLeader::HoldsMore(part.to_vec()));
        }
    }

    fn send_to_leader(&self, to: PeerId, msg: ToLeader) {
        let over = self.peer_supervisors.get(&to);
        let over = over.filter(|caller| !caller.link().is_closed());
        self.setup.links.tell_leader(to, over, msg);
    }

    /// Adds the reply to a pending request to `answers`, and notes it in the audit log.
    fn answer(&mut self, id: u64, reply: Reply, answers: &mut BTreeMap<ConnId, Vec<Answer>>) {
        let over = self.pending.answer(id, reply, answers);
        if let Some((asked, reply)) = over {
            self.setup.audit.answered(&asked, &reply);
        }
    }

    /// Sends a client a message that it did not request, on all its connections.
    fn notify(&self, to: PeerId, reply: &Reply, answers: &mut BTreeMap<ConnId, Vec<Answer>>) {
        let clients = self.clients.iter();
        for (conn, _) in clients.filter(|(_, sender)| sender.peer() == to) {
            let reply = reply.clone();
            let theirs = answers.entry(*conn).or_default();
            theirs.push(Answer { id: 0, reply });
        }
    }

    fn sign(&self, grant: &GrantRequest) -> Grants {
        sign(&self.setup.key, grant)
    }

    /// Fetches blobs into this supervisor's store, many small ones of the same sources together.
    fn start_fetches(&self, fetches: Vec<BlobFetch>) {
        let (large, small): (Vec<BlobFetch>, Vec<BlobFetch>) = fetches
            .into_iter()
            .partition(|fetch| fetch.size > SMALL_BYTES_MAX);
        large
            .into_iter()
            .for_each(|fetch| self.fetch_together(vec![fetch]));
        let mut rest = small.into_iter().peekable();
        while let Some(first) = rest.next() {
            let mut together = vec![first];
            while let Some(next) = rest.next_if(|next| {
                together.len() < FETCHED_TOGETHER_MAX && next.sources == together[0].sources
            }) {
                together.push(next);
            }
            self.fetch_together(together);
        }
    }

    fn fetch_together(&self, fetches: Vec<BlobFetch>) {
        let (fetcher, inputs, limit) = (
            self.setup.fetcher.clone(),
            self.setup.inputs.clone(),
            self.fetches.clone(),
        );
        // A supervisor with a journal in memory does not persist blobs either.
        let kept = self.setup.known.is_some().then(|| self.setup.store.clone());
        tokio::spawn(async move {
            let permit = limit.acquire_owned().await;
            let blobs: Vec<(Hash, u64)> = fetches.iter().map(|it| (it.hash, it.size)).collect();
            let outcome = fetcher.fetch_from(&blobs, &fetches[0].sources, None).await;
            drop(permit);
            let delivered: BTreeMap<Hash, PeerId> = outcome.delivered.into_iter().collect();
            let failed = outcome.failed.into_iter().map(failure);
            let mut failed: BTreeMap<Hash, FetchFailure> = failed.collect();
            let hashes = blobs.into_iter().map(|(hash, _)| hash);
            let (gone, here): (Vec<Hash>, Vec<Hash>) =
                hashes.partition(|hash| failed.contains_key(hash));
            // The core makes promises once a blob is here, so it must survive a power failure.
            let kept = match kept {
                Some(store) if !here.is_empty() => store.persist(here.clone()).await,
                _ => Ok(()),
            };
            let kept = kept.map_err(|error| FetchFailure::Here(error.to_string()));
            let here = here.into_iter().map(|hash| {
                let sender = delivered.get(&hash).copied();
                (hash, kept.clone().map(|()| sender))
            });
            let gone = gone
                .into_iter()
                .filter_map(|hash| failed.remove(&hash).map(|failure| (hash, Err(failure))));
            let results = here.chain(gone).collect();
            _ = inputs.send(Input::Fetched(results)).await;
        });
    }

    /// Has a peer prove that it holds blobs of this supervisor's store. Blobs that the store no longer holds are
    /// fetched from that peer instead, which proves the same.
    fn prove(&self, holder: PeerAddr, blobs: Vec<(Hash, u64)>) {
        let (fetcher, store) = (self.setup.fetcher.clone(), self.setup.store.clone());
        let (inputs, limit) = (self.setup.inputs.clone(), self.fetches.clone());
        tokio::spawn(async move {
            let permit = limit.acquire_owned().await;
            let held = |(hash, _): &(Hash, u64)| store.has(*hash);
            let (here, gone): (Vec<_>, Vec<_>) = blobs.iter().copied().partition(held);
            let mut failed = fetcher.prove(&holder, &here).await;
            let sources = std::slice::from_ref(&holder);
            let fetched = fetcher.fetch_from(&gone, sources, None).await;
            drop(permit);
            failed.extend(fetched.failed);
            let failed = failed
                .into_iter()
                .map(|error| (error.hash(), error.to_string()));
            let failed: BTreeMap<Hash, String> = failed.collect();
            let sent = fetched.delivered.into_iter().map(|(hash, _)| hash);
            let shown: BTreeSet<Hash> = here.iter().map(|(hash, _)| *hash).chain(sent).collect();
            let proof = |(hash, _): (Hash, u64)| match failed.get(&hash) {
                Some(why) => (hash, Err(why.clone())),
                None if shown.contains(&hash) => (hash, Ok(())),
                // Another transfer has brought the blob meanwhile: the next request proves it.
                None => (hash, Err(format!("{hash} was not there to compare with"))),
            };
            let proofs = blobs.into_iter().map(proof).collect();
            _ = inputs.send(Input::Proved(holder.peer, proofs)).await;
        });
    }
}

fn failure(error: FetchError) -> (Hash, FetchFailure) {
    let why = error.to_string();
    match error {
        FetchError::Local { hash, .. } => (hash, FetchFailure::Here(why)),
        FetchError::Sources { hash, .. } | FetchError::NoSource { hash } => {
            (hash, FetchFailure::Sources(why))
        }
    }
}
