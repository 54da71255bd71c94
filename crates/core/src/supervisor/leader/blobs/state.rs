//! Where a blob is held and why it is kept: its state, and the only functions that change it.

use crate::supervisor::leader::WorkerIx;
use hedge_model::{JobId, TaskId};
use smallvec::SmallVec;

/// Maximum number of peer supervisors whose replicas are counted: each has one bit in every blob.
pub(crate) const REPLICAS_MAX: usize = 8;

/// The leader's state of one blob.
#[derive(Debug, Default)]
pub(crate) struct Blob {
    size: u64,
    own: OwnCopy,
    workers: SmallVec<[WorkerIx; 2]>,
    replicas: Replicas,
    /// Tasks that produced it.
    producers: SmallVec<[TaskId; 1]>,
    /// Jobs whose input it is.
    jobs: SmallVec<[JobId; 1]>,
    /// Submissions in progress whose input it is.
    claims: u32,
    /// Ended jobs whose result it is, and jobs that printed it; one entry for each reason.
    retained: SmallVec<[JobId; 1]>,
}

/// An event that changes where a blob is held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum BlobEvent {
    /// A worker holds it.
    HeldBy(WorkerIx),
    /// A worker does not hold it.
    NotHeldBy(WorkerIx),
    /// The replica of the peer supervisor at this position is in this state.
    Replica(usize, Replica),
    /// Supervisors that refused it may be offered it again.
    OfferedAgain,
    /// This supervisor's own copy changes.
    Own(CopyEvent),
}

/// This supervisor's own copy of a blob.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum OwnCopy {
    /// It is not in the own store and was not requested.
    #[default]
    Absent,
    /// It was requested, and the transfer has not ended.
    Fetching(Box<Fetch>),
    /// The transfer failed and is retried after a backoff.
    Waiting(Box<Fetch>),
    /// It is in the own store.
    Held,
}

/// The state of a transfer into the own store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fetch {
    failures: u8,
    /// Whether its holders are suspected not to have it, because a worker could not fetch it. This transfer finds
    /// out.
    suspected: bool,
    /// Why this supervisor could not store it at the last try.
    fault: Option<String>,
}

/// An event that changes this supervisor's own copy of a blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum CopyEvent {
    /// It is wanted in the own store.
    Wanted,
    /// It is wanted because a worker could not fetch it.
    Suspected,
    /// A further worker holds it, so its holders are no longer suspected.
    Believed,
    /// It is in the own store.
    Arrived,
    /// The transfer failed; `fault` says why this supervisor could not store it.
    Failed { fault: Option<String> },
    /// Earlier failures no longer count.
    Afresh,
    /// The backoff is over.
    Due,
    /// It is not requested any more.
    GivenUp,
}

impl OwnCopy {
    /// Returns the state after an event; an event that does not apply changes nothing.
    #[must_use]
    pub fn after(self, event: CopyEvent) -> Self {
        match (self, event) {
            (_, CopyEvent::Arrived) => Self::Held,
            (Self::Held, _) => Self::Held,
            (Self::Absent, CopyEvent::Wanted) => Self::Fetching(Box::default()),
            (Self::Absent, CopyEvent::Suspected) => Self::Fetching(Box::new(Fetch {
                suspected: true,
                ..Fetch::default()
            })),
            (Self::Absent, _) | (_, CopyEvent::GivenUp) => Self::Absent,
            (Self::Waiting(fetch), CopyEvent::Due) => Self::Fetching(fetch),
            (Self::Fetching(mut fetch), CopyEvent::Failed { fault }) => {
                fetch.failures = fetch.failures.saturating_add(1);
                fetch.fault = fault.or(fetch.fault);
                Self::Waiting(fetch)
            }
            (Self::Fetching(fetch), event) => Self::Fetching(fetch.with_fault(&event)),
            (Self::Waiting(fetch), event) => Self::Waiting(fetch.with_fault(&event)),
        }
    }

