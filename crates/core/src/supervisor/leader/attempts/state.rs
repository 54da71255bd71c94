//! The state of an attempt, and the only function that changes it.

use hedge_model::JobId;
use hedge_model::ledger::Charge;

/// The state of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AttemptState {
    /// An earlier leader assigned it; the worker has not reported it yet.
    Expected,
    /// Its worker is known to have it.
    InHand {
        phase: Phase,
        share: Share,
        /// Its worker reported its end, and the record is not committed yet.
        reported: bool,
    },
    /// It was lost with its worker, which may still return with it.
    Lost,
}

/// What an attempt in hand does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Assigned, not known to run.
    Assigned,
    Running,
    /// Runs and waits for this job; its resources are free for others.
    Waiting(JobId),
    /// Told to stop, but its end is not reported yet. It costs this charge.
    Cancelling(Charge),
}

/// Whether an attempt holds resources of its worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Share {
    Held,
    /// It gets its resources once they are free, because it was queued at a busy worker, or because the worker has
    /// more in hand than it offers.
    Queued,
    /// Free for other attempts while it waits for a job.
    Freed,
}

/// An event that changes the state of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AttemptEvent {
    /// A worker reports it, although it may have been lost. `room` says whether its resources are free.
    Found { room: bool },
    /// Its program started.
    Started,
    /// It waits for this job.
    Waits(JobId),
    /// It no longer waits; `room` says whether its resources are free.
    GoesOn { room: bool },
    /// It was next in the worker's queue, and its resources are free.
    MovedUp,
    /// Its worker reported its end.
    Reported,
    /// Its worker was told to stop it. The charge is final.
    Cancelled(Charge),
    /// Its worker is lost.
    Lost,
}

impl AttemptState {
    /// Returns the state of an attempt that was just sent. `ahead` says whether it was queued at a busy worker.
    pub fn sent(ahead: bool) -> Self {
        Self::InHand {
            phase: Phase::Assigned,
            share: if ahead { Share::Queued } else { Share::Held },
            reported: false,
        }
    }

    /// Returns the state after an event; an event that does not apply changes nothing.
    #[must_use]
    pub fn after(self, event: AttemptEvent) -> Self {
        let (phase, share, reported) = match (self, event) {
            (Self::Expected | Self::Lost, AttemptEvent::Found { room }) => {
                return Self::sent(!room);
            }
            (Self::Expected | Self::InHand { .. }, AttemptEvent::Lost) => return Self::Lost,
            (
                Self::InHand {
                    phase,
                    share,
                    reported,
                },
                _,
            ) => (phase, share, reported),
            (Self::Expected | Self::Lost, _) => return self,
        };
        let (phase, share, reported) = match (event, phase) {
            (AttemptEvent::Started, Phase::Assigned) => (Phase::Running, share, reported),
            (AttemptEvent::Waits(job), Phase::Running | Phase::Waiting(_)) => {
                (Phase::Waiting(job), Share::Freed, reported)
            }
            (AttemptEvent::GoesOn { room: true }, Phase::Waiting(_)) => {
                (Phase::Running, Share::Held, reported)
            }
            (AttemptEvent::MovedUp, phase) if share == Share::Queued => {
                (phase, Share::Held, reported)
            }
            (AttemptEvent::Reported, phase) => (phase, share, true),
            (
                AttemptEvent::Cancelled(charge),
                Phase::Assigned | Phase::Running | Phase::Waiting(_),
            ) => (Phase::Cancelling(charge), share, reported),
            (_, phase) => (phase, share, reported),
        };
        Self::InHand {
            phase,
            share,
            reported,
        }
    }

    /// Returns whether it may still succeed: it is neither cancelled nor lost.
    pub fn active(self) -> bool {
        match self {
            Self::Expected => true,
            Self::InHand { phase, .. } => !matches!(phase, Phase::Cancelling(_)),
            Self::Lost => false,
        }
    }

    /// Returns whether it may still succeed and has not reported its end.
    pub fn alive(self) -> bool {
        self.active() && !self.reported()
    }

    /// Returns whether its worker reported its end, and the record is not committed yet.
    pub fn reported(self) -> bool {
        matches!(self, Self::InHand { reported: true, .. })
    }

