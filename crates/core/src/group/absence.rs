//! Who is absent from the group, as its leader sees it, and for how long.

use super::{Change, Group};
use hedge_model::group::NodeId;
use hedge_model::{PeerId, Time};
use std::collections::BTreeMap;
use std::time::Duration;

/// Tracks since when members of the group are absent.
#[derive(Clone, Debug, Default)]
pub struct Absences {
    since: BTreeMap<NodeId, Time>,
}

impl Absences {
    /// Notes who is `connected` to this member. Where it leads and a voter has been absent for `after`, this returns
    /// the change that gives its vote to a member that stands by: one that is connected, up to date and without a
    /// vote. Times are of one monotonic clock.
    pub fn observe(
        &mut self,
        now: Time,
        group: &Group<'_>,
        connected: impl Fn(PeerId) -> bool,
        after: Duration,
    ) -> Option<Change> {
        if !group.leading {
            // What it saw before it leads again says nothing: nobody had to be connected to it.
            self.since.clear();
            return None;
        }
        let present = |id: NodeId| {
            let seat = group.seats.get(&id);
            id == group.me || seat.is_some_and(|seat| connected(seat.member.peer.peer))
        };
        let ids = || group.seats.keys().copied();
        self.since
            .retain(|id, _| group.seats.contains_key(id) && !present(*id));
        for id in ids().filter(|id| !present(*id)) {
            self.since.entry(id).or_insert(now);
        }
        let gone = |id: &NodeId| {
            let since = self.since.get(id);
            group.seats[id].voter && since.is_some_and(|since| now.since(*since) >= after)
        };
        let absent = ids().find(gone)?;
        let by = ids().find(|id| {
            let seat = &group.seats[id];
            !seat.voter && present(*id) && group.is_up_to_date(seat)
        })?;
        Some(Change::Replace { absent, by })
    }
}
