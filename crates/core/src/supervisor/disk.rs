//! Disk faults of supervisors: a supervisor reports one to its leader, and a leader that has one accepts no jobs.

use crate::supervisor::follower::Follower;
use crate::supervisor::leader::LeaderView;
use crate::supervisor::leader::jobs::active::ActiveJob;
use crate::supervisor::{Action, Effects, Role, Supervisor};
use hedge_model::group::ToLeader;
use hedge_model::msg::RefusalKind;
use hedge_model::{JobId, PeerId};

impl Supervisor {
    /// Returns why this supervisor cannot store anything now; none if it can.
    pub fn disk_fault(&self) -> Option<&str> {
        self.disk_fault.as_deref()
    }

    /// Returns whether another supervisor can store what a leader must store, as far as this leader knows.
    pub fn has_disk(&self, peer: PeerId) -> bool {
        if peer == self.config.me.peer {
            return self.disk_fault.is_none();
        }
        self.view()
            .is_none_or(|view| view.disk_fault_of(peer).is_none())
    }

    /// Records a change of this supervisor's own disk: a fault, or none any more.
    pub(crate) fn on_disk(&mut self, fault: Option<String>, out: &mut Effects) {
        if self.disk_fault == fault {
            return;
        }
        self.disk_fault.clone_from(&fault);
        if let Role::Follower(Follower {
            leader: Some(to), ..
        }) = &self.role
        {
            let (to, msg) = (*to, ToLeader::Disk(fault));
            out.actions.push(Action::ToLeader { to, msg });
        }
        if let Some(mut leadership) = self.leadership(out) {
            let jobs: Vec<JobId> = leadership.leader.jobs.iter().map(|(id, _)| id).collect();
            jobs.into_iter()
                .for_each(|job| leadership.notify_watchers_soon(job));
        }
    }

    /// Repeats a disk fault to a leader that may not know of it.
    pub(crate) fn report_disk_fault(&self, to: PeerId, out: &mut Effects) {
        if self.disk_fault.is_some() {
            let msg = ToLeader::Disk(self.disk_fault.clone());
            out.actions.push(Action::ToLeader { to, msg });
        }
    }
}

impl<'a> LeaderView<'a> {
    /// Returns why a supervisor of the group cannot store anything.
    pub(crate) fn disk_fault_of(&self, peer: PeerId) -> Option<&'a str> {
        if peer == self.config.me.peer {
            return self.disk_fault;
        }
        let mut group = self.leader.group.iter();
        group.find(|member| member.peer() == peer)?.disk_fault()
    }

    /// Refuses a submission if this leader could not store it.
    pub(crate) fn can_store(&self) -> Result<(), (RefusalKind, String)> {
        match self.disk_fault {
            None => Ok(()),
            Some(fault) => Err((
                RefusalKind::Busy,
                format!(
                    "the supervisor that leads cannot keep a job: {fault}. Nothing was accepted"
                ),
            )),
        }
    }

    /// Returns why a job cannot end although its tasks are done: this supervisor cannot store some of its results.
    pub(crate) fn held_up(&self, id: JobId, job: &ActiveJob) -> Option<String> {
        let leader = self.leader;
        let missing = job.awaited_results().iter();
        let mut faults = missing.filter_map(|hash| leader.blobs.get(*hash)?.fault());
        let fault = faults.next();
        let fault = fault.or(self
            .disk_fault
            .filter(|_| !job.awaited_results().is_empty()))?;
        Some(format!(
            "{} of its results cannot be stored yet, and it ends once they are: {fault}; `hedge cancel {id}` gives it up",
            job.awaited_results().len()
        ))
    }
}