    fn fetch(&self) -> Option<&Fetch> {
        match self {
            Self::Fetching(fetch) | Self::Waiting(fetch) => Some(fetch),
            Self::Absent | Self::Held => None,
        }
    }
}

impl Fetch {
    fn with_fault(mut self: Box<Self>, event: &CopyEvent) -> Box<Self> {
        match event {
            CopyEvent::Suspected => self.suspected = true,
            CopyEvent::Believed => self.suspected = false,
            CopyEvent::Afresh => self.failures = 0,
            _ => {}
        }
        self
    }
}

/// The replica of a blob at a peer supervisor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Replica {
    /// It holds none, as far as is known.
    None,
    /// It was asked to hold it and has not answered.
    Offered,
    /// It holds it.
    Held,
    /// It could not store it.
    Refused,
    /// It was told to drop it and has not confirmed that. It is not asked to hold it meanwhile, because an earlier
    /// answer could be taken for one to the new request.
    Dropping,
}

/// The replicas of a blob: one bit for each position, set in at most one of the fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Replicas {
    offered: u8,
    held: u8,
    refused: u8,
    dropping: u8,
}

impl Replicas {
    /// How many supervisors hold it.
    pub fn held_count(self) -> u32 {
        self.held.count_ones()
    }

    /// How many supervisors hold it or were asked to.
    pub fn expected_count(self) -> u32 {
        (self.held | self.offered).count_ones()
    }

    /// Whether a supervisor holds it, or may.
    fn anywhere(self) -> bool {
        self.held | self.offered | self.dropping != 0
    }

    /// The replica of the supervisor at a position.
    pub fn at(self, position: usize) -> Replica {
        let bit = 1 << position;
        match () {
            () if self.held & bit != 0 => Replica::Held,
            () if self.offered & bit != 0 => Replica::Offered,
            () if self.refused & bit != 0 => Replica::Refused,
            () if self.dropping & bit != 0 => Replica::Dropping,
            () => Replica::None,
        }
    }

    fn set(&mut self, position: usize, replica: Replica) {
        let bit = 1 << position;
        self.offered &= !bit;
        self.held &= !bit;
        self.refused &= !bit;
        self.dropping &= !bit;
        match replica {
            Replica::None => {}
            Replica::Offered => self.offered |= bit,
            Replica::Held => self.held |= bit,
            Replica::Refused => self.refused |= bit,
            Replica::Dropping => self.dropping |= bit,
        }
    }
}

impl Blob {
    /// Its size in bytes; 0 if unknown.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Returns whether it is in the own store.
    pub fn is_here(&self) -> bool {
        self.own == OwnCopy::Held
    }

    /// Returns whether a transfer into the own store is under way.
    pub fn is_fetching(&self) -> bool {
        matches!(self.own, OwnCopy::Fetching(_))
    }

    /// How often the transfer failed.
    pub fn failures(&self) -> u8 {
        self.own.fetch().map_or(0, |fetch| fetch.failures)
    }

    /// Why this supervisor could not store it.
    pub fn fault(&self) -> Option<&str> {
        self.own.fetch()?.fault.as_deref()
    }

    /// Returns whether its holders are suspected not to have it, because a worker could not fetch it.
    pub fn is_suspected(&self) -> bool {
        self.own.fetch().is_some_and(|fetch| fetch.suspected)
    }

    /// Workers that hold it.
    pub fn workers(&self) -> &[WorkerIx] {
        &self.workers
    }

    /// Its replicas at the peer supervisors.
    pub fn replicas(&self) -> Replicas {
        self.replicas
    }

    /// Tasks that produced it.
    pub fn producers(&self) -> &[TaskId] {
        &self.producers
    }

