//! Settings of a grid: records, so that they do not change with the leader; text in the records, so that a
//! supervisor passes on what it does not know.

mod fields;
mod stored;
mod watch_mode;

use crate::PeerAddr;
use crate::ledger::Tariff;
use crate::view::SettingView;
use fields::{FIELDS, Field};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

pub use watch_mode::{Mode, WatchMode};

/// Longest interval of anything that is done again and again.
const TEN_MINUTES: Duration = Duration::from_secs(600);
/// Settings that are not known here and are kept for those who know them.
const UNKNOWN_MAX: usize = 256;

/// All settings of a grid, each with its default until somebody sets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How workers with nothing in hand are watched.
    pub watch_idle: WatchMode,
    /// How workers with attempts in hand are watched.
    pub watch_assigned: WatchMode,
    /// How workers with attempts of critical tasks in hand are watched.
    pub watch_critical: WatchMode,
    /// Heartbeats and answers a second that the leader takes in from the whole pool; beyond, intervals grow.
    pub heartbeats_per_second: u32,
    /// Silent for this many heartbeats a worker can be suspect: the floor of suspicion.
    pub suspect_heartbeats: u32,
    /// How unusual a gap must be to be suspicious, in standard deviations; 0 counts missing heartbeats alone.
    pub suspect_deviations: u32,
    /// A gap that is suspicious however irregular a worker is: the ceiling of suspicion.
    pub suspect_max: Duration,
    /// After this many missed heartbeats a worker can be declared dead; its attempts run elsewhere.
    pub dead_heartbeats: u32,
    /// No worker is declared dead after a shorter gap.
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
    /// How long a job that has ended is kept. Its age grows while a supervisor leads: a jump of the clock between two
    /// leaders counts for an hour at most.
    pub keep_jobs_for: Duration,
    /// Bytes that ended jobs take on a supervisor's disk: results, what tasks printed, and records. Beyond, the oldest
    /// are forgotten.
    pub keep_jobs_bytes: u64,
    /// Bytes that ended jobs take in a supervisor's memory, about. Beyond, the oldest are forgotten.
    pub keep_jobs_memory: u64,
    /// Silent for this long a voting supervisor is replaced by one that stands by.
    pub promote_after: Duration,
    /// Jobs of one client that have not ended.
    pub client_jobs: u32,
    /// Tasks of one client's jobs that have not ended.
    pub client_tasks: u64,
    /// Bytes of inputs of one client's jobs that have not ended.
    pub client_bytes: u64,
    /// Bytes of the descriptions of one client's jobs that have not ended; they are in each supervisor's memory.
    pub client_spec_bytes: u64,
    /// The share of the pool, in percent, that makes the higher class of workers.
    pub higher_percent: u32,
    /// What time and data cost in jobs that are accepted from now on.
    pub tariff: Arc<Tariff>,
    /// The grid's own relays: who and where. Without any, peers reach each other directly or not at all.
    pub relays: Arc<[PeerAddr]>,
    set: BTreeMap<Arc<str>, Arc<str>>,
}

impl Default for Settings {
    /// Watching: 50 ms × 3 heartbeats notice a frozen worker well within 250 ms; declared dead after a second, which is
    /// longer than any pause of a healthy process on a busy machine that was measured, and shorter than a
    /// person's patience; 10,000 heartbeats a second cost the leader about 6 % of a core. Content
    /// grace: 3 s, a restart of the process. Keeping: a month, 4 GiB of disk, which leaves room for running jobs on a
    /// disk of 10 GB, and 1 GiB of memory. Promotion: half
    /// a minute, longer than a restart. Limits of clients: far above what a person submits by hand.
    fn default() -> Self {
        Self {
            watch_idle: WatchMode::heartbeats(Duration::from_millis(500)),
            watch_assigned: WatchMode::heartbeats(Duration::from_millis(50)),
            watch_critical: WatchMode::heartbeats(Duration::from_millis(20)),
            heartbeats_per_second: 10_000,
            suspect_heartbeats: 3,
            suspect_deviations: 8,
            suspect_max: Duration::from_secs(5),
            dead_heartbeats: 10,
            dead_min: Duration::from_secs(1),
            progress_every: Duration::from_millis(500),
            stall_after: Duration::ZERO,
            min_link: 0,
            content_grace: Duration::from_secs(3),
            keep: 2,
            keep_jobs_for: Duration::from_secs(30 * 24 * 3600),
            keep_jobs_bytes: 4 << 30,
            keep_jobs_memory: 1 << 30,
            promote_after: Duration::from_secs(30),
            client_jobs: 10_000,
            client_tasks: 100_000_000,
            client_bytes: 1 << 40,
            client_spec_bytes: 1 << 30,
            higher_percent: 25,
            tariff: Arc::default(),
            relays: Arc::default(),
            set: BTreeMap::new(),
        }
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
        field.kind.set(&mut changed, value).map_err(wrong)?;
        if changed.suspect_heartbeats >= changed.dead_heartbeats {
            return Err(wrong(
                "suspect_heartbeats must be less than dead_heartbeats".into(),
            ));
        }
        changed.set.insert(field.name.into(), value.into());
        *self = changed;
        Ok(())
    }

