//! Input devices of the kernel: works under X, Wayland and at the console, and tells the kind.
//!
//! Needs the group `input` or root. Every device is classified as udev's `input_id` does it, by what it can do.

use crate::source::{Covers, Ended, Options, Outlet, Source, Trouble};
use evdev::{AbsoluteAxisCode, Device, EventType, KeyCode, PropType, RelativeAxisCode};
use hedge_model::owner::Activity;
use rustix::fs::inotify;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

const FOLDER: &str = "/dev/input";
/// Devices that are watched at most; a machine has a dozen.
const DEVICES_MAX: usize = 256;

/// What kernel devices there are.
struct Evdev {
    devices: Vec<(Activity, Device)>,
    /// Tells of devices that come, go, or may be opened from now on.
    changes: OwnedFd,
}

/// Opens every device that a person uses.
pub(crate) fn open(_: &Options) -> Result<Box<dyn Source>, Trouble> {
    let absent = |error: io::Error| Trouble::Absent(format!("{FOLDER}: {error}"));
    let entries = std::fs::read_dir(FOLDER).map_err(absent)?;
    // Before the devices are listed, so that none is missed between.
    let changes = changes().map_err(absent)?;
    let mut devices = Vec::new();
    let mut denied = 0;
    for entry in entries.flatten().take(DEVICES_MAX) {
        if !entry.file_name().as_encoded_bytes().starts_with(b"event") {
            continue;
        }
        match Device::open(entry.path()) {
            Ok(device) => {
                if let Some(kind) = kind(&device)
                    && device.set_nonblocking(true).is_ok()
                {
                    devices.push((kind, device));
                }
            }
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => denied += 1,
            Err(_) => {}
        }
    }
    if devices.is_empty() && denied > 0 {
        return Err(Trouble::Denied {
            why: format!("{denied} input devices in {FOLDER} may not be read by this user"),
            mend: "sudo usermod --append --groups input \"$USER\" (then log in again)".to_owned(),
        });
    }
    if devices.is_empty() {
        return Err(Trouble::Absent(format!(
            "no keyboard, pointer or touchscreen in {FOLDER}"
        )));
    }
    Ok(Box::new(Evdev { devices, changes }))
}

impl Source for Evdev {
    fn covers(&self) -> Covers {
        let mut kinds: Vec<_> = self.devices.iter().map(|(kind, _)| *kind).collect();
        kinds.sort_unstable();
        kinds.dedup();
        let count = self.devices.len();
        Covers {
            what: format!("{count} input devices of the kernel"),
            kinds,
        }
    }

