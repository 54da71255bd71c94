//! An X display: raw events of XInput2, by the class of the device that made them.
//!
//! Works for each user who may open the display, without further rights. The key of an event is never read. Synthetic
//! input, which programs make with XTEST, counts as the owner's: remote desktops send theirs that way.
//! Under Wayland, Xwayland reports only its own windows, so this source reports `Absent`.

use crate::source::{Covers, Ended, Options, Outlet, Source, Trouble};
use hedge_model::owner::Activity;
use std::collections::{BTreeMap, HashMap};
use std::os::fd::AsFd;
use x11rb::connection::Connection;
use x11rb::errors::{ConnectError, ReplyError};
use x11rb::protocol::Event;
use x11rb::protocol::xinput::{
    ConnectionExt as _, Device, DeviceClassData, DeviceId, DeviceType, EventMask, TouchMode,
    XIDeviceInfo, XIEventMask,
};
use x11rb::protocol::xproto::{Atom, ConnectionExt as _};
use x11rb::rust_connection::RustConnection;

/// Where servers of this machine listen.
const SOCKETS: &str = "/tmp/.X11-unix";
/// Displays that are tried where none is named.
const DISPLAYS_MAX: usize = 8;
/// The version of XInput that has raw events of touches.
const XINPUT: (u16, u16) = (2, 2);

struct X11 {
    display: String,
    connection: RustConnection,
    devices: BTreeMap<DeviceId, Activity>,
}

/// Opens the display that is named, or the first that lets us in.
pub(crate) fn open(options: &Options) -> Result<Box<dyn Source>, Trouble> {
    let named = options
        .display
        .clone()
        .or_else(|| std::env::var("DISPLAY").ok());
    let named = named.filter(|name| !name.is_empty());
    let tried = match &named {
        Some(name) => vec![name.clone()],
        None => displays(),
    };
    let none = "no X display: DISPLAY is not set, and no X server of this machine was found";
    let mut trouble = Trouble::Absent(none.to_owned());
    for display in tried {
        match connect(&display) {
            Ok(opened) => return Ok(Box::new(opened)),
            // A denied display is reported in preference to an absent one, because the user can fix it.
            Err(_) if matches!(trouble, Trouble::Denied { .. }) => {}
            Err(error) => trouble = error,
        }
    }
    Err(trouble)
}

/// Returns the trouble behind a failed connection to a display.
fn open_error(display: &str, error: &ConnectError) -> Trouble {
    // The user at the display is let in by name, others by its cookie or by the word of that one.
    let refused = match error {
        ConnectError::SetupAuthenticate(_) => true,
        ConnectError::SetupFailed(failed) => {
            !String::from_utf8_lossy(&failed.reason).contains("Maximum number of clients")
        }
        _ => false,
    };
    if !refused {
        return Trouble::Absent(format!("X display {display}: {error}"));
    }
    let user = rustix::process::getuid().as_raw();
    Trouble::Denied {
        why: format!("X display {display} does not let this user in"),
        mend: format!("xhost +si:localuser:#{user} (as the user of that display)"),
    }
}

impl Source for X11 {
    fn covers(&self) -> Covers {
        let mut kinds: Vec<_> = self.devices.values().copied().collect();
        kinds.sort_unstable();
        kinds.dedup();
        Covers {
            what: format!("X display {}", self.display),
            kinds,
        }
    }

    fn run(&mut self, out: &mut Outlet) -> Ended {
        loop {
            // Handle all pending events before waiting: the connection may have read ahead.
            loop {
                match self.connection.poll_for_event() {
                    Ok(Some(event)) => match input_event(&event) {
                        InputEvent::Device(source) => {
                            if let Some(kind) = self.devices.get(&source) {
                                out.seen(*kind);
                            }
                        }
                        InputEvent::Touch(source) => {
                            let kind = self.devices.get(&source);
                            out.seen(kind.copied().unwrap_or(Activity::Touchscreen));
                        }
                        InputEvent::Changed => return Ended::Changed,
                        InputEvent::Nothing => {}
                    },
                    Ok(None) => break,
                    Err(error) => {
                        return Ended::Broken(format!("X display {}: {error}", self.display));
                    }
                }
            }
            if !out.wait(&[self.connection.stream().as_fd()], None) {
                return Ended::Stopped;
            }
        }
    }
}

/// The part of an event that matters here.
enum InputEvent {
    Device(DeviceId),
    Touch(DeviceId),
    Changed,
    Nothing,
}

fn input_event(event: &Event) -> InputEvent {
    match event {
        Event::XinputRawKeyPress(event) | Event::XinputRawKeyRelease(event) => {
            InputEvent::Device(event.sourceid)
        }
        Event::XinputRawButtonPress(event) | Event::XinputRawButtonRelease(event) => {
            InputEvent::Device(event.sourceid)
        }
        Event::XinputRawMotion(event) => InputEvent::Device(event.sourceid),
        Event::XinputRawTouchBegin(event)
        | Event::XinputRawTouchUpdate(event)
        | Event::XinputRawTouchEnd(event) => InputEvent::Touch(event.sourceid),
        Event::XinputHierarchy(_) => InputEvent::Changed,
        _ => InputEvent::Nothing,
    }
}

fn displays() -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(SOCKETS) else {
        return Vec::new();
    };
    let number = |name: String| name.strip_prefix('X')?.parse::<u32>().ok();
    let mut numbers: Vec<u32> = entries
        .flatten()
        .filter_map(|entry| number(entry.file_name().into_string().ok()?))
        .collect();
    numbers.sort_unstable();
    let shown = numbers.into_iter().take(DISPLAYS_MAX);
    shown.map(|number| format!(":{number}")).collect()
}