    /// Returns whether its process runs.
    pub fn runs(self) -> bool {
        let runs = |phase| matches!(phase, Phase::Running | Phase::Waiting(_));
        matches!(self, Self::InHand { phase, .. } if runs(phase))
    }

    /// Returns whether its worker is known to have it.
    pub fn in_hand(self) -> bool {
        matches!(self, Self::InHand { .. })
    }

    /// Returns whether it was told to stop.
    pub fn cancelling(self) -> bool {
        self.stopped().is_some()
    }

    /// Its charge, once it was told to stop.
    pub fn stopped(self) -> Option<Charge> {
        match self {
            Self::InHand {
                phase: Phase::Cancelling(charge),
                ..
            } => Some(charge),
            _ => None,
        }
    }

    /// The job that it waits for.
    pub fn waits_for(self) -> Option<JobId> {
        match self {
            Self::InHand {
                phase: Phase::Waiting(job),
                ..
            } => Some(job),
            _ => None,
        }
    }

    /// Whether it holds resources; none if its worker is not known to have it.
    pub fn share(self) -> Option<Share> {
        match self {
            Self::InHand { share, .. } => Some(share),
            Self::Expected | Self::Lost => None,
        }
    }

    /// Returns whether it holds resources of its worker.
    pub fn holds(self) -> bool {
        self.share() == Some(Share::Held)
    }

    /// Returns whether it is queued at its worker and not known to run.
    pub fn queued(self) -> bool {
        let queued = |phase, share| phase == Phase::Assigned && share == Share::Queued;
        matches!(self, Self::InHand { phase, share, .. } if queued(phase, share))
    }

    /// Its state in one word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Expected => "expected",
            Self::Lost => "lost",
            Self::InHand { phase, .. } => match phase {
                Phase::Assigned if self.queued() => "queued",
                Phase::Assigned => "assigned",
                Phase::Running => "running",
                Phase::Waiting(_) => "waiting",
                Phase::Cancelling(_) => "cancelling",
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const JOB: AttemptEvent = AttemptEvent::Waits(JobId(2));

    #[test]
    fn an_attempt_that_waits_gives_its_part_back_and_takes_it_where_it_is_free() {
        let runs = AttemptState::sent(false).after(AttemptEvent::Started);
        assert!(runs.runs() && runs.holds());
        let waits = runs.after(JOB);
        assert_eq!((waits.waits_for(), waits.holds()), (Some(JobId(2)), false));
        assert_eq!(
            waits.after(AttemptEvent::Started),
            waits,
            "it says so again"
        );
        assert_eq!(waits.after(AttemptEvent::GoesOn { room: false }), waits);
        assert_eq!(waits.after(AttemptEvent::GoesOn { room: true }), runs);
        // One that runs before its part is free does not wait for that any more.
        let early = AttemptState::sent(true).after(AttemptEvent::Started);
        assert_eq!(early.share(), Some(Share::Queued));
        assert_eq!(early.after(JOB).after(AttemptEvent::MovedUp), waits);
    }

    #[test]
    fn what_an_attempt_is_charged_is_decided_once() {
        let charge = |moved| Charge {
            moved,
            ..Charge::default()
        };
        let stopped = AttemptState::sent(false).after(AttemptEvent::Cancelled(charge(1)));
        assert_eq!(stopped.after(AttemptEvent::Cancelled(charge(2))), stopped);
        assert!(!stopped.active() && stopped.in_hand() && stopped.holds());
        assert_eq!(stopped.after(AttemptEvent::Started), stopped);
    }

    #[test]
    fn an_attempt_that_was_lost_is_as_it_was_sent_when_it_is_found() {
        let lost = AttemptState::sent(false)
            .after(AttemptEvent::Reported)
            .after(AttemptEvent::Lost);
        assert_eq!(lost.after(AttemptEvent::Started), lost);
        let found = lost.after(AttemptEvent::Found { room: false });
        assert_eq!(found, AttemptState::sent(true));
        assert_eq!(found.after(AttemptEvent::Found { room: true }), found);
        assert!(AttemptState::Expected.active() && !AttemptState::Expected.in_hand());
    }
}
