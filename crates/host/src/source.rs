//! What a source of activity is, and the only way out of one.

use crate::poll::{self, Stop};
use hedge_model::owner::{Activity, Signal};
use serde::Serialize;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Activity of one kind that goes on is told no more often than this: a mouse moves up to 8,000 times a second.
const REPEAT_MIN: Duration = Duration::from_millis(100);

/// What may be set about the sources.
#[derive(Clone, Debug)]
pub struct Options {
    /// The X display to watch; by default that of `DISPLAY`, else any that lets us in.
    pub display: Option<String>,
    /// Processor use of other programs that counts as activity, cores. 0.7 by default: a program that computes
    /// without pause reaches it, a browser that plays a film does not. BOINC takes a quarter of all cores,
    /// HTCondor a load of 0.3.
    pub foreign_cores: f64,
    /// Whether voices near the microphone count, which opens it. Not by default: that is the owner's to say.
    pub listen: bool,
    /// Sources that are not to be started, by name.
    pub without: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            display: None,
            foreign_cores: 0.7,
            listen: false,
            without: Vec::new(),
        }
    }
}

/// What left a source: the kind of an activity and its time.
#[derive(Clone, Copy, Debug)]
pub struct Notice {
    /// Which source.
    pub source: &'static str,
    /// What it says.
    pub signal: Signal,
    /// When it was noticed.
    pub at: Instant,
}

/// Why a source does not watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The machine does not have what it would watch; a sentence.
    Absent(String),
    /// The same, but it could have.
    Lacking {
        /// A sentence.
        why: String,
        /// What brings it.
        mend: String,
    },
    /// It is there, but this user may not.
    Denied {
        /// A sentence.
        why: String,
        /// The one command that mends it.
        mend: String,
    },
}

/// How a source stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase", tag = "state")]
pub enum State {
    /// It watches.
    Watching {
        /// What, for people.
        what: String,
        /// The kinds that it tells apart.
        kinds: Vec<Activity>,
    },
    /// It does not.
    Absent {
        /// Why.
        why: String,
        /// What would let it, where there is something.
        mend: Option<String>,
    },
    /// It may not.
    Denied {
        /// Why.
        why: String,
        /// The command that mends it.
        mend: String,
    },
}

impl From<Trouble> for State {
    fn from(trouble: Trouble) -> State {
        match trouble {
            Trouble::Absent(why) => State::Absent { why, mend: None },
            Trouble::Lacking { why, mend } => State::Absent {
                why,
                mend: Some(mend),
            },
            Trouble::Denied { why, mend } => State::Denied { why, mend },
        }
    }
}

/// What a source covers, once it is open.
pub(crate) struct Covers {
    pub what: String,
    pub kinds: Vec<Activity>,
}

/// One way to notice the owner.
pub(crate) trait Source: Send {
    /// What it watches now; asked for again after every change of devices.
    fn covers(&self) -> Covers;

    /// Watches until it is told to stop, or cannot go on, and says why.
    fn run(&mut self, out: &mut Outlet) -> Ended;
}

/// Why a source's run is over.
pub(crate) enum Ended {
    Stopped,
    /// What it watches has changed: open it again once the changes have settled (`CHANGES_SETTLE`).
    Changed,
    Broken(String),
}

/// How a source is opened.
pub(crate) type Open = fn(&Options) -> Result<Box<dyn Source>, Trouble>;

/// Takes what sources say; may wait, on the source's own thread.
pub(crate) type Hand = Arc<dyn Fn(Notice) + Send + Sync>;

/// The way out of a source.
pub(crate) struct Outlet {
    source: &'static str,
    hand: Hand,
    stop: Stop,
    seen: [Option<Instant>; Activity::ALL.len()],
    lasting: [bool; Activity::ALL.len()],
}

impl Outlet {
    pub fn new(source: &'static str, hand: Hand, stop: Stop) -> Outlet {
        Outlet {
            source,
            hand,
            stop,
            seen: Default::default(),
            lasting: Default::default(),
        }
    }

    /// An activity happened just now.
    pub fn seen(&mut self, kind: Activity) {
        let now = Instant::now();
        let last = &mut self.seen[kind.index()];
        if last.is_none_or(|last| now.duration_since(last) >= REPEAT_MIN) {
            *last = Some(now);
            self.say_at(Signal::Seen(kind), now);
        }
    }

    /// An activity lasts, or does not; only changes are told.
    pub fn lasting(&mut self, kind: Activity, lasts: bool) {
        let known = &mut self.lasting[kind.index()];
        if std::mem::replace(known, lasts) != lasts {
            self.say_at(Signal::Lasting(kind, lasts), Instant::now());
        }
    }

    /// What lasted by this source's word is not known to last any more.
    pub fn over(&mut self) {
        for kind in Activity::ALL {
            self.lasting(kind, false);
        }
    }

    /// Waits until one of the descriptors is readable, or so long; `false` where the source is to stop.
    pub fn wait(&self, fds: &[BorrowedFd<'_>], timeout: Option<Duration>) -> bool {
        poll::wait(&self.stop, fds, timeout)
    }

    /// What ends this source.
    pub fn stop(&self) -> &Stop {
        &self.stop
    }

    /// Says anything else; the source sees to it that only changes are told.
    pub fn say(&self, signal: Signal) {
        self.say_at(signal, Instant::now());
    }

    fn say_at(&self, signal: Signal, at: Instant) {
        (self.hand)(Notice {
            source: self.source,
            signal,
            at,
        });
    }
}
