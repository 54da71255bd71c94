//! Submissions on their way, of jobs and of groups for open ones: each is accepted once as many supervisors hold its
//! inputs as are to, and the client has shown that it holds them.

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

    /// Whether nothing stands in the way of accepting it in a group that writes this format.
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

    /// Those with an input that fewer supervisors hold than are to.
    pub fn lacking(&self, hash: Hash) -> impl DoubleEndedIterator<Item = &Submission> {
        self.0.iter().filter(move |submit| submit.lacks(hash))
    }

    /// A client has shown that it holds a blob; gives the blob's size where it is an input that was not proven.
    pub fn prove(&mut self, client: PeerId, hash: Hash) -> Option<u64> {
        let its = self.0.iter_mut().filter(|submit| submit.client == client);
        its.filter_map(|submit| submit.unproven.remove(&hash))
            .last()
    }

    /// As many supervisors hold an input as are to; says whether a submission waited for that.
    fn arrived(&mut self, hash: Hash) -> bool {
        let mut waited = false;
        for submit in &mut self.0 {
            waited |= submit.missing.remove(&hash);
        }
        waited
    }

    /// Takes out those of which `out` holds.
    pub fn take(&mut self, mut out: impl FnMut(&Submission) -> bool) -> Vec<Submission> {
        self.0.extract_if(.., |submit| out(submit)).collect()
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
            // What was tried with clients before says nothing about this one.
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

    /// As many supervisors hold an input as are to.
    pub(super) fn input_arrived(&mut self, hash: Hash) {
        if self.leader.submissions.arrived(hash) {
            self.accept_complete();
        }
    }

    /// Accepts the submissions that nothing stands in the way of.
    pub(crate) fn accept_complete(&mut self) {
        let format = self.state.format();
        let complete = |submit: &Submission| submit.complete(format);
        for mut submit in self.leader.submissions.take(complete) {
            // One that was held may have gone with a supervisor's disk meanwhile: it is wanted again.
            let inputs = submit.new.offer.input_blobs().map(|(hash, _)| hash);
            submit.missing = inputs
                .filter(|hash| !self.view().is_replicated(*hash))
                .collect();
            self.accept(submit);
        }
    }

    /// Accepts a submission that nothing stands in the way of. Of another the inputs are fetched and spread, and the
    /// client is to show that it holds them.
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

    /// Refuses submissions whose inputs the client did not bring.
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
