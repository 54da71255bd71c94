//! The file of a worker's owner: what counts as activity, and what the worker does about it.

use hedge_model::owner::{Activity, Hours, OwnerResponse, OwnerRules, WEEK_MIN};
use hedge_model::units::parse_duration;
use hedge_node::worker::OwnerConfig;
use serde::Deserialize;
use std::path::Path;

/// The file with every default and what it means.
pub const DEFAULTS: &str = include_str!("owner.toml");

/// Largest file that is read, bytes.
const BYTES_MAX: u64 = 1 << 20;
const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
const DAY_MIN: u32 = 24 * 60;

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
#[derive(Default)]
struct File {
    on: On,
    when: When,
    paused: Paused,
    sources: Sources,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Paused {
    free_memory: bool,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct On {
    keyboard: Option<OwnerResponse>,
    mouse: Option<OwnerResponse>,
    pointer: Option<OwnerResponse>,
    touchscreen: Option<OwnerResponse>,
    voice: Option<OwnerResponse>,
    processes: Option<OwnerResponse>,
    remote: Option<OwnerResponse>,
    input: Option<OwnerResponse>,
    unwatched: Option<OwnerResponse>,
    battery: Option<OwnerResponse>,
    metered: Option<OwnerResponse>,
    hours: Option<OwnerResponse>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct When {
    resume_after: Option<String>,
    vacate_after: Option<String>,
    checkpoint_grace: Option<String>,
    foreign_cores: Option<f64>,
    owner_hours: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Sources {
    without: Vec<String>,
    display: String,
    listen: bool,
}

/// Reads an owner's file.
///
/// # Errors
/// What is wrong with it, and what would be right.
pub fn read(path: &Path) -> Result<OwnerConfig, String> {
    use std::io::Read;
    let wrong = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let file = std::fs::File::open(path).map_err(|error| wrong(&error))?;
    let mut text = String::new();
    let read = file.take(BYTES_MAX).read_to_string(&mut text);
    read.map_err(|error| wrong(&error))?;
    parse(&text).map_err(|error| wrong(&error))
}

fn parse(text: &str) -> Result<OwnerConfig, String> {
    let file: File = toml::from_str(text).map_err(|error| error.to_string())?;
    let mut config = OwnerConfig::default();
    let (on, rules) = (file.on, &mut config.rules);
    for (kind, response) in [
        (Activity::Keyboard, on.keyboard),
        (Activity::Mouse, on.mouse),
        (Activity::Pointer, on.pointer),
        (Activity::Touchscreen, on.touchscreen),
        (Activity::Voice, on.voice),
        (Activity::Processes, on.processes),
        (Activity::Remote, on.remote),
        (Activity::Input, on.input),
    ] {
        rules.on[kind.index()] = response.unwrap_or(rules.on[kind.index()]);
    }
    rules.unwatched = on.unwatched.unwrap_or(rules.unwatched);
    rules.battery = on.battery.unwrap_or(rules.battery);
    rules.metered = on.metered.unwrap_or(rules.metered);
    rules.in_hours = on.hours.unwrap_or(rules.in_hours);
    when(file.when, &mut config)?;
    config.free_memory = file.paused.free_memory;
    config.sources.listen = file.sources.listen;
    config.sources.without = file.sources.without;
    config.sources.display = Some(file.sources.display).filter(|name| !name.is_empty());
    Ok(config)
}

fn when(when: When, config: &mut OwnerConfig) -> Result<(), String> {
    let duration = |text: &str| parse_duration(text).map_err(|error| error.to_string());
    let rules: &mut OwnerRules = &mut config.rules;
    if let Some(text) = when.resume_after {
        rules.resume_after = duration(&text)?;
    }
    match when.vacate_after.as_deref() {
        None => {}
        Some("never") => rules.vacate_after = None,
        Some(text) => rules.vacate_after = Some(duration(text)?),
    }
    if let Some(text) = when.checkpoint_grace {
        rules.checkpoint_grace = duration(&text)?;
    }
    if let Some(cores) = when.foreign_cores {
        if !(0.05..=4096.0).contains(&cores) {
            return Err(format!(
                "foreign_cores = {cores}: write a number of cores from 0.05 on"
            ));
        }
        config.sources.foreign_cores = cores;
    }
    for text in &when.owner_hours {
        let parsed = hours(text).ok_or_else(|| {
            format!("owner_hours: {text:?} is none; write them like \"Mon-Fri 08:00-18:00\"")
        })?;
        rules.hours.extend(parsed);
    }
    Ok(())
}

/// `Mon-Fri 08:00-18:00` as minutes of the week, a piece for each day; an end before the beginning is on the day
/// after.
fn hours(text: &str) -> Option<Vec<Hours>> {
    let (days, times) = text.trim().split_once(' ')?;
    let day = |name: &str| {
        let is = |known: &&str| known.eq_ignore_ascii_case(name);
        DAYS.iter().position(is).map(|at| at as u32)
    };
    let (first, last) = match days.split_once('-') {
        Some((first, last)) => (day(first)?, day(last)?),
        None => (day(days)?, day(days)?),
    };
    let minute = |text: &str| {
        let (hour, minute) = text.trim().split_once(':')?;
        let (hour, minute): (u32, u32) = (hour.parse().ok()?, minute.parse().ok()?);
        (hour <= 24 && minute < 60 && hour * 60 + minute <= DAY_MIN).then_some(hour * 60 + minute)
    };
    let (from, to) = times.split_once('-')?;
    let (from, to) = (minute(from)?, minute(to)?);
    let length = if to > from {
        to - from
    } else {
        to + DAY_MIN - from
    };
    let count = (last + 7 - first) % 7 + 1;
    let piece = |number: u32| {
        let from = ((first + number) % 7 * DAY_MIN + from) % WEEK_MIN;
        Hours {
            from,
            to: (from + length) % WEEK_MIN,
        }
    };
    Some((0..count).map(piece).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_of_defaults_says_the_defaults() {
        let (read, default) = (parse(DEFAULTS).unwrap(), OwnerConfig::default());
        assert_eq!(read.rules, default.rules);
        assert_eq!(
            format!("{:?}", read.sources),
            format!("{:?}", default.sources)
        );
        assert_eq!(read.free_memory, default.free_memory);
        assert!(parse("[paused]\nfree_memory = true").unwrap().free_memory);
    }

    #[test]
    fn the_file_of_defaults_has_every_option() {
        let names = |error: String| -> Vec<String> {
            let quoted = error.rsplit("expected").next().unwrap().split('`');
            let mut names: Vec<_> = quoted.skip(1).step_by(2).map(str::to_owned).collect();
            names.sort();
            names
        };
        let file: toml::Table = DEFAULTS.parse().unwrap();
        let keys = |table: &toml::Table| {
            let mut keys: Vec<_> = table.keys().cloned().collect();
            keys.sort();
            keys
        };
        assert_eq!(names(parse("none = 1").unwrap_err()), keys(&file));
        for (section, options) in &file {
            let error = parse(&format!("[{section}]\nnone = 1")).unwrap_err();
            assert_eq!(names(error), keys(options.as_table().unwrap()), "{section}");
        }
    }

    #[test]
    fn hours_are_days_and_times() {
        let day = DAY_MIN;
        assert_eq!(
            hours("Tue 08:00-18:30"),
            Some(vec![Hours {
                from: day + 480,
                to: day + 1110
            }])
        );
        assert_eq!(hours("Mon-Fri 08:00-18:00").unwrap().len(), 5);
        let night = hours("sun 22:00-06:00").unwrap();
        assert_eq!(
            night,
            [Hours {
                from: 6 * day + 1320,
                to: 360
            }]
        );
        for wrong in [
            "",
            "Mon",
            "Mon 8-18",
            "Moon 08:00-09:00",
            "Mon 25:00-26:00",
            "Mon 08:61-09:00",
        ] {
            assert_eq!(hours(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn mistakes_are_told() {
        for (text, says) in [
            ("[on]\nkeybord = \"pause\"", "keybord"),
            ("[on]\nmouse = \"stop\"", "stop"),
            ("[when]\nresume_after = \"3\"", "duration"),
            ("[when]\nforeign_cores = 0.0", "foreign_cores"),
            ("[when]\nowner_hours = [\"always\"]", "owner_hours"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
