//! Whether the network is paid for by what is sent, by NetworkManager's word.

use crate::bus::{self, Bus, Next, Object, Which};
use crate::source::{Covers, Ended, Options, Outlet, Source, Trouble};
use hedge_model::owner::Signal;

const MANAGER: Object<'_> = Object {
    service: "org.freedesktop.NetworkManager",
    path: "/org/freedesktop/NetworkManager",
    interface: "org.freedesktop.NetworkManager",
};

/// `NMMetered`: told to be metered, and guessed to be, as a telephone's link is.
const METERED: [u32; 2] = [1, 3];

struct Network {
    bus: Bus,
}

/// Finds NetworkManager.
pub(crate) fn open(_: &Options) -> Result<Box<dyn Source>, Trouble> {
    let mut bus = Bus::open(Which::System)?;
    if !bus.has(MANAGER.service) {
        return Err(Trouble::Absent(
            "NetworkManager does not run here: nobody knows whether the network is metered"
                .to_owned(),
        ));
    }
    let gone = bus::signal("org.freedesktop.DBus", "NameOwnerChanged").arg(0, MANAGER.service);
    for rule in [bus::changes(MANAGER.interface).build(), gone.build()] {
        bus.listen(rule).map_err(Trouble::Absent)?;
    }
    Ok(Box::new(Network { bus }))
}

impl Source for Network {
    fn covers(&self) -> Covers {
        Covers {
            what: "metered networks (NetworkManager)".to_owned(),
            kinds: Vec::new(),
        }
    }

    fn run(&mut self, out: &mut Outlet) -> Ended {
        let mut known = false;
        loop {
            let metered = self.bus.property::<u32>(MANAGER, "Metered");
            let now = metered.is_some_and(|value| METERED.contains(&value));
            if std::mem::replace(&mut known, now) != now {
                out.say(Signal::Metered(now));
            }
            if metered.is_none() {
                return Ended::Broken("NetworkManager is gone".to_owned());
            }
            match self.bus.next(out.stop(), None) {
                Next::Signal(_) | Next::TimedOut => {}
                Next::Stopped => return Ended::Stopped,
                Next::Closed => return Ended::Broken("the system's D-Bus is gone".to_owned()),
            }
        }
    }
}
