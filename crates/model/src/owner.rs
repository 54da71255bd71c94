//! What a machine's owner is doing, as far as anybody needs to know: the kind of an activity and nothing of its
//! content. Key codes, sound, titles and names have no place in these types, so that they cannot travel.

use serde::{Deserialize, Serialize};
use std::fmt;

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
