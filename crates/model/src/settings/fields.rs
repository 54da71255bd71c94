//! The table of all settings, and the text form of their values.

use super::{Settings, TEN_MINUTES, WatchMode};
use crate::PeerAddr;
use crate::ledger::Tariff;
use crate::units::{parse_bytes, parse_duration, parse_rate, show_bytes, show_rate};
use std::sync::Arc;
use std::time::Duration;

/// One setting: its name, its meaning, and its type.
pub(super) struct Field {
    pub name: &'static str,
    pub what: &'static str,
    /// A value that differs from the default.
    pub example: &'static str,
    pub kind: Kind,
}

/// Returns the setting's value within the settings.
type Of<T> = fn(&mut Settings) -> &mut T;

/// The type of a setting, with bounds, both included.
pub(super) enum Kind {
    WatchMode(Of<WatchMode>),
    Count(Of<u32>, u32, u32),
    Large(Of<u64>, u64, u64),
    Duration(Of<Duration>, Duration, Duration),
    Bytes(Of<u64>),
    Rate(Of<u64>),
    Price(Of<u64>),
    Flag(Of<bool>),
    Currency(Of<Arc<str>>),
    Relays(Of<Arc<[PeerAddr]>>),
}

impl Kind {
    /// Returns the value as text.
    pub fn get(&self, settings: &mut Settings) -> String {
        match self {
            Kind::WatchMode(of) => of(settings).to_string(),
            Kind::Count(of, ..) => of(settings).to_string(),
            Kind::Large(of, ..) | Kind::Price(of) => of(settings).to_string(),
            Kind::Duration(of, ..) => span(*of(settings)),
            Kind::Bytes(of) => show_bytes(*of(settings)),
            Kind::Rate(of) => match *of(settings) {
                0 => "none".to_owned(),
                rate => show_rate(rate),
            },
            Kind::Flag(of) => of(settings).to_string(),
            Kind::Currency(of) => of(settings).to_string(),
            Kind::Relays(of) => relays_text(of(settings)),
        }
    }

    /// Sets the value from text. The error says which values are valid.
    pub fn set(&self, settings: &mut Settings, text: &str) -> Result<(), String> {
        match self {
            Kind::WatchMode(of) => text.parse().map(|way| *of(settings) = way),
            Kind::Count(of, min, max) => number(of(settings), text, *min, *max),
            Kind::Large(of, min, max) => number(of(settings), text, *min, *max),
            Kind::Duration(of, min, max) => duration(of(settings), text, *min, *max),
            Kind::Bytes(of) => bytes(of(settings), text),
            Kind::Rate(of) => rate(of(settings), text),
            Kind::Price(of) => number(of(settings), text, 0, PRICE_MAX),
            Kind::Flag(of) => yes_or_no(of(settings), text),
            Kind::Currency(of) => currency(of(settings), text),
            Kind::Relays(of) => relays(of(settings), text),
        }
    }

    /// Describes the valid values, for the documentation.
    pub fn describe(&self) -> String {
        match self {
            Kind::WatchMode(_) => WatchMode::describe(),
            Kind::Count(_, min, u32::MAX) => format!("whole number from {min}"),
            Kind::Count(_, min, max) => format!("whole number, {min} to {max}"),
            Kind::Large(_, min, u64::MAX) => format!("whole number from {min}"),
            Kind::Large(_, min, max) => format!("whole number, {min} to {max}"),
            Kind::Duration(_, Duration::ZERO, TEN_YEARS) => "duration".to_owned(),
            Kind::Duration(_, min, TEN_YEARS) => format!("duration from {}", span(*min)),
            Kind::Duration(_, min, max) => format!("duration, {} to {}", span(*min), span(*max)),
            Kind::Bytes(_) => "amount".to_owned(),
            Kind::Rate(_) => "rate, or `none`".to_owned(),
            Kind::Price(_) => format!("whole number, 0 to {PRICE_MAX}"),
            Kind::Flag(_) => "`true` or `false`".to_owned(),
            Kind::Currency(_) => "word of at most 16 letters".to_owned(),
            Kind::Relays(_) => format!("at most {RELAYS_MAX} relays, with spaces between"),
        }
    }

    /// Returns the unit, for the documentation.
    pub fn unit(&self) -> &'static str {
        match self {
            Kind::WatchMode(_) => "`us`, `ms`, `s`, `min`",
            Kind::Duration(..) => "`ms`, `s`, `min`, `h`, `days`",
            Kind::Bytes(_) => "`B`, `KiB`, `MiB`, `GiB`, `TiB`, `kB`, `MB`, `GB`, `TB`",
            Kind::Rate(_) => "`bit/s`, `kbit/s`, `Mbit/s`, `Gbit/s`",
            Kind::Price(_) => "millionths of the currency",
            _ => "",
        }
    }
}

const MILLISECOND: Duration = Duration::from_millis(1);
const TEN_YEARS: Duration = Duration::from_secs(3650 * 24 * 3600);

