//! Mains or battery, as the kernel tells it.

use crate::source::{Covers, Ended, Options, Outlet, Source, Trouble};
use hedge_model::owner::Signal;
use std::path::Path;
use std::time::Duration;

const FOLDER: &str = "/sys/class/power_supply";
/// Between two looks: a plug is no emergency.
const LOOK_EVERY: Duration = Duration::from_secs(5);

struct Power;

/// Finds a supply that can be unplugged.
pub(crate) fn open(_: &Options) -> Result<Box<dyn Source>, Trouble> {
    match on_battery(Path::new(FOLDER)) {
        Some(_) => Ok(Box::new(Power)),
        None => Err(Trouble::Absent("this machine has no battery".to_owned())),
    }
}

impl Source for Power {
    fn covers(&self) -> Covers {
        Covers {
            what: "the battery".to_owned(),
            kinds: Vec::new(),
        }
    }

    fn run(&mut self, out: &mut Outlet) -> Ended {
        let mut known = false;
        loop {
            let Some(now) = on_battery(Path::new(FOLDER)) else {
                return Ended::Broken("the battery is gone".to_owned());
            };
            if now != known {
                known = now;
                out.say(Signal::Battery(now));
            }
            if !out.wait(&[], Some(LOOK_EVERY)) {
                return Ended::Stopped;
            }
        }
    }
}

/// Whether the machine runs on its battery; none where it has none. A battery that gives power while no mains
/// supply is online counts, those of mice and the like do not.
fn on_battery(folder: &Path) -> Option<bool> {
    let read = |path: &Path, name: &str| {
        let text = std::fs::read_to_string(path.join(name)).unwrap_or_default();
        text.trim().to_owned()
    };
    let (mut battery, mut discharging, mut mains) = (false, false, false);
    for entry in std::fs::read_dir(folder).ok()?.flatten() {
        let path = entry.path();
        match read(&path, "type").as_str() {
            "Battery" if read(&path, "scope") != "Device" => {
                battery = true;
                discharging |= read(&path, "status") == "Discharging";
            }
            "Mains" | "USB" => mains |= read(&path, "online") == "1",
            _ => {}
        }
    }
    battery.then_some(discharging && !mains)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_machines_own_battery_counts() {
        let folder = tempfile::tempdir().unwrap();
        let supply = |name: &str, files: &[(&str, &str)]| {
            let path = folder.path().join(name);
            std::fs::create_dir_all(&path).unwrap();
            for (file, text) in files {
                std::fs::write(path.join(file), format!("{text}\n")).unwrap();
            }
        };
        assert_eq!(on_battery(folder.path()), None);
        supply(
            "mouse",
            &[
                ("type", "Battery"),
                ("scope", "Device"),
                ("status", "Discharging"),
            ],
        );
        assert_eq!(on_battery(folder.path()), None);
        supply("BAT0", &[("type", "Battery"), ("status", "Discharging")]);
        assert_eq!(on_battery(folder.path()), Some(true));
        supply("AC", &[("type", "Mains"), ("online", "1")]);
        assert_eq!(on_battery(folder.path()), Some(false));
        supply("AC", &[("type", "Mains"), ("online", "0")]);
        assert_eq!(on_battery(folder.path()), Some(true));
    }
}
