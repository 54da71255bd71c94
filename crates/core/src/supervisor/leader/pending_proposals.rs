//! Requests that wait until a record is committed.

use crate::supervisor::ProposalId;
use crate::supervisor::contract::Pending;
use hedge_model::PeerId;
use std::collections::BTreeMap;

/// What to do once each proposal is committed.
#[derive(Debug, Default)]
pub(crate) struct PendingProposals(BTreeMap<ProposalId, Pending>);

impl PendingProposals {
    pub fn make(&mut self, proposal: ProposalId, pending: Pending) {
        self.0.insert(proposal, pending);
    }

    /// Removes and returns what waits for a proposal.
    pub fn take(&mut self, proposal: ProposalId) -> Option<Pending> {
        self.0.remove(&proposal)
    }

    /// Removes and returns all entries, in the order of their proposals.
    pub fn take_all(&mut self) -> impl Iterator<Item = Pending> + use<> {
        std::mem::take(&mut self.0).into_values()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Discards the answers to a peer that has disconnected.
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
