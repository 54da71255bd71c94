//! Settings of a grid: records, so that they do not change with the leader; text in the records, so that a
//! supervisor passes on what it does not know.

use crate::PeerAddr;
use crate::ledger::Tariff;
use crate::units::{parse_bytes, parse_duration, parse_rate, show_bytes, show_rate};
use crate::view::SettingView;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Settings that are not known here and are kept for those who know them.
const UNKNOWN_MAX: usize = 256;

/// All settings of a grid, each with its default until somebody sets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How workers with nothing in hand are watched.
    pub watch_idle: Way,
    /// How workers with attempts in hand are watched.
    pub watch_assigned: Way,
    /// How workers with attempts of critical tasks in hand are watched.
    pub watch_critical: Way,
    /// Beats and answers a second that the leader takes in from the whole pool; beyond, intervals grow.
    pub beats_per_second: u32,
    /// Silent for this many beats a worker can be suspect: the floor of suspicion.
    pub suspect_beats: u32,
    /// How unusual a silence must be to be suspicious, in standard deviations; 0 counts missing beats alone.
    pub suspect_deviations: u32,
    /// A silence that is suspicious however irregular a worker is: the ceiling of suspicion.
    pub suspect_max: Duration,
    /// Silent for this many beats a worker can be given up; its attempts run elsewhere.
    pub dead_beats: u32,
    /// No worker is given up after a shorter silence.
    pub dead_min: Duration,
    /// How often workers look at the progress of their attempts.
    pub progress_every: Duration,
    /// An attempt without progress for so long is stalled and gets a copy; zero never looks.
    pub stall_after: Duration,
    /// Bits a second that a worker's link must carry in both directions, else it is given nothing; 0 takes all.
    pub min_link: u64,
    /// How long content of a worker that is gone is still counted on, before what made it runs again.
    pub content_grace: Duration,
    /// How many supervisors hold a job's inputs before it is accepted, and its results before it is done; all
    /// of them, where the group has fewer.
    pub keep: u32,
    /// How long a job that has ended is kept.
    pub keep_jobs_for: Duration,
    /// Bytes of results of ended jobs that are kept; beyond, the oldest are forgotten.
    pub keep_jobs_bytes: u64,
    /// Silent for this long a voting supervisor is replaced by one that stands by.
    pub promote_after: Duration,
    /// Jobs of one client that have not ended.
    pub client_jobs: u32,
    /// Tasks of one client's jobs that have not ended.
    pub client_tasks: u64,
    /// Bytes of inputs of one client's jobs that have not ended.
    pub client_bytes: u64,
    /// The share of the pool, in percent, that makes the higher class of workers.
    pub higher_percent: u32,
    /// What time and data cost in jobs that are accepted from now on.
    pub tariff: Arc<Tariff>,
    /// The grid's own relays: who and where. Without any, peers reach each other directly or not at all.
    pub relays: Arc<[PeerAddr]>,
    set: BTreeMap<Arc<str>, Arc<str>>,
}

impl Default for Settings {
    /// Watching: 50 ms × 3 beats notice a frozen worker well within 250 ms; given up after a second, which is
    /// longer than any pause of a healthy process on a busy machine that was measured, and shorter than a
    /// person's patience; 10,000 beats a second cost the leader about 6 % of a core. Content
    /// grace: 3 s, a restart of the process. Keeping: a month, and what fits on a small disk. Promotion: half
    /// a minute, longer than a restart. Limits of clients: far above what a person submits by hand.
    fn default() -> Self {
        Self {
            watch_idle: Way::beats(Duration::from_millis(500)),
            watch_assigned: Way::beats(Duration::from_millis(50)),
            watch_critical: Way::beats(Duration::from_millis(20)),
            beats_per_second: 10_000,
            suspect_beats: 3,
            suspect_deviations: 8,
            suspect_max: Duration::from_secs(5),
            dead_beats: 10,
            dead_min: Duration::from_secs(1),
            progress_every: Duration::from_millis(500),
            stall_after: Duration::ZERO,
            min_link: 0,
            content_grace: Duration::from_secs(3),
            keep: 2,
            keep_jobs_for: Duration::from_secs(30 * 24 * 3600),
            keep_jobs_bytes: 100 << 30,
            promote_after: Duration::from_secs(30),
            client_jobs: 10_000,
            client_tasks: 100_000_000,
            client_bytes: 1 << 40,
            higher_percent: 25,
            tariff: Arc::default(),
            relays: Arc::default(),
            set: BTreeMap::new(),
        }
    }
}

/// Who speaks first when a worker is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The worker beats by itself.
    Beats,
    /// The supervisor asks, the worker answers.
    Asks,
}

/// How to watch a worker. In text `"50ms"` for heartbeats, `"asks 50ms"` for questions and answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// Who speaks first.
    pub mode: Mode,
    /// How often, as long as the budget and the link allow it.
    pub interval: Duration,
}

impl Way {
    /// Shortest interval between two signs of life.
    pub const INTERVAL_MIN: Duration = Duration::from_micros(500);
    /// Longest interval between two signs of life.
    pub const INTERVAL_MAX: Duration = TEN_MINUTES;

    /// By heartbeats, so often.
    pub const fn beats(interval: Duration) -> Self {
        let mode = Mode::Beats;
        Self { mode, interval }
    }

    /// By questions, so often.
    pub const fn asks(interval: Duration) -> Self {
        let mode = Mode::Asks;
        Self { mode, interval }
    }
}

impl std::fmt::Display for Way {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.mode == Mode::Asks {
            f.write_str("asks ")?;
        }
        f.write_str(&span(self.interval))
    }
}