    fn run(&mut self, out: &mut Outlet) -> Ended {
        loop {
            let fds: Vec<_> = std::iter::once(self.changes.as_fd())
                .chain(self.devices.iter().map(|(_, device)| device.as_fd()))
                .collect();
            if !out.wait(&fds, None) {
                return Ended::Stopped;
            }
            for (kind, device) in &mut self.devices {
                match device.fetch_events() {
                    // The code and value of an event are never looked at.
                    Ok(mut events) => {
                        if events.any(|event| by_hand(event.event_type())) {
                            out.seen(*kind);
                        }
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(_) => return Ended::Changed,
                }
            }
            let mut buffer = [0; 4096];
            if rustix::io::read(&self.changes, &mut buffer).is_ok_and(|read| read > 0) {
                return Ended::Changed;
            }
        }
    }
}

fn changes() -> io::Result<OwnedFd> {
    let flags = inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK;
    let changes = inotify::init(flags)?;
    let what =
        inotify::WatchFlags::CREATE | inotify::WatchFlags::DELETE | inotify::WatchFlags::ATTRIB;
    inotify::add_watch(&changes, FOLDER, what)?;
    Ok(changes)
}

/// Whether a hand makes such events; a lid, a lamp or a synchronisation is none.
fn by_hand(event: EventType) -> bool {
    [EventType::KEY, EventType::RELATIVE, EventType::ABSOLUTE].contains(&event)
}

/// What a person uses a device as; `None` for buttons of the case, jacks, lids and sensors of movement.
fn kind(device: &Device) -> Option<Activity> {
    let key = |key| {
        device
            .supported_keys()
            .is_some_and(|keys| keys.contains(key))
    };
    let rel = |axis| {
        device
            .supported_relative_axes()
            .is_some_and(|axes| axes.contains(axis))
    };
    let abs = |axis| {
        device
            .supported_absolute_axes()
            .is_some_and(|axes| axes.contains(axis))
    };
    let property = |property| device.properties().contains(property);
    classify(&Abilities {
        accelerometer: property(PropType::ACCELEROMETER),
        direct: property(PropType::DIRECT),
        pointing_stick: property(PropType::POINTING_STICK),
        stylus: key(KeyCode::BTN_STYLUS) || key(KeyCode::BTN_TOOL_PEN),
        finger: key(KeyCode::BTN_TOOL_FINGER),
        touch: key(KeyCode::BTN_TOUCH),
        left_button: key(KeyCode::BTN_LEFT),
        gamepad: key(KeyCode::BTN_SOUTH) || key(KeyCode::BTN_TRIGGER),
        letters: key(KeyCode::KEY_A) && key(KeyCode::KEY_Z),
        moves: rel(RelativeAxisCode::REL_X) && rel(RelativeAxisCode::REL_Y),
        position: abs(AbsoluteAxisCode::ABS_X) && abs(AbsoluteAxisCode::ABS_Y),
        multitouch: abs(AbsoluteAxisCode::ABS_MT_POSITION_X)
            && abs(AbsoluteAxisCode::ABS_MT_POSITION_Y),
    })
}

/// What a device can do, as far as that tells what it is.
#[derive(Clone, Copy, Default)]
struct Abilities {
    accelerometer: bool,
    direct: bool,
    pointing_stick: bool,
    stylus: bool,
    finger: bool,
    touch: bool,
    left_button: bool,
    gamepad: bool,
    letters: bool,
    moves: bool,
    position: bool,
    multitouch: bool,
}

/// In the order of udev's `input_id`.
fn classify(can: &Abilities) -> Option<Activity> {
    if can.accelerometer {
        return None;
    }
    if can.position || can.multitouch {
        let pad = can.finger && !can.direct;
        let absolute = can.position && can.left_button && !can.direct && !can.multitouch;
        return if can.stylus || pad || absolute {
            Some(Activity::Pointer)
        } else if can.touch || can.direct || can.multitouch {
            Some(Activity::Touchscreen)
        } else {
            // A stick that rests a little beside its middle talks for ever: only its buttons could be told.
            None
        };
    }
    if can.pointing_stick {
        Some(Activity::Pointer)
    } else if can.moves && can.left_button {
        Some(Activity::Mouse)
    } else if can.letters {
        Some(Activity::Keyboard)
    } else if can.gamepad {
        Some(Activity::Pointer)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Devices as the kernel describes them, by what real ones offer.
    #[test]
    fn devices_are_told_apart_as_udev_does() {
        let none = Abilities::default();
        let pad = Abilities {
            position: true,
            touch: true,
            ..none
        };
        let cases = [
            (
                "a keyboard",
                Abilities {
                    letters: true,
                    ..none
                },
                Some(Activity::Keyboard),
            ),
            ("a power button", none, None),
            (
                "a mouse",
                Abilities {
                    moves: true,
                    left_button: true,
                    ..none
                },
                Some(Activity::Mouse),
            ),
            (
                "a trackpoint",
                Abilities {
                    moves: true,
                    left_button: true,
                    pointing_stick: true,
                    ..none
                },
                Some(Activity::Pointer),
            ),
            (
                "a touchpad",
                Abilities {
                    finger: true,
                    left_button: true,
                    multitouch: true,
                    ..pad
                },
                Some(Activity::Pointer),
            ),
            (
                "a touchscreen",
                Abilities {
                    direct: true,
                    multitouch: true,
                    ..pad
                },
                Some(Activity::Touchscreen),
            ),
            (
                "a pen on glass",
                Abilities {
                    stylus: true,
                    direct: true,
                    ..pad
                },
                Some(Activity::Pointer),
            ),
            (
                "a virtual machine's tablet",
                Abilities {
                    position: true,
                    left_button: true,
                    ..none
                },
                Some(Activity::Pointer),
            ),
            (
                "a sensor of movement",
                Abilities {
                    accelerometer: true,
                    position: true,
                    ..none
                },
                None,
            ),
        ];
        for (what, can, kind) in cases {
            assert_eq!(classify(&can), kind, "{what}");
        }
    }
}
