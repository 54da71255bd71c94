//! Input devices of the kernel: works under X, Wayland and at the console, and tells the kind.
//!
//! Needs the group `input` or root. Every device is classified as udev's `input_id` does it, by what it can do.

use crate::source::{Covers, Ended, Options, Outlet, Source, Trouble};
use hedge_model::owner::Activity;
use rustix::fs::{Mode, OFlags, inotify};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

const FOLDER: &str = "/dev/input";
/// Devices that are watched at most; a machine has a dozen.
const DEVICES_MAX: usize = 256;

/// What kernel devices there are.
struct Evdev {
    devices: Vec<(Activity, OwnedFd)>,
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
        match open_device(&entry.path()) {
            Ok(device) => devices.extend(kind(&device).map(|kind| (kind, device))),
            Err(rustix::io::Errno::ACCESS | rustix::io::Errno::PERM) => denied += 1,
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
            for (kind, device) in &self.devices {
                match touched(device) {
                    Ok(true) => out.seen(*kind),
                    Ok(false) => {}
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

fn open_device(path: &Path) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty())
}

/// Types of events and abilities, codes and properties, from the kernel's `input-event-codes.h`.
mod code {
    pub const KEY: u16 = 1;
    pub const REL: u16 = 2;
    pub const ABS: u16 = 3;
    pub const KEY_A: usize = 30;
    pub const KEY_Z: usize = 44;
    pub const BTN_LEFT: usize = 0x110;
    pub const BTN_TRIGGER: usize = 0x120;
    pub const BTN_SOUTH: usize = 0x130;
    pub const BTN_TOOL_PEN: usize = 0x140;
    pub const BTN_TOOL_FINGER: usize = 0x145;
    pub const BTN_TOUCH: usize = 0x14a;
    pub const BTN_STYLUS: usize = 0x14b;
    pub const X: usize = 0;
    pub const Y: usize = 1;
    pub const MT_X: usize = 0x35;
    pub const MT_Y: usize = 0x36;
    pub const DIRECT: usize = 1;
    pub const POINTING_STICK: usize = 5;
    pub const ACCELEROMETER: usize = 6;
}

/// Takes what a device has to say: whether a hand made any of it; a lid, a lamp or a synchronisation is none. The
/// code and value of an event are never looked at.
fn touched(device: &OwnedFd) -> io::Result<bool> {
    const EVENT: usize = size_of::<libc::input_event>();
    const TYPE: usize = std::mem::offset_of!(libc::input_event, type_);
    let mut buffer = [0; EVENT * 64];
    let mut any = false;
    loop {
        match rustix::io::read(device, &mut buffer) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => {
                any |= buffer[..read].chunks_exact(EVENT).any(|event| {
                    let kind = u16::from_ne_bytes([event[TYPE], event[TYPE + 1]]);
                    [code::KEY, code::REL, code::ABS].contains(&kind)
                });
                // What was read holds keys: it is not to lie about.
                buffer.fill(0);
                if read < EVENT * 64 {
                    return Ok(any);
                }
            }
            Err(rustix::io::Errno::WOULDBLOCK | rustix::io::Errno::INTR) => return Ok(any),
            Err(error) => return Err(error.into()),
        }
    }
}

/// A set of bits that the kernel tells of a device.
struct Bits([u8; 96]);

impl Bits {
    fn has(&self, bit: usize) -> bool {
        self.0
            .get(bit / 8)
            .is_some_and(|byte| byte >> (bit % 8) & 1 == 1)
    }

    /// Asks with `EVIOCGBIT` or `EVIOCGPROP`, by their numbers.
    fn ask(device: &OwnedFd, number: u16) -> Bits {
        const READ: u64 = 2 << 30;
        let mut bits = Bits([0; 96]);
        let request = READ | (bits.0.len() as u64) << 16 | u64::from(b'E') << 8 | u64::from(number);
        // SAFETY: the kernel writes at most as many bytes as the request says.
        unsafe { libc::ioctl(device.as_raw_fd(), request as _, bits.0.as_mut_ptr()) };
        bits
    }
}

/// What a person uses a device as; `None` for buttons of the case, jacks, lids and sensors of movement.
fn kind(device: &OwnedFd) -> Option<Activity> {
    const PROPERTIES: u16 = 0x09;
    const ABILITIES: u16 = 0x20;
    let keys = Bits::ask(device, ABILITIES + code::KEY);
    let rel = Bits::ask(device, ABILITIES + code::REL);
    let abs = Bits::ask(device, ABILITIES + code::ABS);
    let properties = Bits::ask(device, PROPERTIES);
    classify(&Abilities {
        accelerometer: properties.has(code::ACCELEROMETER),
        direct: properties.has(code::DIRECT),
        pointing_stick: properties.has(code::POINTING_STICK),
        stylus: keys.has(code::BTN_STYLUS) || keys.has(code::BTN_TOOL_PEN),
        finger: keys.has(code::BTN_TOOL_FINGER),
        touch: keys.has(code::BTN_TOUCH),
        left_button: keys.has(code::BTN_LEFT),
        gamepad: keys.has(code::BTN_SOUTH) || keys.has(code::BTN_TRIGGER),
        letters: keys.has(code::KEY_A) && keys.has(code::KEY_Z),
        moves: rel.has(code::X) && rel.has(code::Y),
        position: abs.has(code::X) && abs.has(code::Y),
        multitouch: abs.has(code::MT_X) && abs.has(code::MT_Y),
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

    /// A device, what it offers, and what it is.
    type Case = (&'static str, Abilities, Option<Activity>);

    /// Devices as the kernel describes them, by what real ones offer.
    #[test]
    fn devices_are_told_apart_as_udev_does() {
        let all = [keys_and_mice(), surfaces(), others()].concat();
        for (what, can, kind) in all {
            assert_eq!(classify(&can), kind, "{what}");
        }
    }

    /// What is pressed or moved.
    fn keys_and_mice() -> Vec<Case> {
        let none = Abilities::default();
        vec![
            (
                "a keyboard",
                Abilities {
                    letters: true,
                    ..none
                },
                Some(Activity::Keyboard),
            ),
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
        ]
    }

    /// What tells a position: touched by a finger or a pen, or a virtual machine's.
    fn surfaces() -> Vec<Case> {
        let none = Abilities::default();
        let pad = Abilities {
            position: true,
            touch: true,
            ..none
        };
        vec![
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
        ]
    }

    /// What nobody works with.
    fn others() -> Vec<Case> {
        let none = Abilities::default();
        vec![
            ("a power button", none, None),
            (
                "a sensor of movement",
                Abilities {
                    accelerometer: true,
                    position: true,
                    ..none
                },
                None,
            ),
        ]
    }
}
