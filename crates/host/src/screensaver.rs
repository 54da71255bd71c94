//! The desktop's screensaver or lock, over D-Bus: shown, the owner has gone; ended, the owner is back.

use crate::bus::{self, Bus, Next, Object, Which};
use crate::source::{Covers, Ended, Options, Outlet, Source, Trouble};
use hedge_model::owner::Signal;

/// What desktops call theirs: the name is also the interface. KDE and the specification use the first.
const SERVICES: [(&str, &str); 5] = [
    (
        "org.freedesktop.ScreenSaver",
        "/org/freedesktop/ScreenSaver",
    ),
    ("org.gnome.ScreenSaver", "/org/gnome/ScreenSaver"),
    ("org.cinnamon.ScreenSaver", "/org/cinnamon/ScreenSaver"),
    ("org.mate.ScreenSaver", "/org/mate/ScreenSaver"),
    ("org.xfce.ScreenSaver", "/org/xfce/ScreenSaver"),
];

struct ScreenSaver {
    bus: Bus,
    service: &'static str,
    path: &'static str,
}

/// Finds the first that is there.
pub(crate) fn open(_: &Options) -> Result<Box<dyn Source>, Trouble> {
    let mut bus = Bus::open(Which::Session)?;
    let there = SERVICES.into_iter().find(|(service, _)| bus.has(service));
    let Some((service, path)) = there else {
        return Err(Trouble::Absent(
            "the desktop tells of no screensaver over D-Bus".to_owned(),
        ));
    };
    bus.listen(bus::signal(service, "ActiveChanged").build())
        .map_err(Trouble::Absent)?;
    let gone = bus::signal("org.freedesktop.DBus", "NameOwnerChanged").arg(0, service);
    bus.listen(gone.build()).map_err(Trouble::Absent)?;
    Ok(Box::new(ScreenSaver { bus, service, path }))
}

impl Source for ScreenSaver {
    fn covers(&self) -> Covers {
        Covers {
            what: format!("the desktop's screensaver ({})", self.service),
            kinds: Vec::new(),
        }
    }

    fn run(&mut self, out: &mut Outlet) -> Ended {
        let object = Object {
            service: self.service,
            path: self.path,
            interface: self.service,
        };
        let answer = self.bus.call(object, "GetActive", &());
        let shown = answer.is_ok_and(|answer| answer.body().deserialize().unwrap_or(false));
        let mut known = false;
        let mut tell = |shown: bool| {
            if std::mem::replace(&mut known, shown) != shown {
                out.say(Signal::Locked(shown));
            }
        };
        tell(shown);
        loop {
            match self.bus.next(out.stop(), None) {
                Next::Signal(signal) => {
                    let member = signal.header().member().map(ToString::to_string);
                    if member.as_deref() == Some("NameOwnerChanged") {
                        tell(false);
                        return Ended::Changed;
                    }
                    tell(signal.body().deserialize().unwrap_or(false));
                }
                Next::TimedOut => {}
                Next::Stopped => return Ended::Stopped,
                Next::Closed => return Ended::Broken("the desktop's D-Bus is gone".to_owned()),
            }
        }
    }
}
