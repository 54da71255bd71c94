//! Activity of a machine's owner: its kind and nothing of its content. These types have no place for key codes,
//! sound, titles or names, so that none can leave the machine.

use crate::spec::CHECKPOINT_GRACE_MAX;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Duration;

/// A kind of activity that does not come from the grid.
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
    /// Speech: another program uses the microphone or, if the owner allowed it, a voice was heard.
    Voice,
    /// Other programs that use more than a threshold.
    Processes,
    /// Somebody is logged in from elsewhere, or types there.
    Remote,
    /// Input of an unknown kind.
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

    /// Returns the name of the kind.
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

    /// Returns whether it is input by hand at this machine.
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

    /// Returns its position in [`Activity::ALL`].
    pub fn index(self) -> usize {
        self as usize
    }
}

impl fmt::Display for Activity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A report of a source of activity. It is true at present.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Signal {
    /// This activity happened just now.
    Seen(Activity),
    /// This activity lasts from now on, or is over.
    Lasting(Activity, bool),
    /// The session was locked, or unlocked.
    Locked(bool),
    /// Our own screensaver appeared, or disappeared.
    Saver(bool),
    /// The machine runs on battery, or on mains power.
    Battery(bool),
    /// The network is metered, or is not.
    Metered(bool),
    /// Whether any source of input is watched. Without one the owner's presence is unknown.
    Watched(bool),
    /// Minutes since Monday 00:00 of the machine's local time.
    Clock(u32),
}

/// A worker's response to its owner, from the weakest to the strongest.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum OwnerResponse {
    /// Run without restriction.
    #[default]
    Work,
    /// Run present attempts at the lowest priority and take no new ones.
    Lower,
    /// Suspend present attempts and take no new ones.
    Pause,
    /// Vacate present attempts and take no new ones.
    Vacate,
}

impl OwnerResponse {
    /// Returns the name of the response.
    pub fn name(self) -> &'static str {
        match self {
            OwnerResponse::Work => "work",
            OwnerResponse::Lower => "lower",
            OwnerResponse::Pause => "pause",
            OwnerResponse::Vacate => "vacate",
        }
    }
}

/// Why a worker does not run without restriction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Cause {
    /// An activity of its owner.
    Activity(Activity),
    /// No source of input is watched, so that the owner's presence is unknown.
    Unwatched,
    /// The machine runs on battery.
    Battery,
    /// The network is metered.
    Metered,
    /// The owner reserves the machine at this time.
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
    /// All causes, in the order in which they are shown.
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

/// A worker's response to its owner, as reported to the supervisor.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnerState {
    /// Counts the changes. A lower count is older.
    pub change: u32,
    /// The response.
    pub response: OwnerResponse,
    /// Its causes, each at most once.
    pub why: Vec<Cause>,
    /// How long the worker has been restricted, by its own clock; zero if it runs without restriction.
    pub away: Duration,
}

/// A short form of [`OwnerState`] that each heartbeat repeats. If the message about a change is delayed, the next
/// heartbeat reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnerNote {
    /// The value of [`OwnerState::change`].
    pub change: u32,
    /// The value of [`OwnerState::response`].
    pub response: OwnerResponse,
    /// A bit for each of [`Cause::ALL`].
    pub why: u16,
    /// The value of [`OwnerState::away`] at the change, in milliseconds.
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

/// A part of the week, in minutes since Monday 00:00. It may wrap around the week's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hours {
    /// The first minute.
    pub from: u32,
    /// The minute after the last.
    pub to: u32,
}

/// Minutes of a week.
pub const WEEK_MIN: u32 = 7 * 24 * 60;

impl Hours {
    /// Returns whether a minute of the week lies within.
    pub fn contain(&self, minute: u32) -> bool {
        if self.from <= self.to {
            (self.from..self.to).contains(&minute)
        } else {
            minute >= self.from || minute < self.to
        }
    }
}

/// The owner's rules: which activity leads to which response, and how soon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnerRules {
    /// The response to each kind, in the order of [`Activity::ALL`].
    pub on: [OwnerResponse; Activity::ALL.len()],
    /// The response if no source of input is watched.
    pub unwatched: OwnerResponse,
    /// The response on battery.
    pub battery: OwnerResponse,
    /// The response on a metered network.
    pub metered: OwnerResponse,
    /// Hours in which the owner reserves the machine, whether or not it is in use.
    pub hours: Vec<Hours>,
    /// The response in these hours.
    pub in_hours: OwnerResponse,
    /// How long there must be no activity before the worker resumes.
    pub resume_after: Duration,
    /// How long attempts stay paused before they are vacated; none means forever.
    pub vacate_after: Option<Duration>,
    /// How long a vacated attempt may continue, at the lowest priority, to write a last checkpoint.
    pub checkpoint_grace: Duration,
}

impl Default for OwnerRules {
    /// Yields at once to any activity, on battery (as BOINC) and on metered networks. Resumes after 3 min without
    /// activity (BOINC's default; HTCondor's is 5), and vacates after 10 min of pause (HTCondor's default; BOINC
    /// keeps paused tasks forever).
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
    /// Returns the rules of a machine that only the grid uses.
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

    /// Returns the response to an activity of this kind.
    pub fn of(&self, kind: Activity) -> OwnerResponse {
        self.on[kind.index()]
    }
}
