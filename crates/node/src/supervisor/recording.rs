//! A recording of a running supervisor: the events of its core and their effects.

use hedge_core::supervisor::{Config, Effects, Event, State, Supervisor};
use hedge_model::Time;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The most steps. Nothing is recorded beyond them.
const STEPS_MAX: usize = 1_000_000;

/// Records one supervisor from its start on; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Recording(Arc<Mutex<Recorded>>);

#[derive(Debug, Default)]
struct Recorded {
    config: Option<Config>,
    steps: Vec<Step>,
    /// How many steps were not recorded.
    left_out: u64,
}

#[derive(Debug)]
enum Step {
    /// The core restored this state.
    Restored(Box<State>),
    Heard(Box<Heard>),
}

/// An event and its effects.
#[derive(Debug)]
struct Heard {
    now: Time,
    event: Event,
    effects: Effects,
}

/// The size of a replayed recording.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Replayed {
    /// Events that the core handled.
    pub events: usize,
    /// Records that it proposed.
    pub proposals: usize,
    /// Actions that it requested.
    pub actions: usize,
}

impl Recording {
    pub(super) fn begin(&self, config: &Config) {
        let mut recorded = self.lock();
        *recorded = Recorded {
            config: Some(config.clone()),
            ..Recorded::default()
        };
    }

    pub(super) fn restored(&self, state: &State) {
        self.add(|| Step::Restored(Box::new(state.clone())));
    }

    pub(super) fn heard(&self, now: Time, event: Event, effects: &Effects) {
        let effects = effects.clone();
        self.add(|| {
            Step::Heard(Box::new(Heard {
                now,
                event,
                effects,
            }))
        });
    }

    /// Replays the events in a new core and compares their effects. If they differ, the supervisor used something
    /// that was not an event.
    ///
    /// # Errors
    /// The first difference, or why nothing can be compared.
    pub fn replay(&self) -> Result<Replayed, String> {
        let recorded = self.lock();
        let Some(config) = &recorded.config else {
            return Err("no supervisor was started with this recording".to_owned());
        };
        if recorded.left_out > 0 {
            let left_out = recorded.left_out;
            return Err(format!("the recording lacks its last {left_out} steps"));
        }
        let mut core = Supervisor::new(config.clone(), State::default());
        let mut replayed = Replayed::default();
        for (at, step) in recorded.steps.iter().enumerate() {
            let Heard {
                now,
                event,
                effects: expected,
            } = match step {
                Step::Restored(state) => {
                    core.restore((**state).clone());
                    continue;
                }
                Step::Heard(heard) => &**heard,
            };
            let mut effects = Effects::default();
            core.handle(*now, event.clone(), &mut effects);
            let checked = core.check();
            checked.map_err(|what| format!("after step {at}, {event:?}: {what}"))?;
            if effects != *expected {
                return Err(format!(
                    "step {at}, {event:?}, led to {expected:?}, and to {effects:?} when it was repeated"
                ));
            }
            replayed.events += 1;
            replayed.proposals += effects.proposals.len();
            replayed.actions += effects.actions.len();
        }
        Ok(replayed)
    }

    fn add(&self, step: impl FnOnce() -> Step) {
        let mut recorded = self.lock();
        if recorded.steps.len() < STEPS_MAX {
            recorded.steps.push(step());
        } else {
            recorded.left_out += 1;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Recorded> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