pub(super) const FIELDS: &[Field] = &[
    Field {
        name: "watch_idle",
        what: "how workers with nothing to do are watched",
        example: "poll 500ms",
        kind: Kind::WatchMode(|s| &mut s.watch_idle),
    },
    Field {
        name: "watch_assigned",
        what: "how workers with tasks are watched",
        example: "20ms",
        kind: Kind::WatchMode(|s| &mut s.watch_assigned),
    },
    Field {
        name: "watch_critical",
        what: "how workers with critical tasks are watched",
        example: "5ms",
        kind: Kind::WatchMode(|s| &mut s.watch_critical),
    },
    Field {
        name: "heartbeats_per_second",
        what: "heartbeats of all workers that the leader takes in; intervals grow beyond that",
        example: "20000",
        kind: Kind::Count(|s| &mut s.heartbeats_per_second, 1, 10_000_000),
    },
    Field {
        name: "suspect_heartbeats",
        what: "heartbeats missed until a worker can be suspected",
        example: "5",
        kind: Kind::Count(|s| &mut s.suspect_heartbeats, 1, 1000),
    },
    Field {
        name: "suspect_deviations",
        what: "standard deviations by which a suspicious gap exceeds a worker's usual ones; 0: missed heartbeats alone",
        example: "6",
        kind: Kind::Count(|s| &mut s.suspect_deviations, 0, 1000),
    },
    Field {
        name: "suspect_max",
        what: "gap that is suspicious however irregular a worker is",
        example: "2s",
        kind: Kind::Duration(|s| &mut s.suspect_max, MILLISECOND, TEN_YEARS),
    },
    Field {
        name: "dead_heartbeats",
        what: "heartbeats missed until a worker can be declared dead",
        example: "20",
        kind: Kind::Count(|s| &mut s.dead_heartbeats, 2, 10_000),
    },
    Field {
        name: "dead_min",
        what: "no worker is declared dead after a shorter gap",
        example: "3s",
        kind: Kind::Duration(|s| &mut s.dead_min, MILLISECOND, TEN_YEARS),
    },
    Field {
        name: "progress_every",
        what: "how often workers look at the progress of their attempts",
        example: "2s",
        kind: Kind::Duration(|s| &mut s.progress_every, MILLISECOND, TEN_MINUTES),
    },
    Field {
        name: "stall_after",
        what: "time without progress after which a task gets a copy elsewhere; 0s: never",
        example: "5min",
        kind: Kind::Duration(|s| &mut s.stall_after, Duration::ZERO, TEN_YEARS),
    },
    Field {
        name: "min_link",
        what: "rate that a worker's link must carry both ways, like \"10 Mbit/s\"; slower ones get no tasks; none: any",
        example: "10 Mbit/s",
        kind: Kind::Rate(|s| &mut s.min_link),
    },
    Field {
        name: "content_grace",
        what: "how long data of a worker that is gone is still counted on",
        example: "10s",
        kind: Kind::Duration(|s| &mut s.content_grace, Duration::ZERO, TEN_MINUTES),
    },
    Field {
        name: "keep",
        what: "supervisors that hold inputs and results",
        example: "3",
        kind: Kind::Count(|s| &mut s.keep, 1, 7),
    },
    Field {
        name: "keep_jobs_for",
        what: "how long ended jobs and their results are kept, while a supervisor leads",
        example: "90days",
        kind: Kind::Duration(|s| &mut s.keep_jobs_for, Duration::ZERO, TEN_YEARS),
    },
    Field {
        name: "keep_jobs_bytes",
        what: "disk that ended jobs take on a supervisor, with results, logs and records; beyond, the oldest are \
               forgotten",
        example: "20 GiB",
        kind: Kind::Bytes(|s| &mut s.keep_jobs_bytes),
    },
    Field {
        name: "keep_jobs_memory",
        what: "memory that ended jobs take on a supervisor; beyond, the oldest are forgotten",
        example: "512 MiB",
        kind: Kind::Bytes(|s| &mut s.keep_jobs_memory),
    },
    Field {
        name: "promote_after",
        what: "how long a voting supervisor is gone until one that stands by takes its place",
        example: "2min",
        kind: Kind::Duration(
            |s| &mut s.promote_after,
            Duration::from_millis(100),
            TEN_YEARS,
        ),
    },
    Field {
        name: "client_jobs",
        what: "jobs at once of all clients that joined by one ticket",
        example: "100",
        kind: Kind::Count(|s| &mut s.client_jobs, 0, u32::MAX),
    },
    Field {
        name: "client_tasks",
        what: "tasks at once of all clients that joined by one ticket",
        example: "1000000",
        kind: Kind::Large(|s| &mut s.client_tasks, 0, u64::MAX),
    },
    Field {
        name: "client_bytes",
        what: "bytes of inputs at once of all clients that joined by one ticket",
        example: "100 GiB",
        kind: Kind::Bytes(|s| &mut s.client_bytes),
    },
    Field {
        name: "client_spec_bytes",
        what: "bytes of job descriptions at once of all clients that joined by one ticket: each supervisor keeps them in memory",
        example: "256 MiB",
        kind: Kind::Bytes(|s| &mut s.client_spec_bytes),
    },
    Field {
        name: "higher_percent",
        what: "share of the pool that makes the higher class of workers",
        example: "10",
        kind: Kind::Count(|s| &mut s.higher_percent, 1, 100),
    },
    Field {
        name: "relay",
        what: "relays for peers that cannot be reached directly, each as `hedge relay` prints it; empty: none",
        example: "1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f@203.0.113.7:7434",
        kind: Kind::Relays(|s| &mut s.relays),
    },
    Field {
        name: "currency",
        what: "name of the currency in which jobs are charged",
        example: "EUR",
        kind: Kind::Currency(|s| &mut tariff(s).currency),
    },
    Field {
        name: "price_cpu_second",
        what: "a second of one CPU, in millionths of the currency",
        example: "12",
        kind: Kind::Price(|s| &mut tariff(s).normal.cpu_second),
    },
    Field {
        name: "price_higher_cpu_second",
        what: "a second of one CPU in the higher class, in millionths of the currency",
        example: "30",
        kind: Kind::Price(|s| &mut tariff(s).higher.cpu_second),
    },
    Field {
        name: "price_gib_second",
        what: "a second of one GiB of memory, in millionths of the currency",
        example: "2",
        kind: Kind::Price(|s| &mut tariff(s).normal.gib_second),
    },
    Field {
        name: "price_higher_gib_second",
        what: "a second of one GiB of memory in the higher class, in millionths of the currency",
        example: "3",
        kind: Kind::Price(|s| &mut tariff(s).higher.gib_second),
    },
    Field {
        name: "price_gib_moved",
        what: "a GiB moved, in millionths of the currency",
        example: "10000",
        kind: Kind::Price(|s| &mut tariff(s).normal.gib_moved),
    },
    Field {
        name: "price_higher_gib_moved",
        what: "a GiB moved in the higher class, in millionths of the currency",
        example: "20000",
        kind: Kind::Price(|s| &mut tariff(s).higher.gib_moved),
    },
    Field {
        name: "bill_redundant",
        what: "whether clients pay for copies that did not win",
        example: "false",
        kind: Kind::Flag(|s| &mut tariff(s).bill_redundant),
    },
    Field {
        name: "bill_lost",
        what: "whether clients pay for what failed or was lost",
        example: "true",
        kind: Kind::Flag(|s| &mut tariff(s).bill_lost),
    },
];

