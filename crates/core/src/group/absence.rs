//! Tracks which members of the group are absent, as its leader sees it, and proposes who replaces an absent voter.

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
    /// Records which members are `connected` to this one. `now` must come from one monotonic clock.
    pub fn observe(&mut self, now: Time, group: &Group<'_>, connected: impl Fn(PeerId) -> bool) {
        if !group.leading {
            // What an earlier leadership observed is no longer valid: members need not connect to a follower.
            return self.since.clear();
        }
        let present = |id| is_present(group, id, &connected);
        self.since
            .retain(|id, _| group.seats.contains_key(id) && !present(*id));
        for id in group.seats.keys().filter(|id| !present(**id)) {
            self.since.entry(*id).or_insert(now);
        }
    }

    /// Returns the replacement of a voter that has been absent for `after`, if this member leads. The vote goes to a
    /// member without a vote that is connected and up to date.
    pub fn replacement(
        &self,
        now: Time,
        group: &Group<'_>,
        connected: impl Fn(PeerId) -> bool,
        after: Duration,
    ) -> Option<Change> {
        if !group.leading {
            return None;
        }
        let present = |id| is_present(group, id, &connected);
        let gone = |id: &NodeId| {
            let since = self.since.get(id);
            let long = since.is_some_and(|since| now.since(*since) >= after);
            group.seats[id].voter && long && !present(*id)
        };
        let ids = || group.seats.keys().copied();
        let absent = ids().find(gone)?;
        let by = ids().find(|id| {
            let seat = &group.seats[id];
            !seat.voter && present(*id) && group.is_up_to_date(seat)
        })?;
        Some(Change::Replace { absent, by })
    }
}

fn is_present(group: &Group<'_>, id: NodeId, connected: impl Fn(PeerId) -> bool) -> bool {
    let seat = group.seats.get(&id);
    id == group.me || seat.is_some_and(|seat| connected(seat.member.peer.peer))
}
