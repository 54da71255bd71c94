//! Proof of possession. Through its jobs a client can read every blob that they name as an input. So it has to prove
//! that it holds each of them, unless one of its own jobs named or produced the blob before.
//!
//! A client proves possession of a blob by sending it. For a blob that this supervisor holds already, it sends a
//! proof instead of the blob.

use crate::supervisor::Action;
use crate::supervisor::leader::blobs::submissions::Submission;
use crate::supervisor::leader::blobs::transfers::{FETCH_FAILURES_MAX, again_after};
use crate::supervisor::leader::timers::Timer;
use crate::supervisor::leader::{LeaderView, Leadership};
use hedge_model::{Hash, JobId, PeerId};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Inputs of ended jobs that are remembered with their clients: as many as the store retains for a while after their
/// last use.
const REMEMBERED_MAX: usize = 50_000;

/// A request to prove possession. Each peer that serves inputs has at most one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ProofRequest {
    /// The request was sent.
    Open { failures: u8 },
    /// The proof failed and will be requested again after a backoff.
    Waits { failures: u8 },
}

/// Tracks requests for proofs, and which clients have proven which blobs.
#[derive(Debug, Default)]
pub(crate) struct Possession {
    requests: BTreeMap<PeerId, ProofRequest>,
    /// Inputs of jobs that have ended.
    proven: ProvenBlobs,
}

impl Possession {
    /// Returns whether a peer that serves a client's inputs has a pending request for proofs.
    pub fn is_asked(&self, holder: PeerId) -> bool {
        self.requests.contains_key(&holder)
    }

    /// Records that a client named a blob as an input of a job that has ended.
    pub fn remember(&mut self, hash: Hash, client: PeerId) {
        self.proven.remember(hash, client);
    }
}

/// Blobs that clients named as inputs of ended jobs. The store retains such blobs for a while, and a client that
/// submits its job again need not prove possession again.
#[derive(Debug, Default)]
struct ProvenBlobs {
    known: BTreeSet<(Hash, PeerId)>,
    /// The same entries, oldest first.
    order: VecDeque<(Hash, PeerId)>,
}

impl ProvenBlobs {
    fn remember(&mut self, hash: Hash, client: PeerId) {
        if self.known.insert((hash, client)) {
            self.order.push_back((hash, client));
        }
        if self.order.len() > REMEMBERED_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
    }

    fn contains(&self, hash: Hash, client: PeerId) -> bool {
        self.known.contains(&(hash, client))
    }
}

impl Leadership<'_> {
    /// Handles a blob that arrived in the own store. If `sender` sent all of it and serves a waiting client's inputs,
    /// that proves possession. Other clients that wait for it are asked for a proof.
    pub(super) fn prove_arrived(&mut self, hash: Hash, sender: Option<PeerId>) {
        let waits = |submit: &&Submission| submit.unproven().contains_key(&hash);
        let mut waiting = self.leader.submissions.iter().filter(waits);
        let its = |submit: &&Submission| Some(submit.new.from.peer) == sender;
        if let Some(client) = waiting.find(its).map(|submit| submit.client) {
            self.proven(client, &[hash]);
        }
        let waiting = self.leader.submissions.iter().filter(waits);
        let holders: BTreeSet<PeerId> = waiting.map(|submit| submit.new.from.peer).collect();
        holders.into_iter().for_each(|holder| self.prove(holder));
    }

    /// Asks the peer that serves a client's inputs to prove that it holds those that are in the own store.
    pub(super) fn prove(&mut self, holder: PeerId) {
        if !self.leader.possession.is_asked(holder) {
            self.request_proof(holder, 0);
        }
    }

    /// Requests a failed proof again.
    pub(crate) fn prove_again(&mut self, holder: PeerId) {
        if let Some(ProofRequest::Waits { failures }) = self.leader.possession.requests.get(&holder)
        {
            self.request_proof(holder, *failures);
        }
    }

    fn request_proof(&mut self, holder: PeerId, failures: u8) {
        let leader = &mut *self.leader;
        let here = |(hash, _): &(&Hash, &u64)| leader.blobs.is_here(**hash);
        let its = |submit: &&Submission| submit.new.from.peer == holder;
        let its = || leader.submissions.iter().filter(its);
        let unproven = its().flat_map(Submission::unproven);
        let blobs: BTreeMap<Hash, u64> = unproven.filter(here).map(|(h, s)| (*h, *s)).collect();
        let addr = its().next().map(|submit| submit.new.from.clone());
        let Some(holder_addr) = addr.filter(|_| !blobs.is_empty()) else {
            leader.possession.requests.remove(&holder);
            return;
        };
        leader
            .possession
            .requests
            .insert(holder, ProofRequest::Open { failures });
        self.out.push(Action::Prove {
            holder: holder_addr,
            blobs: blobs.into_iter().collect(),
        });
    }

    /// Handles the proofs from a peer, or why they failed.
    pub(crate) fn on_proved(&mut self, holder: PeerId, proofs: Vec<(Hash, Result<(), String>)>) {
        let leader = &mut *self.leader;
        let Some(ProofRequest::Open { failures }) =
            leader.possession.requests.get(&holder).copied()
        else {
            return;
        };
        leader.possession.requests.remove(&holder);
        let (mut proven, mut failed) = (Vec::new(), BTreeMap::new());
        for (hash, result) in proofs {
            match result {
                Ok(()) => proven.push(hash),
                Err(why) => _ = failed.insert(hash, why),
            }
        }
        let mut submits = leader.submissions.iter();
        let its = submits.find(|submit| submit.new.from.peer == holder);
        if let Some(client) = its.map(|submit| submit.client) {
            self.proven(client, &proven);
        }
        let failures = failures + 1;
        if let Some((hash, why)) = failed.first_key_value() {
            let open = |submit: &Submission| {
                submit.new.from.peer == holder && submit.unproven().contains_key(hash)
            };
            if failures < FETCH_FAILURES_MAX && self.leader.submissions.iter().any(open) {
                let waits = ProofRequest::Waits { failures };
                self.leader.possession.requests.insert(holder, waits);
                let at = self.now + again_after(failures);
                return self.leader.timers.set(at, Timer::Prove(holder));
            }
            self.refuse_submissions(why, |submit| {
                let unproven = |hash| submit.unproven().contains_key(hash);
                submit.new.from.peer == holder && failed.keys().any(unproven)
            });
        }
        self.prove(holder);
    }

    /// Records that a client has proven possession, and accepts submissions that waited for that.
    fn proven(&mut self, client: PeerId, hashes: &[Hash]) {
        let leader = &mut *self.leader;
        for hash in hashes {
            if let Some(size) = leader.submissions.prove(client, *hash) {
                leader.blobs.set_size(*hash, size);
            }
        }
        self.accept_complete();
    }
}

impl LeaderView<'_> {
    /// Returns whether a client may name a blob without proof, because one of its jobs named or produced it.
    pub(super) fn is_proven(&self, client: PeerId, hash: Hash) -> bool {
        let leader = self.leader;
        if leader.possession.proven.contains(hash, client) {
            return true;
        }
        let Some(blob) = leader.blobs.get(hash) else {
            return false;
        };
        let its = |job: JobId| {
            let job = self.state.jobs.get(&job);
            job.is_some_and(|job| job.client == client)
        };
        blob.named_by().any(its)
    }
}
