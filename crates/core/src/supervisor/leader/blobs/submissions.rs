//! Submissions on their way: each is accepted once as many supervisors hold its inputs as are to, and the client has shown
//! that it holds them.

use crate::supervisor::contract::Pending;
use crate::supervisor::leader::Leadership;
use crate::supervisor::leader::blobs::transfers::input_blobs;
use crate::supervisor::{Requester, answer};
use hedge_model::msg::{Refusal, RefusalKind, Reply, SharedSpec};
use hedge_model::record::Record;
use hedge_model::{Hash, PeerAddr, PeerId, SubmitKey};
use std::collections::{BTreeMap, BTreeSet};

/// What a client submits.
#[derive(Debug)]
pub(crate) struct NewSubmission {
    pub ask: u64,
    pub key: SubmitKey,
    pub spec: SharedSpec,
    /// Where the client serves the inputs.
    pub from: PeerAddr,
}

/// A submission that is not accepted yet.
#[derive(Debug)]
pub(crate) struct Submission {
    pub client: PeerId,
    pub new: NewSubmission,
    /// Inputs that fewer supervisors hold than are to.
    missing: BTreeSet<Hash>,
    /// Inputs of which the client has not shown that it holds them, with their sizes.
    unproven: BTreeMap<Hash, u64>,
}

impl Submission {
    /// Whether fewer supervisors hold this input than are to.
    pub fn lacks(&self, hash: Hash) -> bool {
        self.missing.contains(&hash)
    }

    /// Inputs of which the client has not shown that it holds them, with their sizes.
    pub fn unproven(&self) -> &BTreeMap<Hash, u64> {
        &self.unproven
    }

    /// The client has shown that it holds a blob; gives the blob's size where it is an input that was not proven.
    pub fn prove(&mut self, hash: Hash) -> Option<u64> {
        self.unproven.remove(&hash)
    }

    /// Whether nothing stands in the way of accepting it.
    pub fn complete(&self) -> bool {
        self.missing.is_empty() && self.unproven.is_empty()
    }
}

impl Leadership<'_> {
    /// Takes up a submission that may be made. The own store holds the inputs in `held`, put there from within this
    /// process. From here on until it is accepted or refused, its inputs are kept.
    pub(crate) fn begin_submission(
        &mut self,
        requester: Requester,
        new: NewSubmission,
        held: &[Hash],
    ) {
        let client = requester.peer();
        let inputs: BTreeMap<Hash, u64> = input_blobs(&new.spec).collect();
        for (hash, size) in &inputs {
            let content = self.leader.content.entry(*hash).or_default();
            content.claims += 1;
            // What another client, or a job, has said of it stands until this client has shown that it holds it.
            if content.size == 0 {
                content.size = *size;
            }
        }
        for hash in held.iter().filter(|hash| inputs.contains_key(*hash)) {
            self.leader.content.entry(*hash).or_default().own = true;
        }
        let view = self.view();
        let missing = inputs.keys().copied().filter(|hash| !view.secure(*hash));
        let missing: BTreeSet<Hash> = missing.collect();
        let unproven = match requester {
            Requester::Here { .. } => BTreeMap::new(),
            Requester::Peer(_) => {
                let unproven = inputs.into_iter();
                unproven
                    .filter(|(hash, _)| !view.is_proven(client, *hash))
                    .collect()
            }
        };
        for hash in &missing {
            // What was tried with clients before says nothing about this one.
            if let Some(pull) = self.leader.pulls.get_mut(hash) {
                pull.failures = 0;
            }
        }
        self.accept(Submission {
            client,
            new,
            missing,
            unproven,
        });
    }

    /// As many supervisors hold an input as are to.
    pub(super) fn input_arrived(&mut self, hash: Hash) {
        let mut changed = false;
        for submit in &mut self.leader.submits {
            changed |= submit.missing.remove(&hash);
        }
        if changed {
            self.accept_complete();
        }
    }

    /// Accepts the submissions that nothing stands in the way of.
    pub(super) fn accept_complete(&mut self) {
        let complete = |submit: &mut Submission| submit.complete();
        let complete: Vec<Submission> = self.leader.submits.extract_if(.., complete).collect();
        for mut submit in complete {
            // One that was held may have gone with a supervisor's disk meanwhile: it is wanted again.
            let inputs = input_blobs(&submit.new.spec).map(|(hash, _)| hash);
            submit.missing = inputs.filter(|hash| !self.view().secure(*hash)).collect();
            self.accept(submit);
        }
    }

    /// Accepts a submission that nothing stands in the way of. Of another the inputs are fetched and spread, and the
    /// client is to show that it holds them.
    fn accept(&mut self, submit: Submission) {
        if submit.complete() {
            let NewSubmission { ask, key, spec, .. } = submit.new;
            let client = submit.client;
            let pending = Pending::Accepted {
                client,
                ask,
                spec: spec.clone(),
            };
            let record = Record::accepted(key, client, spec, self.now);
            return self.append(record, Some(pending));
        }
        let (missing, holder) = (submit.missing.clone(), submit.new.from.peer);
        self.leader.submits.push(submit);
        for hash in missing {
            self.pull(hash);
            self.spread(hash);
        }
        self.prove(holder);
    }

    /// Refuses submissions whose inputs the client did not bring.
    pub(super) fn refuse_submissions(
        &mut self,
        why: &str,
        mut hopeless: impl FnMut(&Submission) -> bool,
    ) {
        let leader = &mut *self.leader;
        let gone = leader.submits.extract_if(.., |submit| hopeless(submit));
        let gone: Vec<Submission> = gone.collect();
        for submit in gone {
            self.release_inputs(&submit.new.spec);
            let why = format!(
                "the inputs could not be fetched from the client: {why}; nothing was accepted"
            );
            let kind = RefusalKind::Busy;
            let reply = Reply::No(Refusal { kind, why });
            answer(submit.client, submit.new.ask, reply, self.out);
        }
    }
}