fn connect(display: &str) -> Result<X11, Trouble> {
    let (connection, screen) =
        RustConnection::connect(Some(display)).map_err(|error| open_error(display, &error))?;
    let absent = |why: String| Trouble::Absent(format!("X display {display}: {why}"));
    select_events(display, connection, screen).map_err(absent)
}

fn select_events(display: &str, connection: RustConnection, screen: usize) -> Result<X11, String> {
    let root = connection.setup().roots[screen].root;
    let failed = |error: ReplyError| error.to_string();
    let xwayland = connection
        .query_extension(b"XWAYLAND")
        .map_err(|error| failed(error.into()))?
        .reply()
        .map_err(failed)?;
    if xwayland.present {
        return Err("belongs to a Wayland session and reports only its own windows".to_owned());
    }
    let listen = || -> Result<BTreeMap<DeviceId, Activity>, ReplyError> {
        connection
            .xinput_xi_query_version(XINPUT.0, XINPUT.1)?
            .reply()?;
        // Before the devices are asked for, so that no change is missed between.
        let masks = [
            EventMask {
                deviceid: Device::ALL_MASTER.into(),
                mask: vec![
                    XIEventMask::RAW_KEY_PRESS
                        | XIEventMask::RAW_KEY_RELEASE
                        | XIEventMask::RAW_BUTTON_PRESS
                        | XIEventMask::RAW_BUTTON_RELEASE
                        | XIEventMask::RAW_MOTION
                        | XIEventMask::RAW_TOUCH_BEGIN
                        | XIEventMask::RAW_TOUCH_UPDATE
                        | XIEventMask::RAW_TOUCH_END,
                ],
            },
            EventMask {
                deviceid: Device::ALL.into(),
                mask: vec![XIEventMask::HIERARCHY],
            },
        ];
        connection.xinput_xi_select_events(root, &masks)?.check()?;
        devices(&connection)
    };
    let devices = listen().map_err(|error| format!("no raw events of XInput 2.2: {error}"))?;
    Ok(X11 {
        display: display.to_owned(),
        connection,
        devices,
    })
}

fn devices(connection: &RustConnection) -> Result<BTreeMap<DeviceId, Activity>, ReplyError> {
    let infos = connection
        .xinput_xi_query_device(bool::from(Device::ALL))?
        .reply()?
        .infos;
    let mut names = HashMap::new();
    let mut devices = BTreeMap::new();
    for info in infos {
        let kind = match info.type_ {
            DeviceType::SLAVE_KEYBOARD => Activity::Keyboard,
            DeviceType::SLAVE_POINTER => pointer(connection, &info, &mut names)?,
            _ => continue,
        };
        devices.insert(info.deviceid, kind);
    }
    Ok(devices)
}

/// What kind of pointer a device is, by its classes, the names of its axes and, for sticks, its own.
fn pointer(
    connection: &RustConnection,
    info: &XIDeviceInfo,
    names: &mut HashMap<Atom, Vec<u8>>,
) -> Result<Activity, ReplyError> {
    let mut axes = Vec::new();
    let mut touch = None;
    for class in &info.classes {
        match &class.data {
            DeviceClassData::Touch(class) => touch = Some(class.mode == TouchMode::DIRECT),
            DeviceClassData::Valuator(axis) if axis.label != 0 => {
                let name = match names.get(&axis.label) {
                    Some(name) => name.clone(),
                    None => {
                        let name = connection.get_atom_name(axis.label)?.reply()?.name;
                        names.insert(axis.label, name.clone());
                        name
                    }
                };
                axes.push(name);
            }
            _ => {}
        }
    }
    let axes: Vec<&[u8]> = axes.iter().map(Vec::as_slice).collect();
    Ok(classify(touch, &axes, &info.name.to_ascii_lowercase()))
}

/// `touch`: whether touches are where the finger is, or on a pad beside; `None` without touches.
fn classify(touch: Option<bool>, axes: &[&[u8]], name: &[u8]) -> Activity {
    let has = |axis: &[u8]| axes.contains(&axis);
    let called = |word: &str| name.windows(word.len()).any(|part| part == word.as_bytes());
    let stick = called("trackpoint") || called("pointing stick") || called("touchpad");
    let stylus = has(b"Abs Tilt X") || has(b"Abs Pressure") || called("stylus") || called("pen");
    match touch {
        Some(true) => Activity::Touchscreen,
        Some(false) => Activity::Pointer,
        None if stick || stylus => Activity::Pointer,
        None if has(b"Abs X") && !has(b"Rel X") => Activity::Pointer,
        None => Activity::Mouse,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pointers_are_told_apart() {
        let rel: &[&[u8]] = &[b"Rel X", b"Rel Y"];
        let abs: &[&[u8]] = &[b"Abs X", b"Abs Y"];
        let pen: &[&[u8]] = &[b"Abs X", b"Abs Y", b"Abs Pressure", b"Abs Tilt X"];
        let cases = [
            (None, rel, "usb optical mouse", Activity::Mouse),
            (None, rel, "tpps/2 ibm trackpoint", Activity::Pointer),
            (Some(false), rel, "synaptics touchpad", Activity::Pointer),
            (Some(true), abs, "elan touchscreen", Activity::Touchscreen),
            (None, pen, "wacom intuos", Activity::Pointer),
            (None, abs, "qemu usb tablet", Activity::Pointer),
            (None, rel, "virtual core xtest pointer", Activity::Mouse),
        ];
        for (touch, axes, name, kind) in cases {
            assert_eq!(classify(touch, axes, name.as_bytes()), kind, "{name}");
        }
    }
}
