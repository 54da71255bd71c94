//! Access control: which role may make which requests, and how much a client may submit.

use crate::supervisor::Requester;
use crate::supervisor::leader::LeaderView;
use crate::supervisor::leader::jobs::quota::QuotaUse;
use hedge_model::PeerId;
use hedge_model::msg::{Concern, RefusalKind, Role};

impl LeaderView<'_> {
    /// Returns the role of a requester; none for a peer that is not a member.
    pub(crate) fn role_of(&self, requester: Requester) -> Option<Role> {
        match requester {
            Requester::Peer(peer) => self.state.member(peer),
            Requester::Here { role, .. } => Some(role),
        }
    }

    /// Checks that a requester may make requests about this; otherwise returns why not.
    pub(crate) fn may(
        &self,
        requester: Requester,
        concern: Concern,
    ) -> Result<(), (RefusalKind, String)> {
        let (peer, role) = (requester.peer(), self.role_of(requester));
        let denied = |why: String| Err((RefusalKind::NotAllowed, why));
        match (role, concern) {
            (Some(Role::Admin), _) | (Some(Role::Client), Concern::Requester | Concern::Grid) => {
                Ok(())
            }
            (Some(Role::Relay), Concern::Relay) => Ok(()),
            (Some(Role::Client), Concern::Job(id)) => match self.state.jobs.get(&id) {
                Some(job) if job.client != peer => denied(format!(
                    "job {id} belongs to another client; only that one and administrators may see or change it"
                )),
                _ => Ok(()),
            },
            (Some(Role::Client), Concern::Administration | Concern::Relay) => denied(
                "only an administrator may do this: use a ticket that `hedge ticket admin` made, \
                 or ask on the supervisor's own machine"
                    .into(),
            ),
            (Some(role), _) => denied(format!(
                "a {role} asks nothing of this kind; use a client's ticket"
            )),
            (None, _) => denied("this peer is not a member of the grid; ask for a ticket".into()),
        }
    }

    /// Returns whether this demand fits into the quotas, which all clients of one ticket share.
    pub(crate) fn within_limits(
        &self,
        client: PeerId,
        demand: QuotaUse,
    ) -> Result<(), (RefusalKind, String)> {
        let settings = self.state.settings();
        let clients = self.leader.jobs.quota_use().iter();
        let clients = clients.filter(|(other, _)| self.state.share_limits(client, **other));
        let QuotaUse {
            jobs,
            tasks,
            inputs,
            spec,
        } = clients.fold(demand, |all, (_, theirs)| all.plus(*theirs));
        let over = |what: &str, has: u64, max: u64| {
            if has <= max {
                return Ok(());
            }
            let why = format!(
                "with this the clients of your ticket would have {has} {what} at once, and this grid allows {max}; \
                 nothing was accepted: wait for others to end, cancel some, or let an administrator raise the limit with `hedge config set`"
            );
            Err((RefusalKind::NotAllowed, why))
        };
        over("jobs", jobs, u64::from(settings.client_jobs))?;
        over("tasks", tasks, settings.client_tasks)?;
        over("bytes of inputs", inputs, settings.client_bytes)?;
        let submits = self.leader.submissions.iter();
        let submits = submits.filter(|submit| submit.client == client);
        let coming = submits.map(|submit| submit.new.offer.encoded_bytes() as u64);
        let spec = coming.fold(spec, u64::saturating_add);
        over(
            "bytes of job descriptions",
            spec,
            settings.client_spec_bytes,
        )
    }
}