/// Why a setting was not changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingError {
    /// No such name.
    #[error("there is no setting {0:?}; `hedge config get` lists them all; nothing was changed")]
    Unknown(String),
    /// The value does not fit.
    #[error("{name} cannot be {value:?}: {why}; nothing was changed")]
    Value {
        /// The setting.
        name: &'static str,
        /// What was given.
        value: String,
        /// What is wrong.
        why: String,
    },
}

struct Field {
    name: &'static str,
    what: &'static str,
    get: fn(&Settings) -> String,
    set: fn(&mut Settings, &str) -> Result<(), String>,
}

const MILLISECOND: Duration = Duration::from_millis(1);
const TEN_MINUTES: Duration = Duration::from_secs(600);
const TEN_YEARS: Duration = Duration::from_secs(3650 * 24 * 3600);

const FIELDS: &[Field] = &[
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
        what: "how long ended jobs and their results are kept",
        get: |s| span(s.keep_jobs_for),
        set: |s, v| duration(&mut s.keep_jobs_for, v, Duration::ZERO, TEN_YEARS),
    },
    Field {
        name: "keep_jobs_bytes",
        what: "results of ended jobs that are kept; beyond, the oldest are forgotten",
        get: |s| show_bytes(s.keep_jobs_bytes),
        set: |s, v| bytes(&mut s.keep_jobs_bytes, v),
    },
    Field {
        name: "promote_after",
        what: "how long a voting supervisor is gone until one that stands by takes its place",
        get: |s| span(s.promote_after),
        set: |s, v| duration(&mut s.promote_after, v, MILLISECOND * 100, TEN_YEARS),
    },
    Field {
        name: "client_jobs",
        what: "jobs at once of one client",
        get: |s| s.client_jobs.to_string(),
        set: |s, v| number(&mut s.client_jobs, v, 0, u32::MAX),
    },
    Field {
        name: "client_tasks",
        what: "tasks at once of one client",
        get: |s| s.client_tasks.to_string(),
        set: |s, v| number(&mut s.client_tasks, v, 0, u64::MAX),
    },
    Field {
        name: "client_bytes",
        what: "bytes of inputs at once of one client",
        get: |s| show_bytes(s.client_bytes),
        set: |s, v| bytes(&mut s.client_bytes, v),
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

impl Settings {
    /// Changes one setting; `value` is text like in a job file (`"500ms"`, `"10 GiB"`, `"3"`).
    ///
    /// # Errors
    /// The name is not known, or the value does not fit; nothing is changed then.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), SettingError> {
        let field = FIELDS
            .iter()
            .find(|field| field.name == name)
            .ok_or_else(|| SettingError::Unknown(name.to_owned()))?;
        let mut changed = self.clone();
        let wrong = |why| SettingError::Value {
            name: field.name,
            value: value.to_owned(),
            why,
        };
        (field.set)(&mut changed, value).map_err(wrong)?;
        if changed.suspect_beats >= changed.dead_beats {
            return Err(wrong("suspect_beats must be less than dead_beats".into()));
        }
        changed.set.insert(field.name.into(), value.into());
        *self = changed;
        Ok(())
    }

    /// Takes over a committed setting; one that is not known or does not fit here is kept as it is, for
    /// supervisors that know it.
    pub fn apply(&mut self, name: &Arc<str>, value: &Arc<str>) {
        if self.set(name, value).is_err() && self.set.len() < UNKNOWN_MAX {
            self.set.insert(name.clone(), value.clone());
        }
    }

    /// What was set, by name.
    pub fn changed(&self) -> &BTreeMap<Arc<str>, Arc<str>> {
        &self.set
    }

    /// All settings, for people.
    pub fn views(&self) -> Vec<SettingView> {
        let default = Settings::default();
        let view = |field: &Field| SettingView {
            name: field.name.to_owned(),
            value: (field.get)(self),
            default: (field.get)(&default),
            what: field.what.to_owned(),
        };
        FIELDS.iter().map(view).collect()
    }
}

impl serde::Serialize for Settings {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.set.serialize(serializer)
    }
}

impl<'de> serde::Deserialize<'de> for Settings {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let set = BTreeMap::<Arc<str>, Arc<str>>::deserialize(deserializer)?;
        let mut settings = Settings::default();
        // Twice: one value may only fit beside another that comes later.
        for _ in 0..2 {
            set.iter()
                .for_each(|(name, value)| settings.apply(name, value));
        }
        Ok(settings)
    }
}

fn span(value: Duration) -> String {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_takes_its_own_text_form_and_refuses_nonsense() {
        for view in Settings::default().views() {
            let mut settings = Settings::default();
            assert_eq!(
                settings.set(&view.name, &view.value),
                Ok(()),
                "{}",
                view.name
            );
            assert!(
                settings.set(&view.name, "-1 potatoes").is_err(),
                "{}",
                view.name
            );
            assert_eq!(settings.views(), Settings::default().views());
        }
        assert!(matches!(
            Settings::default().set("beats", "1"),
            Err(SettingError::Unknown(_))
        ));
    }

    #[test]
    fn settings_survive_a_snapshot_and_unknown_ones_are_passed_on() {
        let mut settings = Settings::default();
        settings.set("dead_beats", "3000").unwrap();
        settings.set("suspect_beats", "900").unwrap();
        settings.apply(&"later".into(), &"7".into());
        let bytes = postcard::to_stdvec(&settings).unwrap();
        assert_eq!(postcard::from_bytes(&bytes), Ok(settings));
    }

    #[test]
    fn a_value_that_contradicts_another_changes_nothing() {
        let mut settings = Settings::default();
        assert!(settings.set("suspect_beats", "10").is_err());
        assert_eq!(settings, Settings::default());
    }
}
