//! Who belongs to the group and who is connected, as every supervisor knows it.

use hedge_model::group::PeerSupervisor;
use hedge_model::msg::Role;
use hedge_model::{PeerAddr, PeerId};
use std::collections::BTreeMap;

/// The group of supervisors, and the peers that have a connection.
#[derive(Debug, Default)]
pub(crate) struct Peers {
    pub group: Vec<PeerSupervisor>,
    pub linked: BTreeMap<PeerId, Role>,
}

impl Peers {
    /// All supervisors of the grid, for others to connect to. Where this one is it knows before its group does.
    pub fn supervisors(&self, me: &PeerAddr) -> Vec<PeerAddr> {
        if self.group.is_empty() {
            return vec![me.clone()];
        }
        let addrs = self
            .group
            .iter()
            .map(|peer_supervisor| &peer_supervisor.addr);
        addrs
            .map(|addr| if addr.peer == me.peer { me } else { addr })
            .cloned()
            .collect()
    }
}
