//! The connection state of a worker, and the only function that changes it.

use crate::monitor::{Attention, Liveness};
use hedge_model::Time;
use std::time::Duration;

/// The connection state of a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WorkerState {
    /// An earlier leader assigned attempts to it. It has not attached to this leader, which knows it since `since`.
    Expected { since: Time },
    /// It is connected.
    Connected {
        pulse: Pulse,
        /// How closely it is watched; none until the event in which it attached is over.
        attention: Option<Attention>,
    },
    /// Its connection was lost without being closed. It continues what it has in hand and may reconnect until `by`.
    Returning { since: Time, by: Time },
    /// It counts as lost since `at` and was last heard at `heard`. It may still return.
    Gone { heard: Time, at: Time },
}

/// What the heartbeats of a connected worker say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pulse {
    Live,
    /// A heartbeat is late.
    Late {
        heard: Time,
    },
    /// Suspected: it missed so many heartbeats that it may be lost.
    Suspected {
        heard: Time,
    },
    /// Declared dead at `at`: its attempts count as lost.
    Dead {
        heard: Time,
        at: Time,
    },
}

/// An event that changes the state of a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WorkerEvent {
    /// It attached on a new connection.
    Attached,
    /// Heartbeats are missing since `heard`: it is late or suspected.
    Silent { liveness: Liveness, heard: Time },
    /// It is heard again.
    Heard,
    /// Its connection was lost without being closed.
    Disconnected { now: Time, by: Time },
    /// It is lost.
    Lost { now: Time, loss: Loss },
}

/// How a worker was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Loss {
    /// Its process ended, or it was revoked, or it was declared dead before its connection was lost.
    Ended,
    /// The monitor declared it dead. It was last heard at `heard`.
    DeclaredDead { heard: Time },
    /// It did not reconnect in time.
    NotBack,
}

impl WorkerState {
    /// Returns the state after an event; an event that does not apply changes nothing.
    #[must_use]
    pub fn after(self, event: WorkerEvent) -> Self {
        match (self, event) {
            (_, WorkerEvent::Attached) => Self::Connected {
                pulse: Pulse::Live,
                attention: None,
            },
            (Self::Connected { pulse, attention }, WorkerEvent::Silent { liveness, heard }) => {
                let pulse = pulse.silent(liveness, heard);
                Self::Connected { pulse, attention }
            }
            (Self::Connected { attention, .. }, WorkerEvent::Heard) => Self::Connected {
                pulse: Pulse::Live,
                attention,
            },
            (Self::Connected { .. }, WorkerEvent::Disconnected { now, by }) => {
                Self::Returning { since: now, by }
            }
            (
                Self::Connected {
                    pulse: Pulse::Dead { .. },
                    ..
                },
                WorkerEvent::Lost {
                    loss: Loss::DeclaredDead { .. },
                    ..
                },
            ) => self,
            (
                Self::Connected { attention, .. },
                WorkerEvent::Lost {
                    now,
                    loss: Loss::DeclaredDead { heard },
                },
            ) => Self::Connected {
                pulse: Pulse::Dead { heard, at: now },
                attention,
            },
            (
                Self::Connected { .. } | Self::Returning { .. },
                WorkerEvent::Lost {
                    now,
                    loss: Loss::Ended | Loss::NotBack,
                },
            ) => Self::Gone {
                heard: self.last_heard().unwrap_or(now),
                at: now,
            },
            (
                Self::Expected { .. } | Self::Returning { .. } | Self::Gone { .. },
                WorkerEvent::Silent { .. }
                | WorkerEvent::Heard
                | WorkerEvent::Disconnected { .. }
                | WorkerEvent::Lost { .. },
            ) => self,
        }
    }

    /// Sets how closely it is watched. Returns whether that changed. Only a connected worker is watched.
    pub fn watch(&mut self, wanted: Attention) -> bool {
        match self {
            Self::Connected { attention, .. } => attention.replace(wanted) != Some(wanted),
            _ => false,
        }
    }

    /// Ends the watch. Returns whether there was one.
    pub fn unwatch(&mut self) -> bool {
        match self {
            Self::Connected { attention, .. } => attention.take().is_some(),
            _ => false,
        }
    }

    pub fn attention(&self) -> Option<Attention> {
        match self {
            Self::Connected { attention, .. } => *attention,
            _ => None,
        }
    }

    /// Returns whether it is connected, even if heartbeats are missing.
    pub fn connected(&self) -> bool {
        matches!(self, Self::Connected { .. })
    }

    /// Returns whether it is connected and not declared dead.
    pub fn reachable(&self) -> bool {
        self.connected() && !self.dead()
    }

    /// Returns whether it was declared dead and is still connected.
    pub fn dead(&self) -> bool {
        matches!(
            self,
            Self::Connected {
                pulse: Pulse::Dead { .. },
                ..
            }
        )
    }

