//! What a machine's owner is doing, as far as anybody needs to know: the kind of an activity and nothing of its
//! content. Key codes, sound, titles and names have no place in these types, so that they cannot travel.

use crate::spec::CHECKPOINT_GRACE_MAX;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Duration;

/// A kind of activity that is not the grid's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Activity {
    /// Keys of a keyboard.
    Keyboard,
    /// A mouse's movement or buttons.
    Mouse,
    /// Any other pointer: touchpad, pointing stick, stylus, tablet, the pointer of a virtual machine.
    Pointer,
    /// A touchscreen.
    Touchscreen,
    /// Speech: the microphone in use by another program or, where the owner asked for it, a voice heard.
    Voice,
    /// Other programs at work beyond a threshold.
    Processes,
    /// Somebody logged in from elsewhere, or typing there.
    Remote,
    /// Input of which only that it happened is known.
    Input,
}

impl Activity {
    /// All kinds, in the order in which they are shown.
    pub const ALL: [Activity; 8] = [
        Activity::Keyboard,
        Activity::Mouse,
        Activity::Pointer,
        Activity::Touchscreen,
        Activity::Voice,
        Activity::Processes,
        Activity::Remote,
        Activity::Input,
    ];

    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Activity::Keyboard => "keyboard",
            Activity::Mouse => "mouse",
            Activity::Pointer => "pointer",
            Activity::Touchscreen => "touchscreen",
            Activity::Voice => "voice",
            Activity::Processes => "processes",
            Activity::Remote => "remote",
            Activity::Input => "input",
        }
    }

    /// Whether a hand does it, at this machine.
    pub fn is_input(self) -> bool {
        matches!(
            self,
            Activity::Keyboard
                | Activity::Mouse
                | Activity::Pointer
                | Activity::Touchscreen
                | Activity::Input
        )
    }

    /// Its place in [`Activity::ALL`].
    pub fn index(self) -> usize {
        self as usize
    }
}

impl fmt::Display for Activity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a machine's sources of activity say. Each is a fact about now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Signal {
    /// It happened just now.
    Seen(Activity),
    /// It lasts from now on, or is over.
    Lasting(Activity, bool),
    /// The session is locked, or open again.
    Locked(bool),
    /// Our own screensaver is shown, or is not any more.
    Saver(bool),
    /// The machine runs on its battery, or on mains power.
    Battery(bool),
    /// The network is paid for by what is sent, or is not.
    Metered(bool),
    /// Whether any source of input is watched. Without one nobody knows whether the owner is there.
    Watched(bool),
    /// Minutes since Monday 00:00 of the machine's local time.
    Clock(u32),
}

/// What a worker does about its owner, from nothing to most.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum OwnerResponse {
    /// It works as if nobody were there.
    #[default]
    Work,
    /// What runs goes on at the lowest priority; nothing new is taken.
    Lower,
    /// What runs is stopped where it is; nothing new is taken.
    Pause,
    /// What runs is given up; nothing new is taken.
    Vacate,
}

impl OwnerResponse {
    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            OwnerResponse::Work => "work",
            OwnerResponse::Lower => "lower",
            OwnerResponse::Pause => "pause",
            OwnerResponse::Vacate => "vacate",
        }
    }
}

/// Why a worker does not work as if nobody were there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Cause {
    /// An activity of its owner.
    Activity(Activity),
    /// No source of input: whether the owner is there cannot be known.
    Unwatched,
    /// The machine runs on its battery.
    Battery,
    /// The network is paid for by what is sent.
    Metered,
    /// The owner wants the machine at this time of the day.
    Hours,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cause::Activity(kind) => kind.fmt(f),
            Cause::Unwatched => f.write_str("no source of input"),
            Cause::Battery => f.write_str("battery"),
            Cause::Metered => f.write_str("metered network"),
            Cause::Hours => f.write_str("owner's hours"),
        }
    }
}

impl Cause {
    /// All causes, in the order in which they are told.
    pub const ALL: [Cause; 12] = [
        Cause::Activity(Activity::Keyboard),
        Cause::Activity(Activity::Mouse),
        Cause::Activity(Activity::Pointer),
        Cause::Activity(Activity::Touchscreen),
        Cause::Activity(Activity::Voice),
        Cause::Activity(Activity::Processes),
        Cause::Activity(Activity::Remote),
        Cause::Activity(Activity::Input),
        Cause::Unwatched,
        Cause::Battery,
        Cause::Metered,
        Cause::Hours,
    ];
}

