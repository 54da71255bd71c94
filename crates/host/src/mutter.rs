//! GNOME's own word on whether there is input (`org.gnome.Mutter.IdleMonitor`), which it gives under Wayland too,
//! without the kind.

use crate::bus::{self, Bus, Next, Object, Which};
use crate::source::{Covers, Ended, Options, Outlet, Source, Trouble};
use hedge_model::owner::Activity;

const MONITOR: Object<'_> = Object {
    service: "org.gnome.Mutter.IdleMonitor",
    path: "/org/gnome/Mutter/IdleMonitor/Core",
    interface: "org.gnome.Mutter.IdleMonitor",
};
/// Input is taken to be over after so long without any, milliseconds.
const IDLE_MS: u64 = 1_000;

struct Mutter {
    bus: Bus,
    idle: u32,
}

/// Finds it, and asks to be told of a second without input.
pub(crate) fn open(_: &Options) -> Result<Box<dyn Source>, Trouble> {
    let mut bus = Bus::open(Which::Session)?;
    if !bus.has(MONITOR.service) {
        return Err(Trouble::Absent("this desktop is not GNOME's".to_owned()));
    }
    // Before the watch is set, so that nothing is missed between.
    let opened = bus
        .listen(bus::signal(MONITOR.interface, "WatchFired").build())
        .and_then(|()| {
            let gone = bus::signal("org.freedesktop.DBus", "NameOwnerChanged");
            bus.listen(gone.arg(0, MONITOR.service).build())
        })
        .and_then(|()| watch(&bus, "AddIdleWatch", &(IDLE_MS,)));
    let idle = opened.map_err(Trouble::Absent)?;
    Ok(Box::new(Mutter { bus, idle }))
}

/// Sets a watch; its number.
fn watch<B: serde::Serialize + zbus::DynamicType>(
    bus: &Bus,
    method: &str,
    body: &B,
) -> Result<u32, String> {
    let answer = bus.call(MONITOR, method, body)?;
    let number = answer.body().deserialize();
    number.map_err(|error| format!("{}: {error}", MONITOR.service))
}

impl Source for Mutter {
    fn covers(&self) -> Covers {
        Covers {
            what: "input of any kind, by GNOME's word".to_owned(),
            kinds: vec![Activity::Input],
        }
    }

    fn run(&mut self, out: &mut Outlet) -> Ended {
        // One watch tells once of input; the other each time that there was none for a while.
        let mut active = match watch(&self.bus, "AddUserActiveWatch", &()) {
            Ok(number) => number,
            Err(why) => return Ended::Broken(why),
        };
        let quiet = self.bus.call(MONITOR, "GetIdletime", &());
        let quiet = quiet.map(|answer| answer.body().deserialize().unwrap_or(u64::MAX));
        out.lasting(Activity::Input, quiet.is_ok_and(|quiet| quiet < IDLE_MS));
        loop {
            match self.bus.next(out.stop(), None) {
                Next::Signal(signal) => {
                    let member = signal.header().member().map(ToString::to_string);
                    if member.as_deref() == Some("NameOwnerChanged") {
                        return Ended::Changed;
                    }
                    let fired: u32 = signal.body().deserialize().unwrap_or(0);
                    if fired == active {
                        out.lasting(Activity::Input, true);
                    } else if fired == self.idle {
                        out.lasting(Activity::Input, false);
                        active = match watch(&self.bus, "AddUserActiveWatch", &()) {
                            Ok(number) => number,
                            Err(why) => return Ended::Broken(why),
                        };
                    }
                }
                Next::TimedOut => {}
                Next::Stopped => return Ended::Stopped,
                Next::Closed => return Ended::Broken("the desktop's D-Bus is gone".to_owned()),
            }
        }
    }
}