    /// Jobs that have it as an input, an output, a result or printed text.
    pub fn named_by(&self) -> impl Iterator<Item = JobId> + '_ {
        let made = self.producers.iter().map(|task| task.job);
        self.jobs.iter().chain(&self.retained).copied().chain(made)
    }

    /// Returns whether it is a result of an ended job, or was printed.
    pub fn is_retained(&self) -> bool {
        !self.retained.is_empty()
    }

    /// Returns whether a submission in progress claims it.
    pub fn is_claimed(&self) -> bool {
        self.claims > 0
    }

    /// Returns whether a job that has not ended or a submission may need it, or whether it has to be retained and is
    /// not in the own store yet.
    pub fn in_use(&self) -> bool {
        let wanted = self.is_retained() && !self.is_here();
        wanted || !self.producers.is_empty() || !self.jobs.is_empty() || self.claims > 0
    }

    /// Returns whether it is to be replicated once it is in the own store: everything that is fetched is to be kept.
    pub fn needs_replicas(&self) -> bool {
        self.is_retained() || self.in_use()
    }

    /// Returns whether it is needed by nothing and, as far as is known, held nowhere.
    pub(super) fn is_unused(&self) -> bool {
        let nowhere = self.own == OwnCopy::Absent && self.workers.is_empty();
        nowhere && !self.replicas.anywhere() && !self.needs_replicas()
    }

    /// What is left of it once nothing needs it: a transfer that has not ended, and orders to drop it that were not
    /// confirmed.
    pub(super) fn without_use(&self) -> Option<Self> {
        let mut left = Self::default();
        if self.is_fetching() {
            left.transition(BlobEvent::Own(CopyEvent::Wanted));
        }
        left.replicas.dropping = self.replicas.dropping;
        (!left.is_unused()).then_some(left)
    }

    /// Checks the invariants of a blob.
    pub(super) fn check(&self) -> Result<(), &'static str> {
        let Replicas {
            offered,
            held,
            refused,
            dropping,
        } = self.replicas;
        let all = [offered, held, refused, dropping];
        let either = all.iter().fold(0, |either, of| either | of);
        if all.iter().map(|of| of.count_ones()).sum::<u32>() != either.count_ones() {
            return Err("has two replicas at one supervisor");
        }
        if self.is_unused() {
            return Err("is nowhere and needed by nobody");
        }
        Ok(())
    }

    /// Changes where it is held; no other function does. Returns whether that changed anything.
    /// [`super::catalog::BlobCatalog`] updates what is derived from it.
    pub(super) fn transition(&mut self, event: BlobEvent) -> bool {
        match event {
            BlobEvent::HeldBy(ix) => {
                let new = !self.workers.contains(&ix);
                if new {
                    self.workers.push(ix);
                    self.transition(BlobEvent::Own(CopyEvent::Believed));
                }
                new
            }
            BlobEvent::NotHeldBy(ix) => {
                let before = self.workers.len();
                self.workers.retain(|other| *other != ix);
                self.workers.len() != before
            }
            BlobEvent::Replica(position, replica) => {
                let before = self.replicas;
                self.replicas.set(position, replica);
                self.replicas != before
            }
            BlobEvent::OfferedAgain => std::mem::take(&mut self.replicas.refused) != 0,
            BlobEvent::Own(event) => {
                let before = std::mem::take(&mut self.own);
                // Changes of the data in a `Fetch` do not count.
                let was = std::mem::discriminant(&before);
                self.own = before.after(event);
                std::mem::discriminant(&self.own) != was
            }
        }
    }

    pub(super) fn set_size(&mut self, size: u64) {
        self.size = size;
    }

    pub(super) fn add_producer(&mut self, task: TaskId) {
        if !self.producers.contains(&task) {
            self.producers.push(task);
        }
    }

    pub(super) fn remove_producer(&mut self, task: TaskId) {
        self.producers.retain(|other| *other != task);
    }

    pub(super) fn add_reader(&mut self, job: JobId) {
        self.jobs.push(job);
    }

    pub(super) fn claim(&mut self) {
        self.claims += 1;
    }

    pub(super) fn release(&mut self) {
        self.claims = self.claims.saturating_sub(1);
    }

    pub(super) fn retain_for(&mut self, job: JobId) {
        self.retained.push(job);
    }

    pub(super) fn end_retention(&mut self, job: JobId) {
        self.retained.retain(|other| *other != job);
    }

    pub(super) fn release_retention(&mut self, job: JobId) {
        if let Some(at) = self.retained.iter().position(|other| *other == job) {
            self.retained.remove(at);
        }
    }

    /// Removes an ended job that produced or read it.
    pub(super) fn release_from(&mut self, job: JobId) {
        self.producers.retain(|task| task.job != job);
        self.jobs.retain(|other| *other != job);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(copy: &OwnCopy, events: &[CopyEvent]) -> OwnCopy {
        events.iter().cloned().fold(copy.clone(), OwnCopy::after)
    }

    fn failed() -> CopyEvent {
        CopyEvent::Failed { fault: None }
    }

    #[test]
    fn a_blob_is_asked_for_once_until_it_is_due_again() {
        let fetching = after(&OwnCopy::Absent, &[CopyEvent::Wanted]);
        assert!(matches!(fetching, OwnCopy::Fetching(_)));
        assert_eq!(
            after(&fetching, &[CopyEvent::Wanted, CopyEvent::Due]),
            fetching
        );
        let waiting = after(&fetching, &[failed()]);
        assert!(matches!(&waiting, OwnCopy::Waiting(fetch) if fetch.failures == 1));
        assert_eq!(after(&waiting, &[CopyEvent::Wanted, failed()]), waiting);
        let again = after(&waiting, &[CopyEvent::Due, failed()]);
        assert!(matches!(&again, OwnCopy::Waiting(fetch) if fetch.failures == 2));
        let afresh = after(&again, &[CopyEvent::Afresh]);
        assert!(matches!(&afresh, OwnCopy::Waiting(fetch) if fetch.failures == 0));
        assert_eq!(after(&afresh, &[CopyEvent::GivenUp]), OwnCopy::Absent);
    }

    #[test]
    fn what_is_here_stays_here_whatever_becomes_of_a_transfer() {
        let held = after(&OwnCopy::Absent, &[CopyEvent::Arrived]);
        let late = [failed(), CopyEvent::Due, CopyEvent::GivenUp];
        assert_eq!(after(&held, &late), OwnCopy::Held);
    }

    #[test]
    fn the_last_fault_is_known_until_the_blob_is_here() {
        let fault = Some("disk full".to_owned());
        let waiting = after(
            &OwnCopy::Absent,
            &[
                CopyEvent::Wanted,
                CopyEvent::Failed { fault },
                CopyEvent::Due,
                failed(),
            ],
        );
        let known = waiting.fetch().and_then(|fetch| fetch.fault.as_deref());
        assert_eq!(known, Some("disk full"));
    }

    #[test]
    fn holders_are_suspected_until_a_further_one_is_known() {
        let mut blob = Blob::default();
        assert!(blob.transition(BlobEvent::HeldBy(1)));
        blob.transition(BlobEvent::Own(CopyEvent::Suspected));
        assert!(blob.is_suspected() && !blob.transition(BlobEvent::HeldBy(1)));
        assert!(blob.is_suspected(), "it was one of them");
        blob.transition(BlobEvent::HeldBy(2));
        assert!(!blob.is_suspected() && blob.is_fetching());
    }

    #[test]
    fn a_supervisor_stands_in_one_way_to_a_blob() {
        let mut blob = Blob::default();
        for replica in [
            Replica::Offered,
            Replica::Refused,
            Replica::Dropping,
            Replica::Held,
        ] {
            assert!(blob.transition(BlobEvent::Replica(3, replica)));
            assert_eq!(blob.replicas().at(3), replica);
            assert_eq!(blob.replicas().at(2), Replica::None);
        }
        assert!(!blob.transition(BlobEvent::OfferedAgain));
        assert_eq!(blob.replicas().held_count(), 1);
        assert_eq!(blob.check(), Ok(()));
        blob.transition(BlobEvent::Replica(3, Replica::None));
        assert!(blob.check().is_err(), "nobody needs it");
    }
}