    /// Returns whether it is suspected, so that it gets no new attempts.
    pub fn suspected(&self) -> bool {
        matches!(
            self,
            Self::Connected {
                pulse: Pulse::Suspected { .. },
                ..
            }
        )
    }

    /// Until when it may reconnect with what it has in hand.
    pub fn returns_by(&self) -> Option<Time> {
        match self {
            Self::Returning { by, .. } => Some(*by),
            _ => None,
        }
    }

    /// Returns whether what it holds still counts: it is connected, or away for less than `grace`.
    pub fn may_return(&self, now: Time, grace: Duration) -> bool {
        let away = match *self {
            Self::Connected {
                pulse: Pulse::Dead { at, .. },
                ..
            }
            | Self::Gone { at, .. } => at,
            Self::Connected { .. } => return true,
            Self::Expected { since } | Self::Returning { since, .. } => since,
        };
        now.since(away) < grace
    }

    /// When it was last heard; none if its heartbeats are on time.
    pub fn last_heard(&self) -> Option<Time> {
        match *self {
            Self::Connected {
                pulse: Pulse::Live, ..
            } => None,
            Self::Connected {
                pulse:
                    Pulse::Late { heard } | Pulse::Suspected { heard } | Pulse::Dead { heard, .. },
                ..
            }
            | Self::Gone { heard, .. } => Some(heard),
            Self::Expected { since } | Self::Returning { since, .. } => Some(since),
        }
    }

    /// Its liveness, as users see it.
    pub fn liveness(&self) -> Liveness {
        match self {
            Self::Connected {
                pulse: Pulse::Live, ..
            } => Liveness::Live,
            Self::Connected {
                pulse: Pulse::Late { .. },
                ..
            } => Liveness::Late,
            Self::Connected {
                pulse: Pulse::Suspected { .. },
                ..
            } => Liveness::Suspect,
            _ => Liveness::Dead,
        }
    }
}

impl Pulse {
    /// Returns the pulse when heartbeats are missing. It only gets worse until the worker is heard.
    fn silent(self, liveness: Liveness, heard: Time) -> Self {
        match (self, liveness) {
            (Self::Dead { .. }, _) | (Self::Suspected { .. }, Liveness::Late) => self,
            (_, Liveness::Late) => Self::Late { heard },
            (_, Liveness::Suspect) => Self::Suspected { heard },
            (_, Liveness::Live | Liveness::Dead) => self,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIVE: WorkerState = WorkerState::Connected {
        pulse: Pulse::Live,
        attention: Some(Attention::Assigned),
    };

    fn lost(now: u64, loss: Loss) -> WorkerEvent {
        WorkerEvent::Lost {
            now: Time(now),
            loss,
        }
    }

    #[test]
    fn a_worker_that_is_lost_was_last_heard_when_it_fell_silent() {
        let (liveness, heard) = (Liveness::Suspect, Time(5));
        let suspected = LIVE.after(WorkerEvent::Silent { liveness, heard });
        assert!(suspected.suspected() && suspected.reachable());
        let gone = suspected.after(lost(9, Loss::Ended));
        let (heard, at) = (Time(5), Time(9));
        assert_eq!(gone, WorkerState::Gone { heard, at });
        let gone = LIVE.after(lost(9, Loss::Ended));
        let (heard, at) = (Time(9), Time(9));
        assert_eq!(gone, WorkerState::Gone { heard, at });
    }

    #[test]
    fn gap_gets_worse_until_the_worker_is_heard() {
        let (late, heard) = (Liveness::Late, Time(5));
        let dead = LIVE.after(lost(8, Loss::DeclaredDead { heard }));
        assert!(dead.dead() && dead.connected() && !dead.reachable());
        assert_eq!(
            dead.after(WorkerEvent::Silent {
                liveness: late,
                heard
            }),
            dead
        );
        assert_eq!(dead.after(WorkerEvent::Heard), LIVE);
        assert!(dead.may_return(Time(9), Duration::from_nanos(2)));
        assert!(!dead.may_return(Time(10), Duration::from_nanos(2)));
    }

    #[test]
    fn a_worker_that_may_return_is_given_up_once() {
        let (now, by) = (Time(3), Time(13));
        let returning = LIVE.after(WorkerEvent::Disconnected { now, by });
        assert_eq!(returning.returns_by(), Some(by));
        assert_eq!(returning.after(WorkerEvent::Heard), returning);
        let gone = returning.after(lost(13, Loss::NotBack));
        assert_eq!(gone.last_heard(), Some(now));
        assert_eq!(gone.after(lost(20, Loss::Ended)), gone);
        assert_eq!(gone.liveness(), Liveness::Dead);
        let back = gone.after(WorkerEvent::Attached);
        assert!(back.reachable() && back.attention().is_none());
    }
}
