//! The group's supervisors and the connected peers, known to every supervisor.

use hedge_model::group::PeerSupervisor;
use hedge_model::msg::Role;
use hedge_model::{PeerAddr, PeerId};
use std::collections::BTreeMap;

/// The group of supervisors, and the peers that are connected.
#[derive(Debug, Default)]
pub(crate) struct Peers {
    pub group: Vec<PeerSupervisor>,
    pub linked: BTreeMap<PeerId, Role>,
}

impl Peers {
    /// Returns the addresses of all supervisors. For this supervisor it returns `me`, which is newer than what the
    /// group knows.
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
