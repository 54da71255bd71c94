//! Submissions of jobs, and of groups for open jobs, that are not accepted yet. One is accepted when enough
//! supervisors hold its inputs and the client has proven that it holds them.

use crate::supervisor::contract::Pending;
use crate::supervisor::leader::Leadership;
use crate::supervisor::leader::blobs::state::{BlobEvent, CopyEvent};
use crate::supervisor::{Offer, Requester, answer};
use hedge_model::msg::{Refusal, RefusalKind, Reply};
use hedge_model::record::Record;
use hedge_model::{Hash, PeerAddr, PeerId, SubmitKey};
use std::collections::{BTreeMap, BTreeSet};

/// What a client submits.
#[derive(Debug)]
pub(crate) struct NewSubmission {
    pub request_id: u64,
    pub key: SubmitKey,
    pub offer: Offer,
    /// Where the client serves the inputs.
    pub from: PeerAddr,
}

/// A submission that is not accepted yet.
#[derive(Debug)]
pub(crate) struct Submission {
    pub client: PeerId,
    pub new: NewSubmission,
    /// Inputs that too few supervisors hold.
    missing: BTreeSet<Hash>,
    /// Inputs of which the client has not proven possession, with their sizes in bytes.
    unproven: BTreeMap<Hash, u64>,
}

impl Submission {
    /// Returns whether too few supervisors hold this input.
    pub fn lacks(&self, hash: Hash) -> bool {
        self.missing.contains(&hash)
    }

    /// Inputs of which the client has not proven possession, with their sizes in bytes.
    pub fn unproven(&self) -> &BTreeMap<Hash, u64> {
        &self.unproven
    }

    /// Returns whether it can be accepted by supervisors that write this record format.
    pub fn complete(&self, format: u32) -> bool {
        self.missing.is_empty() && self.unproven.is_empty() && self.new.offer.format() <= format
    }
}

/// The submissions that are not accepted yet, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Submissions(Vec<Submission>);

impl Submissions {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn iter(&self) -> std::slice::Iter<'_, Submission> {
        self.0.iter()
    }

    /// Submissions with an input that too few supervisors hold.
    pub fn lacking(&self, hash: Hash) -> impl DoubleEndedIterator<Item = &Submission> {
        self.0.iter().filter(move |submit| submit.lacks(hash))
    }

    /// Records that a client has proven possession of a blob. Returns the size that it declared, if the blob was an
    /// unproven input.
    pub fn prove(&mut self, client: PeerId, hash: Hash) -> Option<u64> {
        let its = self.0.iter_mut().filter(|submit| submit.client == client);
        its.filter_map(|submit| submit.unproven.remove(&hash))
            .last()
    }

    /// Records that enough supervisors hold an input. Returns whether a submission waited for that.
    fn arrived(&mut self, hash: Hash) -> bool {
        let mut waited = false;
        for submit in &mut self.0 {
            waited |= submit.missing.remove(&hash);
        }
        waited
    }

    /// Removes and returns the submissions that `out` selects.
    pub fn take(&mut self, mut out: impl FnMut(&Submission) -> bool) -> Vec<Submission> {
        self.0.extract_if(.., |submit| out(submit)).collect()
    }
}

impl Leadership<'_> {
    /// Starts a submission that is allowed. `held` are inputs that this process has put into the own store. The
    /// inputs are kept until the submission is accepted or refused.
    pub(crate) fn begin_submission(
        &mut self,
        requester: Requester,
        new: NewSubmission,
        held: &[Hash],
    ) {
        let client = requester.peer();
        let inputs: BTreeMap<Hash, u64> = new.offer.input_blobs().collect();
        let blobs = &mut self.leader.blobs;
        for (hash, size) in &inputs {
            blobs.claim(*hash, *size);
        }
        for hash in held.iter().filter(|hash| inputs.contains_key(*hash)) {
            blobs.transition(*hash, BlobEvent::Own(CopyEvent::Arrived));
        }
        let view = self.view();
        let missing = inputs
            .keys()
            .copied()
            .filter(|hash| !view.is_replicated(*hash));
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
            // Failures to fetch it from other clients do not count for this one.
            let afresh = BlobEvent::Own(CopyEvent::Afresh);
            self.leader.blobs.transition(*hash, afresh);
        }
        self.accept(Submission {
            client,
            new,
            missing,
            unproven,
        });
    }

    /// Accepts the submissions for which this was the last input that too few supervisors held.
    pub(super) fn input_arrived(&mut self, hash: Hash) {
        if self.leader.submissions.arrived(hash) {
            self.accept_complete();
        }
    }

    /// Accepts all submissions that are complete.
    pub(crate) fn accept_complete(&mut self) {
        let format = self.state.format();
        let complete = |submit: &Submission| submit.complete(format);
        for mut submit in self.leader.submissions.take(complete) {
            // An input may have been lost with a supervisor's disk meanwhile.
            let inputs = submit.new.offer.input_blobs().map(|(hash, _)| hash);
            submit.missing = inputs
                .filter(|hash| !self.view().is_replicated(*hash))
                .collect();
            self.accept(submit);
        }
    }

    /// Accepts a submission if it is complete. Otherwise fetches and replicates its inputs and requests proofs of
    /// possession.
    fn accept(&mut self, submit: Submission) {
        if submit.complete(self.state.format()) {
            let NewSubmission {
                request_id,
                key,
                offer,
                ..
            } = submit.new;
            let (client, at) = (submit.client, self.now);
            let (record, pending) = match offer {
                Offer::Job(spec) => {
                    let record = Record::accepted(key, client, spec.clone(), at);
                    (
                        record,
                        Pending::Accepted {
                            client,
                            request_id,
                            spec,
                        },
                    )
                }
                Offer::Groups(job, extension) => {
                    let record = Record::GroupsAdded {
                        job,
                        key,
                        extension: extension.clone(),
                        at,
                    };
                    let pending = Pending::Extended {
                        client,
                        request_id,
                        job,
                        key,
                        extension,
                    };
                    (record, pending)
                }
            };
            return self.append(record, Some(pending));
        }
        let (missing, holder) = (submit.missing.clone(), submit.new.from.peer);
        self.leader.submissions.0.push(submit);
        for hash in missing {
            self.fetch(hash);
            self.replicate(hash);
        }
        self.prove(holder);
    }

    /// Refuses the submissions that `hopeless` selects, because their inputs could not be fetched.
    pub(super) fn refuse_submissions(
        &mut self,
        why: &str,
        hopeless: impl FnMut(&Submission) -> bool,
    ) {
        for submit in self.leader.submissions.take(hopeless) {
            self.release_inputs(submit.new.offer.input_blobs());
            let why = format!(
                "the inputs could not be fetched from the client: {why}; nothing was accepted"
            );
            let kind = RefusalKind::Busy;
            let reply = Reply::No(Refusal { kind, why });
            answer(submit.client, submit.new.request_id, reply, self.out);
        }
    }
}
