//! Checkpoints of the attempts in hand, and attempts that have to leave: these save how far they are before they end.

use super::{Action, InHand, State, Worker};
use hedge_model::msg::{CheckpointReport, FromWorker};
use hedge_model::owner::OwnerResponse;
use hedge_model::{AttemptId, Checkpoint, CheckpointId, Hash, Time};
use std::sync::Arc;
use std::time::Duration;

/// Longest grace period of an attempt whose worker drains: what it saves must reach a supervisor before the worker leaves,
/// a minute after it began to drain.
const DRAIN_GRACE_MAX: Duration = Duration::from_secs(30);

/// The newest checkpoint of an attempt, or why it was not saved.
#[derive(Debug)]
pub(super) struct Saved {
    id: CheckpointId,
    saved: Result<Arc<Checkpoint>, String>,
    at: Time,
    /// Whether a supervisor was told of it: then it says when it is to be dropped.
    told: bool,
}

impl Saved {
    /// Says it to the supervisor.
    pub fn tell(&mut self, now: Time) -> Action {
        self.told = true;
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

/// Whether an attempt is given up, for the owner or to drain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leaving {
    Stays,
    AtOnce,
    /// It goes on for a while, to save how far it is.
    Saves,
}

/// How processes of attempts run, by what the machine's owner is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stance {
    pub paused: bool,
    pub lowered: bool,
}

impl InHand {
    /// How long it may go on to save how far it is, where it has to leave.
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
    /// Blobs of checkpoints of which the worker tells by themselves. They are not told as content held: a supervisor
    /// would have them dropped before it hears what they are.
    pub fn checkpoint_blobs(&self) -> impl Iterator<Item = Hash> + '_ {
        let saved = self.in_hand.values().filter_map(|a| a.checkpoint.as_ref());
        saved.flat_map(Saved::blobs)
    }

    /// How processes of attempts run now. While one that is given up saves how far it is, none is paused.
    pub(super) fn stance(&self) -> Stance {
        let response = self.owner.response();
        let vacates = response == OwnerResponse::Vacate;
        let saves = vacates && self.in_hand.values().any(InHand::saves);
        Stance {
            paused: response == OwnerResponse::Pause || (vacates && !saves),
            lowered: response == OwnerResponse::Lower || saves,
        }
    }

    /// An attempt made a checkpoint, or could not.
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
            told: false,
        };
        let attempt = self.in_hand.get_mut(&id.attempt);
        let Some(attempt) = attempt.filter(|attempt| attempt.state.busy()) else {
            return self.drop_unreported(Some(news), out);
        };
        if self.connected {
            out.push(news.tell(now));
        }
        let before = attempt.checkpoint.replace(news);
        self.drop_unreported(before, out);
    }

    /// Drops a checkpoint that no supervisor has heard of, and that is not wanted any more.
    pub(super) fn drop_unreported(&mut self, saved: Option<Saved>, out: &mut Vec<Action>) {
        let Some(saved) = saved.filter(|saved| !saved.told) else {
            return;
        };
        let mut blobs: Vec<Hash> = saved.blobs().collect();
        blobs.retain(|hash| self.checkpoint_blobs().all(|other| other != *hash));
        self.content.drop_unknown(blobs, &self.in_hand, out);
    }

    /// A supervisor has content dropped: checkpoints that need it are not told of again.
    pub(super) fn forget_checkpoints(&mut self, dropped: &[Hash]) {
        let gone = |saved: &mut Saved| saved.blobs().any(|hash| dropped.contains(&hash));
        for attempt in self.in_hand.values_mut() {
            attempt.checkpoint.take_if(gone);
        }
    }

    /// The worker drains: what has checkpoints goes on elsewhere.
    pub(super) fn vacate_saving(&mut self, out: &mut Vec<Action>) {
        let saving = |attempt: &InHand| attempt.body.checkpoint.is_some();
        self.vacate(DRAIN_GRACE_MAX, saving, out);
    }

    /// The owner wants the machine.
    pub(super) fn vacate_all(&mut self, out: &mut Vec<Action>) {
        self.vacate(self.owner.checkpoint_grace(), |_| true, out);
    }

    /// Gives up attempts that are staging or running; those that have checkpoints may save how far they are.
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
