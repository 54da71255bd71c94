//! Checkpoints of the attempts in hand, and vacating attempts, which save a last checkpoint before they end.

use super::{Action, InHand, State, Worker};
use hedge_model::msg::{CheckpointReport, FromWorker};
use hedge_model::owner::OwnerResponse;
use hedge_model::{AttemptId, Checkpoint, CheckpointId, Hash, Time};
use std::sync::Arc;
use std::time::Duration;

/// The longest grace period of an attempt while its worker drains. Its checkpoint must reach a supervisor before the
/// worker leaves, one minute after it began to drain.
const DRAIN_GRACE_MAX: Duration = Duration::from_secs(30);

/// The newest checkpoint of an attempt, or why it was not saved.
#[derive(Debug)]
pub(super) struct Saved {
    id: CheckpointId,
    saved: Result<Arc<Checkpoint>, String>,
    at: Time,
    /// Whether it was reported to a supervisor, which then decides when to drop it.
    reported: bool,
}

impl Saved {
    /// Returns the report to the supervisor.
    pub fn report(&mut self, now: Time) -> Action {
        self.reported = true;
        Action::Tell(FromWorker::Checkpoint(Box::new(CheckpointReport {
            id: self.id,
            saved: self.saved.clone(),
            age: now.since(self.at),
        })))
    }

    fn blobs(&self) -> impl Iterator<Item = Hash> + '_ {
        let saved = self.saved.iter().flat_map(|saved| saved.blobs());
        saved.map(|(hash, _)| hash)
    }
}

/// Whether an attempt must leave, because the owner returned or the worker drains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leaving {
    Stays,
    AtOnce,
    /// It continues for a grace period to save a last checkpoint.
    Saves,
}

/// How the processes of attempts run, as the response to the owner demands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stance {
    pub paused: bool,
    pub lowered: bool,
}

impl InHand {
    /// Returns the grace period for a last checkpoint; none if the attempt cannot save one.
    fn grace(&self, most: Duration) -> Option<Duration> {
        let rule = self.body.checkpoint.as_deref()?;
        let grace = rule.grace.min(most);
        let runs = matches!(self.state, State::Running | State::Waiting(_));
        (runs && !grace.is_zero()).then_some(grace)
    }

    fn saves(&self) -> bool {
        self.leaving == Leaving::Saves && !self.cancelled && self.state.busy()
    }
}

impl Worker {
    /// Blobs of checkpoints. They are reported separately and not as held blobs: a supervisor would have them dropped
    /// before it learns what they are.
    pub fn checkpoint_blobs(&self) -> impl Iterator<Item = Hash> + '_ {
        let saved = self.in_hand.values().filter_map(|a| a.checkpoint.as_ref());
        saved.flat_map(Saved::blobs)
    }

    /// Returns how processes of attempts run now. While a vacated attempt saves its checkpoint, none is paused.
    pub(super) fn stance(&self) -> Stance {
        let response = self.owner.response();
        let vacates = response == OwnerResponse::Vacate;
        let saves = vacates && self.in_hand.values().any(InHand::saves);
        Stance {
            paused: response == OwnerResponse::Pause || (vacates && !saves),
            lowered: response == OwnerResponse::Lower || saves,
        }
    }

    /// Handles a new checkpoint of an attempt, or the failure to make one.
    pub(super) fn on_checkpoint(
        &mut self,
        now: Time,
        id: CheckpointId,
        saved: Result<Arc<Checkpoint>, String>,
        out: &mut Vec<Action>,
    ) {
        let mut news = Saved {
            id,
            saved,
            at: now,
            reported: false,
        };
        let attempt = self.in_hand.get_mut(&id.attempt);
        let Some(attempt) = attempt.filter(|attempt| attempt.state.busy()) else {
            return self.drop_unreported(Some(news), out);
        };
        if self.connected {
            out.push(news.report(now));
        }
        let before = attempt.checkpoint.replace(news);
        self.drop_unreported(before, out);
    }

    /// Drops a checkpoint that is not needed and that no supervisor knows of.
    pub(super) fn drop_unreported(&mut self, saved: Option<Saved>, out: &mut Vec<Action>) {
        let Some(saved) = saved.filter(|saved| !saved.reported) else {
            return;
        };
        let mut blobs: Vec<Hash> = saved.blobs().collect();
        blobs.retain(|hash| self.checkpoint_blobs().all(|other| other != *hash));
        self.content.drop_unknown(blobs, &self.in_hand, out);
    }

    /// Forgets checkpoints with blobs that a supervisor had dropped, so that they are not reported again.
    pub(super) fn forget_checkpoints(&mut self, dropped: &[Hash]) {
        let gone = |saved: &mut Saved| saved.blobs().any(|hash| dropped.contains(&hash));
        for attempt in self.in_hand.values_mut() {
            attempt.checkpoint.take_if(gone);
        }
    }

    /// Vacates the attempts that have checkpoints, because the worker drains.
    pub(super) fn vacate_saving(&mut self, out: &mut Vec<Action>) {
        let saving = |attempt: &InHand| attempt.body.checkpoint.is_some();
        self.vacate(DRAIN_GRACE_MAX, saving, out);
    }

    /// Vacates all attempts, because the owner returned.
    pub(super) fn vacate_all(&mut self, out: &mut Vec<Action>) {
        self.vacate(self.owner.checkpoint_grace(), |_| true, out);
    }

    /// Vacates attempts that are staging or running. Those that make checkpoints get time to save one.
    fn vacate(&mut self, most: Duration, which: impl Fn(&InHand) -> bool, out: &mut Vec<Action>) {
        let leave = |(id, attempt): (&AttemptId, &mut InHand)| {
            let stays = attempt.leaving == Leaving::Stays && !attempt.cancelled;
            if !stays || !attempt.state.busy() || !which(attempt) {
                return None;
            }
            let grace = attempt.grace(most);
            attempt.leaving = grace.map_or(Leaving::AtOnce, |_| Leaving::Saves);
            Some(grace.map_or(Action::End(*id), |grace| Action::Stop(*id, grace)))
        };
        out.extend(self.in_hand.iter_mut().filter_map(leave));
    }
}
