//! Where an attempt stands: one state, and the only function that changes it.

use hedge_model::JobId;
use hedge_model::ledger::Charge;

/// Where an attempt stands, with what is known only there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AttemptState {
    /// Given to its worker by an earlier leader; the worker has not spoken of it yet.
    Expected,
    /// Its worker is known to have it.
    InHand {
        phase: Phase,
        share: Share,
        /// Its end is on its way through the journal.
        reported: bool,
    },
    /// Given up with its worker.
    Lost,
}

/// What an attempt does at its worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Sent, not known to run.
    Assigned,
    Running,
    /// Runs and waits for this job; its part of its worker is given back.
    Waiting(JobId),
    /// Told to stop, not yet stopped; charged this.
    Cancelling(Charge),
}

/// An attempt's part of the resources of its worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Share {
    Held,
    /// It takes its part once that is free; it was sent ahead, or the worker has more in hand than it offers.
    Queued,
    /// Given back while it waits.
    Released,
}

/// What changes the state of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AttemptEvent {
    /// A worker that may have lost it has it; `room` says whether its part of the worker is free.
    Found { room: bool },
    /// It runs.
    Started,
    /// It waits for this job.
    Waits(JobId),
    /// It waits no longer; `room` says whether its part of the worker is free.
    GoesOn { room: bool },
    /// Its part of the worker is free, and it was the next in the queue.
    MovedUp,
    /// Its worker says how it ended.
    Reported,
    /// Its worker is told to stop it; nothing later is charged.
    Cancelled(Charge),
    /// It is given up with its worker.
    Lost,
}

impl AttemptState {
    /// The state of an attempt that is sent to its worker, ahead of its turn or not.
    pub fn sent(ahead: bool) -> Self {
        Self::InHand {
            phase: Phase::Assigned,
            share: if ahead { Share::Queued } else { Share::Held },
            reported: false,
        }
    }

    /// The state after an event; an event that does not apply changes nothing.
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
                (Phase::Waiting(job), Share::Released, reported)
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

    /// Whether the attempt may still succeed and nobody gave it up.
    pub fn active(self) -> bool {
        match self {
            Self::Expected => true,
            Self::InHand { phase, .. } => !matches!(phase, Phase::Cancelling(_)),
            Self::Lost => false,
        }
    }

    /// Whether it may still succeed and its end is not heard of.
    pub fn alive(self) -> bool {
        self.active() && !self.reported()
    }

    /// Whether its end is on its way through the journal.
    pub fn reported(self) -> bool {
        matches!(self, Self::InHand { reported: true, .. })
    }

    /// Whether its process runs.
    pub fn runs(self) -> bool {
        let runs = |phase| matches!(phase, Phase::Running | Phase::Waiting(_));
        matches!(self, Self::InHand { phase, .. } if runs(phase))
    }

    /// Whether its worker is known to have it.
    pub fn in_hand(self) -> bool {
        matches!(self, Self::InHand { .. })
    }

    /// Whether it was told to stop.
    pub fn cancelling(self) -> bool {
        self.stopped().is_some()
    }

    /// What it is charged, once it was told to stop.
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

    /// Its part of its worker; none where the worker is not known to have it.
    pub fn share(self) -> Option<Share> {
        match self {
            Self::InHand { share, .. } => Some(share),
            Self::Expected | Self::Lost => None,
        }
    }

    /// Whether it takes resources of its worker.
    pub fn holds(self) -> bool {
        self.share() == Some(Share::Held)
    }

    /// Whether it is sent ahead, and waits for its turn as far as is known.
    pub fn queued(self) -> bool {
        let queued = |phase, share| phase == Phase::Assigned && share == Share::Queued;
        matches!(self, Self::InHand { phase, share, .. } if queued(phase, share))
    }

    /// In a word.
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