    /// Takes over a committed setting; one that is not known or does not fit here is kept as it is, for
    /// supervisors that know it.
    pub fn apply(&mut self, name: &Arc<str>, value: &Arc<str>) {
        let (name, value) = stored::current(name, value);
        if self.set(&name, &value).is_err() && self.set.len() < UNKNOWN_MAX {
            self.set.insert(name, value);
        }
    }

    /// What was set, by name.
    pub fn changed(&self) -> &BTreeMap<Arc<str>, Arc<str>> {
        &self.set
    }

    /// All settings, for people.
    pub fn views(&self) -> Vec<SettingView> {
        let (mut own, mut default) = (self.clone(), Settings::default());
        let view = |field: &Field| SettingView {
            name: field.name.to_owned(),
            value: field.kind.get(&mut own),
            default: field.kind.get(&mut default),
            what: field.what.to_owned(),
        };
        FIELDS.iter().map(view).collect()
    }

    /// What each setting takes, as documentation in Markdown.
    pub fn markdown() -> String {
        let mut default = Settings::default();
        let code = |text: &str| match text {
            "" => "empty".to_owned(),
            text => format!("`{text}`"),
        };
        let row = |field: &Field| {
            let kind = &field.kind;
            format!(
                "| `{}` | {} | {} | {} | {} | {} |\n",
                field.name,
                kind.describe(),
                kind.unit(),
                code(&kind.get(&mut default)),
                code(field.example),
                field.what
            )
        };
        let rows: String = FIELDS.iter().map(row).collect();
        "| setting | type | unit | default | example | meaning |\n|---|---|---|---|---|---|\n"
            .to_owned()
            + &rows
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
            Settings::default().set("heartbeats", "1"),
            Err(SettingError::Unknown(_))
        ));
    }

    #[test]
    fn every_example_is_taken_and_differs_from_the_default() {
        for field in FIELDS {
            let mut settings = Settings::default();
            let set = settings.set(field.name, field.example);
            assert_eq!(set, Ok(()), "{}", field.name);
            let shown = field.kind.get(&mut settings);
            let default = field.kind.get(&mut Settings::default());
            assert!(shown != default, "{}", field.name);
        }
    }

    #[test]
    fn settings_survive_a_snapshot_and_unknown_ones_are_passed_on() {
        let mut settings = Settings::default();
        settings.set("dead_heartbeats", "3000").unwrap();
        settings.set("suspect_heartbeats", "900").unwrap();
        settings.apply(&"later".into(), &"7".into());
        let bytes = postcard::to_stdvec(&settings).unwrap();
        assert_eq!(postcard::from_bytes(&bytes), Ok(settings));
    }

    #[test]
    fn a_journal_of_earlier_names_is_read() {
        let mut settings = Settings::default();
        settings.apply(&"dead_beats".into(), &"30".into());
        settings.apply(&"suspect_beats".into(), &"20".into());
        settings.apply(&"watch_idle".into(), &"asks 40ms".into());
        assert_eq!(
            (settings.suspect_heartbeats, settings.dead_heartbeats),
            (20, 30)
        );
        assert_eq!(
            settings.watch_idle,
            WatchMode::poll(Duration::from_millis(40))
        );
        assert!(settings.changed().contains_key("dead_heartbeats"));
    }

    #[test]
    fn a_value_that_contradicts_another_changes_nothing() {
        let mut settings = Settings::default();
        assert!(settings.set("suspect_heartbeats", "10").is_err());
        assert_eq!(settings, Settings::default());
    }
}