pub(super) fn span(value: Duration) -> String {
    humantime::format_duration(value).to_string()
}

pub(super) fn duration(
    field: &mut Duration,
    text: &str,
    min: Duration,
    max: Duration,
) -> Result<(), String> {
    let value = parse_duration(text).map_err(|error| error.to_string())?;
    if !(min..=max).contains(&value) {
        return Err(format!("it must be from {} to {}", span(min), span(max)));
    }
    *field = value;
    Ok(())
}

fn number<T>(field: &mut T, text: &str, min: T, max: T) -> Result<(), String>
where
    T: std::str::FromStr + PartialOrd + std::fmt::Display,
{
    let value: T = text
        .trim()
        .parse()
        .map_err(|_| "it must be a whole number".to_owned())?;
    if value < min || value > max {
        return Err(format!("it must be from {min} to {max}"));
    }
    *field = value;
    Ok(())
}

/// The most relays. A peer uses one at a time; more would not help it.
const RELAYS_MAX: usize = 4;

fn relays(field: &mut Arc<[PeerAddr]>, text: &str) -> Result<(), String> {
    let all = text.split_whitespace().map(str::parse::<PeerAddr>);
    let all: Vec<PeerAddr> = all.collect::<Result<_, _>>()?;
    if all.len() > RELAYS_MAX {
        return Err(format!("it must be at most {RELAYS_MAX} relays"));
    }
    *field = all.into();
    Ok(())
}

fn relays_text(all: &[PeerAddr]) -> String {
    let texts: Vec<String> = all.iter().map(PeerAddr::to_string).collect();
    texts.join(" ")
}

fn rate(field: &mut u64, text: &str) -> Result<(), String> {
    *field = match text.trim() {
        "none" => 0,
        text => parse_rate(text).map_err(|error| error.to_string())?,
    };
    Ok(())
}

fn tariff(settings: &mut Settings) -> &mut Tariff {
    Arc::make_mut(&mut settings.tariff)
}

/// A limit above what any machine costs: a thousand units of the currency per second.
const PRICE_MAX: u64 = 1_000_000_000;

fn currency(field: &mut Arc<str>, text: &str) -> Result<(), String> {
    let text = text.trim();
    if !(1..=16).contains(&text.chars().count()) || !text.chars().all(char::is_alphabetic) {
        return Err("it must be a word of at most 16 letters".to_owned());
    }
    *field = text.into();
    Ok(())
}

fn yes_or_no(field: &mut bool, text: &str) -> Result<(), String> {
    *field = match text.trim() {
        "true" | "yes" => true,
        "false" | "no" => false,
        _ => return Err("it must be true or false".to_owned()),
    };
    Ok(())
}

fn bytes(field: &mut u64, text: &str) -> Result<(), String> {
    *field = parse_bytes(text).map_err(|error| error.to_string())?;
    Ok(())
}
