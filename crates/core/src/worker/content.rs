//! Tracks why a worker holds each blob, so that unneeded ones are dropped.
//!
//! The supervisor knows what a worker held when it attached and which outputs it made since. Blobs that the worker
//! fetched for a job it drops by itself when the job is over.

use super::{Action, InHand, State};
use hedge_model::msg::{Assignment, Body, Outcome, Report};
use hedge_model::tree::MountedTree;
use hedge_model::{AttemptId, FileEntry, Hash, JobId};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Debug, Default)]
pub(super) struct Content {
    /// Blobs fetched since the worker attached, with the jobs that need them.
    fetched: BTreeMap<Hash, BTreeSet<JobId>>,
    /// Groups (job, group, version) whose shared inputs were fetched.
    bodies: BTreeSet<(JobId, u32, u32)>,
    /// Outputs made since the worker attached.
    made: BTreeSet<Hash>,
    /// Jobs that are over and whose last attempts are still ending.
    over: BTreeSet<JobId>,
}

type Attempts = BTreeMap<AttemptId, InHand>;

impl Content {
    /// Starts anew when the worker attaches and reports what it holds: from now on the supervisor drops these blobs.
    pub fn attached(&mut self, in_hand: &Attempts) {
        *self = Self {
            over: std::mem::take(&mut self.over),
            ..Self::default()
        };
        for attempt in in_hand.values().filter(|a| a.state == State::Staging) {
            self.fetch(&attempt.body, &attempt.order);
        }
    }

    /// Notes that an attempt's inputs are about to be fetched. Returns the bytes of those that were neither
    /// fetched nor made since the worker attached.
    pub fn fetch(&mut self, body: &Body, order: &Assignment) -> u64 {
        let mut moved = 0u64;
        let job = body.job;
        let shared = self.bodies.insert((job, body.group, body.version));
        let inputs = shared.then_some(&body.inputs).into_iter().flatten();
        let own = order.own_inputs().iter().chain(order.checkpoint());
        let stdin = body.stdin.iter().filter(|_| shared);
        let all = inputs.chain(own).map(|file| &file.data).chain(stdin);
        for data in all {
            let Some(hash) = data.hash() else { continue };
            if !self.fetched.contains_key(&hash) && !self.made.contains(&hash) {
                moved = moved.saturating_add(data.size());
            }
            self.fetched.entry(hash).or_default().insert(job);
        }
        // Whether they are fetched depends on the trees that are here already.
        let trees = body.mounts.iter().filter(|_| shared);
        for (hash, _) in trees.flat_map(MountedTree::blobs) {
            self.fetched.entry(hash).or_default().insert(job);
        }
        moved
    }

    /// Notes an attempt's outputs.
    pub fn made(&mut self, outputs: &[FileEntry]) {
        self.made
            .extend(outputs.iter().filter_map(|file| file.data.hash()));
    }

    /// Drops blobs as the supervisor demands, except those that unsettled reports name: the leader did not know of
    /// them when it sent the order.
    pub fn drop(&mut self, mut hashes: Vec<Hash>, in_hand: &Attempts, out: &mut Vec<Action>) {
        let kept = unsettled(in_hand);
        hashes.retain(|hash| !kept.contains(hash));
        for hash in &hashes {
            self.made.remove(hash);
            self.fetched.remove(hash);
        }
        if !hashes.is_empty() {
            out.push(Action::Drop(hashes));
        }
    }

    /// Drops blobs that no supervisor knows of, unless they are here for another reason too.
    pub fn drop_unknown(
        &mut self,
        mut hashes: Vec<Hash>,
        in_hand: &Attempts,
        out: &mut Vec<Action>,
    ) {
        hashes.retain(|hash| !self.made.contains(hash) && !self.fetched.contains_key(hash));
        self.drop(hashes, in_hand, out);
    }

    /// Drops the blobs that were fetched only for this job, which is over, once its last attempt has ended.
    pub fn forget(&mut self, job: JobId, in_hand: &Attempts, out: &mut Vec<Action>) {
        let busy = |attempt: &InHand| attempt.body.job == job && attempt.state.busy();
        if in_hand.values().any(busy) {
            self.over.insert(job);
            return;
        }
        self.over.remove(&job);
        self.bodies.retain(|(of, _, _)| *of != job);
        let mut gone = Vec::new();
        self.fetched.retain(|hash, jobs| {
            let last = jobs.remove(&job) && jobs.is_empty();
            if last && !self.made.contains(hash) {
                gone.push(*hash);
            }
            !last
        });
        if !gone.is_empty() {
            out.push(Action::Drop(gone));
        }
    }

    /// Notes that an attempt of a job has ended.
    pub fn ended(&mut self, job: JobId, in_hand: &Attempts, out: &mut Vec<Action>) {
        if self.over.contains(&job) {
            self.forget(job, in_hand, out);
        }
    }
}

/// Returns the blobs that unsettled reports name: outputs and printed output.
fn unsettled(in_hand: &Attempts) -> BTreeSet<Hash> {
    let mut named = BTreeSet::new();
    let reports = in_hand.values().filter_map(|a| a.report.as_deref());
    for Report { outcome, log, .. } in reports {
        if let Outcome::Done(outputs) = outcome {
            named.extend(outputs.iter().filter_map(|file| file.data.hash()));
        }
        named.extend(log.iter().flat_map(|log| log.blobs()));
    }
    named
}