/// How a worker stands to its owner, for the supervisor.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnerState {
    /// Counts the changes; a lower one is older news.
    pub change: u32,
    /// What the worker does.
    pub response: OwnerResponse,
    /// Why, at most one of each.
    pub why: Vec<Cause>,
    /// How long it has not worked as if nobody were there, by the worker's clock; zero while it does.
    pub away: Duration,
}

/// The same in few bytes, as each heartbeat repeats it, so that what a message told of and is held up on its way is known
/// with the next heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnerNote {
    /// As in [`OwnerState`].
    pub change: u32,
    /// As in [`OwnerState`].
    pub response: OwnerResponse,
    /// A bit for each of [`Cause::ALL`].
    pub why: u16,
    /// As in [`OwnerState`] when it changed, in milliseconds.
    pub away_ms: u32,
}

impl From<&OwnerState> for OwnerNote {
    fn from(state: &OwnerState) -> Self {
        let bit = |cause: &Cause| Cause::ALL.iter().position(|one| one == cause);
        let bits = state.why.iter().filter_map(bit);
        Self {
            change: state.change,
            response: state.response,
            why: bits.fold(0, |all, bit| all | 1 << bit),
            away_ms: u32::try_from(state.away.as_millis()).unwrap_or(u32::MAX),
        }
    }
}

impl From<OwnerNote> for OwnerState {
    fn from(note: OwnerNote) -> Self {
        let all = Cause::ALL.into_iter().enumerate();
        Self {
            change: note.change,
            response: note.response,
            why: all
                .filter(|(bit, _)| note.why & 1 << bit != 0)
                .map(|(_, cause)| cause)
                .collect(),
            away: Duration::from_millis(note.away_ms.into()),
        }
    }
}

/// Hours of the week, in minutes since Monday 00:00; may wrap around the week's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hours {
    /// The first minute.
    pub from: u32,
    /// The minute behind the last.
    pub to: u32,
}

/// Minutes of a week.
pub const WEEK_MIN: u32 = 7 * 24 * 60;

impl Hours {
    /// Whether a minute of the week lies within.
    pub fn contain(&self, minute: u32) -> bool {
        if self.from <= self.to {
            (self.from..self.to).contains(&minute)
        } else {
            minute >= self.from || minute < self.to
        }
    }
}

/// What a worker does about which activity, and how soon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnerRules {
    /// What each kind makes the worker do, in the order of [`Activity::ALL`].
    pub on: [OwnerResponse; Activity::ALL.len()],
    /// What it does where no source of input watches.
    pub unwatched: OwnerResponse,
    /// What it does on battery.
    pub battery: OwnerResponse,
    /// What it does on a network that is paid for by what is sent.
    pub metered: OwnerResponse,
    /// Hours in which the owner wants the machine whether or not anything happens.
    pub hours: Vec<Hours>,
    /// What it does in those.
    pub in_hours: OwnerResponse,
    /// How long nothing may happen until the worker goes on.
    pub resume_after: Duration,
    /// How long what runs stays paused until it is given up; never, where there is none.
    pub vacate_after: Option<Duration>,
    /// How long what is given up may go on at the lowest priority to write a last checkpoint, at most.
    pub checkpoint_grace: Duration,
}

impl Default for OwnerRules {
    /// At once out of the way of any activity; going on after 3 min of quiet (BOINC's default; HTCondor's is
    /// 5), giving up after 10 min of pause (HTCondor's; BOINC keeps what it has for ever). Nothing on battery,
    /// as with BOINC.
    fn default() -> Self {
        Self {
            on: [OwnerResponse::Pause; Activity::ALL.len()],
            unwatched: OwnerResponse::Pause,
            battery: OwnerResponse::Pause,
            metered: OwnerResponse::Pause,
            hours: Vec::new(),
            in_hours: OwnerResponse::Pause,
            resume_after: Duration::from_secs(3 * 60),
            vacate_after: Some(Duration::from_secs(10 * 60)),
            checkpoint_grace: Duration::from_secs(10),
        }
    }
}

impl OwnerRules {
    /// For a machine that is the grid's alone.
    pub fn dedicated() -> Self {
        Self {
            on: [OwnerResponse::Work; Activity::ALL.len()],
            unwatched: OwnerResponse::Work,
            battery: OwnerResponse::Work,
            metered: OwnerResponse::Work,
            hours: Vec::new(),
            in_hours: OwnerResponse::Work,
            resume_after: Duration::ZERO,
            vacate_after: None,
            checkpoint_grace: CHECKPOINT_GRACE_MAX,
        }
    }

    /// What an activity of this kind makes the worker do.
    pub fn of(&self, kind: Activity) -> OwnerResponse {
        self.on[kind.index()]
    }
}
