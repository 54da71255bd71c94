//! When a worker gets out of its owner's way, and when it comes back: a machine of its own.
//!
//! It yields the moment anything counts, and goes on when nothing has counted for a while. What lasts (another
//! program at work, the battery) holds it for as long as it lasts. Paused for long, it gives up what it has, so
//! that nothing is paused for ever.

use hedge_model::Time;
use hedge_model::owner::{
    Activity, Cause, OwnerResponse, OwnerRules, OwnerState, Signal, WEEK_MIN,
};
use std::time::Duration;

const KINDS: usize = Activity::ALL.len();
const MINUTE: Duration = Duration::from_secs(60);

/// How a worker stands to its owner.
#[derive(Clone, Debug)]
pub struct Owner {
    rules: OwnerRules,
    seen: [Option<Time>; KINDS],
    /// How many sources say of each kind that it lasts.
    lasting: [u8; KINDS],
    watched: Option<bool>,
    battery: bool,
    metered: bool,
    /// A minute of the week, and when it was that.
    clock: Option<(Time, u32)>,
    state: OwnerState,
    /// Since when it has not worked as if nobody were there; none before the first event.
    since: Option<Time>,
}

impl Owner {
    /// Nothing is known yet: where input counts, the machine is taken to be in use until a source says otherwise.
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
        (owner.state.response, owner.state.why) = owner.due(Time(0));
        owner
    }

    /// Takes what a source says; whether that changed how the worker stands.
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
                // It was there until now.
                self.seen[kind.index()] = Some(now);
            }
            Signal::Locked(true) | Signal::Saver(true) => self.left(),
            // Somebody opened the session, or ended the screensaver.
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

    /// Time has passed; whether that changed how the worker stands.
    pub fn update(&mut self, now: Time) -> bool {
        let (mut response, why) = self.due(now);
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

    /// When [`Owner::update`] is due next.
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

    /// How the worker stands.
    pub fn response(&self) -> OwnerResponse {
        self.state.response
    }

    /// How long an attempt that is given up may go on to save how far it is.
    pub fn checkpoint_grace(&self) -> Duration {
        self.rules.checkpoint_grace
    }

    /// The same, for the supervisor.
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

    /// The owner is known to have gone: what hands did before counts no more.
    fn left(&mut self) {
        for kind in Activity::ALL.into_iter().filter(|kind| kind.is_input()) {
            self.seen[kind.index()] = None;
        }
    }

    /// What all that is known asks for now, and the reasons of whatever asks for most.
    fn due(&mut self, now: Time) -> (OwnerResponse, Vec<Cause>) {
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
