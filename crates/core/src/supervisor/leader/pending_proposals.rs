//! What is promised to those who wait for a record, and said once it is committed.

use crate::supervisor::ProposalId;
use crate::supervisor::contract::Pending;
use hedge_model::PeerId;
use std::collections::BTreeMap;

/// The promises that are open, by the proposals that they wait for.
#[derive(Debug, Default)]
pub(crate) struct PendingProposals(BTreeMap<ProposalId, Pending>);

impl PendingProposals {
    pub fn make(&mut self, proposal: ProposalId, pending: Pending) {
        self.0.insert(proposal, pending);
    }

    /// Takes out what is to be said now that a proposal is committed.
    pub fn take(&mut self, proposal: ProposalId) -> Option<Pending> {
        self.0.remove(&proposal)
    }

    /// Takes out all, in the order of their proposals.
    pub fn take_all(&mut self) -> impl Iterator<Item = Pending> + use<> {
        std::mem::take(&mut self.0).into_values()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// A peer's questions are not answered any more.
    pub fn abandon(&mut self, peer: PeerId) {
        for pending in self.0.values_mut() {
            match pending {
                Pending::Accepted { client, .. }
                | Pending::Extended { client, .. }
                | Pending::Ticket { client, .. }
                | Pending::Done { client, .. }
                    if *client == peer =>
                {
                    *pending = Pending::Abandoned;
                }
                _ => {}
            }
        }
    }
}
