//! Decides when a worker yields to the owner of its machine, and when it resumes.
//!
//! It yields as soon as anything counts as activity, and resumes once nothing has for a while. Lasting conditions
//! (another busy program, battery power) apply for as long as they last. A worker that was paused for long vacates
//! its attempts, so that nothing stays paused forever.

use hedge_model::Time;
use hedge_model::owner::{
    Activity, Cause, OwnerResponse, OwnerRules, OwnerState, Signal, WEEK_MIN,
};
use std::time::Duration;

const KINDS: usize = Activity::ALL.len();
const MINUTE: Duration = Duration::from_secs(60);

/// What is known of the owner's activity, and the worker's response to it.
#[derive(Clone, Debug)]
pub struct Owner {
    rules: OwnerRules,
    seen: [Option<Time>; KINDS],
    /// For each kind of activity, how many sources report that it lasts.
    lasting: [u8; KINDS],
    watched: Option<bool>,
    battery: bool,
    metered: bool,
    /// A minute of the week, and when it began.
    clock: Option<(Time, u32)>,
    state: OwnerState,
    /// When it last began to yield; none before the first event.
    since: Option<Time>,
}

impl Owner {
    /// Starts without information. If input counts, the machine is assumed to be in use until a source says
    /// otherwise.
    pub fn new(rules: OwnerRules) -> Self {
        let mut owner = Self {
            rules,
            seen: [None; KINDS],
            lasting: [0; KINDS],
            watched: None,
            battery: false,
            metered: false,
            clock: None,
            state: OwnerState::default(),
            since: None,
        };
        (owner.state.response, owner.state.why) = owner.demanded_response(Time(0));
        owner
    }

    /// Handles a source's signal. Returns whether the worker's response or its causes changed.
    pub fn signal(&mut self, now: Time, signal: Signal) -> bool {
        match signal {
            Signal::Seen(kind) => self.seen[kind.index()] = Some(now),
            Signal::Lasting(kind, true) => {
                let count = &mut self.lasting[kind.index()];
                *count = count.saturating_add(1);
            }
            Signal::Lasting(kind, false) => {
                let count = &mut self.lasting[kind.index()];
                *count = count.saturating_sub(1);
                // It lasted until now.
                self.seen[kind.index()] = Some(now);
            }
            Signal::Locked(true) | Signal::Saver(true) => self.forget_input(),
            // Somebody unlocked the session or ended the screensaver.
            Signal::Locked(false) | Signal::Saver(false) => {
                self.seen[Activity::Input.index()] = Some(now);
            }
            Signal::Battery(on) => self.battery = on,
            Signal::Metered(on) => self.metered = on,
            Signal::Watched(any) => self.watched = Some(any),
            Signal::Clock(minute) => self.clock = Some((now, minute % WEEK_MIN)),
        }
        self.update(now)
    }

    /// Updates the response after time has passed. Returns whether the response or its causes changed.
    pub fn update(&mut self, now: Time) -> bool {
        let (mut response, why) = self.demanded_response(now);
        let was = self.state.response;
        if was == OwnerResponse::Work && response != OwnerResponse::Work {
            self.since = Some(now);
        }
        let since = *self.since.get_or_insert(now);
        let paused = response == OwnerResponse::Pause
            && matches!(was, OwnerResponse::Pause | OwnerResponse::Vacate);
        let long = self
            .rules
            .vacate_after
            .is_some_and(|after| now.since(since) >= after);
        if paused && (long || was == OwnerResponse::Vacate) {
            response = OwnerResponse::Vacate;
        }
        if (response, &why) == (was, &self.state.why) {
            return false;
        }
        self.state.change += 1;
        (self.state.response, self.state.why) = (response, why);
        true
    }

    /// Returns when [`Owner::update`] is due next.
    pub fn next_deadline(&self) -> Option<Time> {
        let mut next: Option<Time> = None;
        let mut at = |time: Time| next = Some(next.map_or(time, |known| known.min(time)));
        for (seen, response) in self.seen.iter().zip(&self.rules.on) {
            if let (Some(seen), true) = (seen, *response != OwnerResponse::Work) {
                at(*seen + self.rules.resume_after);
            }
        }
        if let (OwnerResponse::Pause, Some(after), Some(since)) =
            (self.state.response, self.rules.vacate_after, self.since)
        {
            at(since + after);
        }
        if let Some((since, _)) = self.clock.filter(|_| !self.rules.hours.is_empty()) {
            at(since + MINUTE);
        }
        next
    }

    /// Returns the worker's response to its owner.
    pub fn response(&self) -> OwnerResponse {
        self.state.response
    }

    /// Returns how long a vacated attempt may continue to save a checkpoint.
    pub fn checkpoint_grace(&self) -> Duration {
        self.rules.checkpoint_grace
    }

    /// Returns the state to report to the supervisor.
    pub fn state(&self, now: Time) -> OwnerState {
        let away = match self.state.response {
            OwnerResponse::Work => Duration::ZERO,
            _ => self.since.map_or(Duration::ZERO, |since| now.since(since)),
        };
        OwnerState {
            away,
            ..self.state.clone()
        }
    }

    /// Forgets earlier input, because the owner is known to have left.
    fn forget_input(&mut self) {
        for kind in Activity::ALL.into_iter().filter(|kind| kind.is_input()) {
            self.seen[kind.index()] = None;
        }
    }

    /// Returns the strongest response that the current conditions demand, and all conditions that demand one.
    fn demanded_response(&mut self, now: Time) -> (OwnerResponse, Vec<Cause>) {
        let mut asked: Vec<(OwnerResponse, Cause)> = Vec::new();
        for kind in Activity::ALL {
            let ix = kind.index();
            if self.seen[ix].is_some_and(|seen| now.since(seen) >= self.rules.resume_after) {
                self.seen[ix] = None;
            }
            if self.lasting[ix] > 0 || self.seen[ix].is_some() {
                asked.push((self.rules.of(kind), Cause::Activity(kind)));
            }
        }
        if self.watched != Some(true) {
            asked.push((self.rules.unwatched, Cause::Unwatched));
        }
        if self.battery {
            asked.push((self.rules.battery, Cause::Battery));
        }
        if self.metered {
            asked.push((self.rules.metered, Cause::Metered));
        }
        if let Some((since, minute)) = &mut self.clock {
            let passed = now.since(*since).as_secs() / MINUTE.as_secs();
            *since = *since + MINUTE * u32::try_from(passed).unwrap_or(u32::MAX);
            *minute = ((u64::from(*minute) + passed) % u64::from(WEEK_MIN)) as u32;
            let minute = *minute;
            if self.rules.hours.iter().any(|hours| hours.contain(minute)) {
                asked.push((self.rules.in_hours, Cause::Hours));
            }
        }
        let response = asked.iter().map(|(response, _)| *response).max();
        let response = response.unwrap_or_default();
        let why = asked
            .into_iter()
            .filter(|(asks, _)| *asks != OwnerResponse::Work)
            .map(|(_, cause)| cause)
            .collect();
        (response, why)
    }
}
