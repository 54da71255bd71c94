//! The table of all settings, and the text form of their values.

use super::{Mode, Settings, TEN_MINUTES, Way};
use crate::PeerAddr;
use crate::ledger::Tariff;
use crate::units::{parse_bytes, parse_duration, parse_rate, show_bytes, show_rate};
use std::sync::Arc;
use std::time::Duration;

/// One setting: its name, what it is for, and its text form.
pub(super) struct Field {
    pub name: &'static str,
    pub what: &'static str,
    pub get: fn(&Settings) -> String,
    pub set: fn(&mut Settings, &str) -> Result<(), String>,
}

const MILLISECOND: Duration = Duration::from_millis(1);
const TEN_YEARS: Duration = Duration::from_secs(3650 * 24 * 3600);

pub(super) const FIELDS: &[Field] = &[
    Field {
        name: "watch_idle",
        what: "how workers with nothing to do are watched: \"500ms\" for heartbeats, \"asks 500ms\" for questions",
        get: |s| s.watch_idle.to_string(),
        set: |s, v| way(&mut s.watch_idle, v),
    },
    Field {
        name: "watch_assigned",
        what: "how workers with tasks are watched",
        get: |s| s.watch_assigned.to_string(),
        set: |s, v| way(&mut s.watch_assigned, v),
    },
    Field {
        name: "watch_critical",
        what: "how workers with critical tasks are watched",
        get: |s| s.watch_critical.to_string(),
        set: |s, v| way(&mut s.watch_critical, v),
    },
    Field {
        name: "beats_per_second",
        what: "beats of the whole pool that the leader takes in; beyond, intervals grow",
        get: |s| s.beats_per_second.to_string(),
        set: |s, v| number(&mut s.beats_per_second, v, 1, 10_000_000),
    },
    Field {
        name: "suspect_beats",
        what: "beats missed until a worker can be suspect",
        get: |s| s.suspect_beats.to_string(),
        set: |s, v| number(&mut s.suspect_beats, v, 1, 1000),
    },
    Field {
        name: "suspect_deviations",
        what: "standard deviations by which a suspicious silence exceeds a worker's usual ones; 0: beats alone",
        get: |s| s.suspect_deviations.to_string(),
        set: |s, v| number(&mut s.suspect_deviations, v, 0, 1000),
    },
    Field {
        name: "suspect_max",
        what: "silence that is suspicious however irregular a worker is",
        get: |s| span(s.suspect_max),
        set: |s, v| duration(&mut s.suspect_max, v, MILLISECOND, TEN_YEARS),
    },
    Field {
        name: "dead_beats",
        what: "beats missed until a worker can be given up",
        get: |s| s.dead_beats.to_string(),
        set: |s, v| number(&mut s.dead_beats, v, 2, 10_000),
    },
    Field {
        name: "dead_min",
        what: "no worker is given up after a shorter silence",
        get: |s| span(s.dead_min),
        set: |s, v| duration(&mut s.dead_min, v, MILLISECOND, TEN_YEARS),
    },
    Field {
        name: "progress_every",
        what: "how often workers look at the progress of their attempts",
        get: |s| span(s.progress_every),
        set: |s, v| duration(&mut s.progress_every, v, MILLISECOND, TEN_MINUTES),
    },
    Field {
        name: "stall_after",
        what: "time without progress after which a task gets a copy elsewhere; 0s: never",
        get: |s| span(s.stall_after),
        set: |s, v| duration(&mut s.stall_after, v, Duration::ZERO, TEN_YEARS),
    },
    Field {
        name: "min_link",
        what: "rate that a worker's link must carry both ways, like \"10 Mbit/s\"; slower ones get no tasks; none: any",
        get: |s| match s.min_link {
            0 => "none".to_owned(),
            rate => show_rate(rate),
        },
        set: |s, v| rate(&mut s.min_link, v),
    },
    Field {
        name: "content_grace",
        what: "how long data of a worker that is gone is still counted on",
        get: |s| span(s.content_grace),
        set: |s, v| duration(&mut s.content_grace, v, Duration::ZERO, TEN_MINUTES),
    },
    Field {
        name: "keep",
        what: "supervisors that hold inputs and results",
        get: |s| s.keep.to_string(),
        set: |s, v| number(&mut s.keep, v, 1, 7),
    },
    Field {
        name: "keep_jobs_for",
        what: "how long ended jobs and their results are kept, while a supervisor leads",
        get: |s| span(s.keep_jobs_for),
        set: |s, v| duration(&mut s.keep_jobs_for, v, Duration::ZERO, TEN_YEARS),
    },
    Field {
        name: "keep_jobs_bytes",
        what: "disk that ended jobs take on a supervisor, with results, logs and records; beyond, the oldest are \
               forgotten",
        get: |s| show_bytes(s.keep_jobs_bytes),
        set: |s, v| bytes(&mut s.keep_jobs_bytes, v),
    },
    Field {
        name: "keep_jobs_memory",
        what: "memory that ended jobs take on a supervisor; beyond, the oldest are forgotten",
        get: |s| show_bytes(s.keep_jobs_memory),
        set: |s, v| bytes(&mut s.keep_jobs_memory, v),
    },
    Field {
        name: "promote_after",
        what: "how long a voting supervisor is gone until one that stands by takes its place",
        get: |s| span(s.promote_after),
        set: |s, v| duration(&mut s.promote_after, v, MILLISECOND * 100, TEN_YEARS),
    },
    Field {
        name: "client_jobs",
        what: "jobs at once of all clients that joined by one ticket",
        get: |s| s.client_jobs.to_string(),
        set: |s, v| number(&mut s.client_jobs, v, 0, u32::MAX),
    },
    Field {
        name: "client_tasks",
        what: "tasks at once of all clients that joined by one ticket",
        get: |s| s.client_tasks.to_string(),
        set: |s, v| number(&mut s.client_tasks, v, 0, u64::MAX),
    },
    Field {
        name: "client_bytes",
        what: "bytes of inputs at once of all clients that joined by one ticket",
        get: |s| show_bytes(s.client_bytes),
        set: |s, v| bytes(&mut s.client_bytes, v),
    },
    Field {
        name: "client_spec_bytes",
        what: "bytes of job descriptions at once of all clients that joined by one ticket: each supervisor keeps them in memory",
        get: |s| show_bytes(s.client_spec_bytes),
        set: |s, v| bytes(&mut s.client_spec_bytes, v),
    },
    Field {
        name: "higher_percent",
        what: "share of the pool that makes the higher class of workers",
        get: |s| s.higher_percent.to_string(),
        set: |s, v| number(&mut s.higher_percent, v, 1, 100),
    },
    Field {
        name: "relay",
        what: "relays for peers that cannot be reached directly, each as `hedge relay` prints it; empty: none",
        get: |s| relays_text(&s.relays),
        set: |s, v| relays(&mut s.relays, v),
    },
    Field {
        name: "currency",
        what: "name of the currency in which jobs are charged",
        get: |s| s.tariff.currency.to_string(),
        set: |s, v| currency(&mut tariff(s).currency, v),
    },
    Field {
        name: "price_cpu_second",
        what: "a second of one CPU, in millionths of the currency",
        get: |s| s.tariff.normal.cpu_second.to_string(),
        set: |s, v| price(&mut tariff(s).normal.cpu_second, v),
    },
    Field {
        name: "price_higher_cpu_second",
        what: "a second of one CPU in the higher class, in millionths of the currency",
        get: |s| s.tariff.higher.cpu_second.to_string(),
        set: |s, v| price(&mut tariff(s).higher.cpu_second, v),
    },
    Field {
        name: "price_gib_second",
        what: "a second of one GiB of memory, in millionths of the currency",
        get: |s| s.tariff.normal.gib_second.to_string(),
        set: |s, v| price(&mut tariff(s).normal.gib_second, v),
    },
    Field {
        name: "price_higher_gib_second",
        what: "a second of one GiB of memory in the higher class, in millionths of the currency",
        get: |s| s.tariff.higher.gib_second.to_string(),
        set: |s, v| price(&mut tariff(s).higher.gib_second, v),
    },
    Field {
        name: "price_gib_moved",
        what: "a GiB moved, in millionths of the currency",
        get: |s| s.tariff.normal.gib_moved.to_string(),
        set: |s, v| price(&mut tariff(s).normal.gib_moved, v),
    },
    Field {
        name: "price_higher_gib_moved",
        what: "a GiB moved in the higher class, in millionths of the currency",
        get: |s| s.tariff.higher.gib_moved.to_string(),
        set: |s, v| price(&mut tariff(s).higher.gib_moved, v),
    },
    Field {
        name: "bill_redundant",
        what: "whether clients pay for copies that did not win",
        get: |s| s.tariff.bill_redundant.to_string(),
        set: |s, v| yes_or_no(&mut tariff(s).bill_redundant, v),
    },
    Field {
        name: "bill_lost",
        what: "whether clients pay for what failed or was lost",
        get: |s| s.tariff.bill_lost.to_string(),
        set: |s, v| yes_or_no(&mut tariff(s).bill_lost, v),
    },
];

pub(super) fn span(value: Duration) -> String {
    humantime::format_duration(value).to_string()
}

fn duration(field: &mut Duration, text: &str, min: Duration, max: Duration) -> Result<(), String> {
    let value = parse_duration(text).map_err(|error| error.to_string())?;
    if !(min..=max).contains(&value) {
        return Err(format!("it must be from {} to {}", span(min), span(max)));
    }
    *field = value;
    Ok(())
}

fn way(field: &mut Way, text: &str) -> Result<(), String> {
    let text = text.trim();
    let (mode, text) = match text.strip_prefix("asks ") {
        Some(rest) => (Mode::Asks, rest),
        None => (Mode::Beats, text),
    };
    let mut interval = Duration::ZERO;
    duration(&mut interval, text, Way::INTERVAL_MIN, Way::INTERVAL_MAX)?;
    *field = Way { mode, interval };
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

/// A peer uses one relay at a time; more than these are no use to it.
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

fn price(field: &mut u64, text: &str) -> Result<(), String> {
    number(field, text, 0, PRICE_MAX)
}

/// More than any machine costs: a thousand units of the currency a second.
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
