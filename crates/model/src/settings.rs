//! The settings of a grid. They are records, so that they do not change with the leader. Their values are stored as
//! text, so that a supervisor passes on settings that it does not know.

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

/// The longest interval of periodic actions.
const TEN_MINUTES: Duration = Duration::from_secs(600);
/// The most unknown settings that are kept for supervisors that know them.
const UNKNOWN_MAX: usize = 256;

/// All settings of a grid. Each has its default until it is set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How workers with nothing in hand are watched.
    pub watch_idle: WatchMode,
    /// How workers with attempts in hand are watched.
    pub watch_assigned: WatchMode,
    /// How workers with attempts of critical tasks in hand are watched.
    pub watch_critical: WatchMode,
    /// Heartbeats and answers per second that the leader accepts from the whole pool. Beyond it, the intervals grow.
    pub heartbeats_per_second: u32,
    /// A worker can be suspect only after this many missed heartbeats: the floor of suspicion.
    pub suspect_heartbeats: u32,
    /// A gap is suspicious if it exceeds a worker's mean gap by this many standard deviations. 0 counts missed
    /// heartbeats alone.
    pub suspect_deviations: u32,
    /// A gap of this length is suspicious however irregular a worker is: the ceiling of suspicion.
    pub suspect_max: Duration,
    /// A worker can be declared dead only after this many missed heartbeats. Its attempts then run elsewhere.
    pub dead_heartbeats: u32,
    /// No worker is declared dead after a shorter gap.
    pub dead_min: Duration,
    /// How often workers sample the progress of their attempts.
    pub progress_every: Duration,
    /// An attempt without progress for this long is stalled and gets a redundant attempt. Zero disables this.
    pub stall_after: Duration,
    /// Bits per second that a worker's link must carry in both directions to get tasks; 0 accepts any link.
    pub min_link: u64,
    /// How long the leader counts on the blobs of a worker that is gone before it repeats the tasks that made them.
    pub content_grace: Duration,
    /// Replication factor: how many supervisors hold a job's inputs before it is accepted, and its results before it
    /// is done. All of them, if the group is smaller.
    pub keep: u32,
    /// How long ended jobs are kept. Their age grows only while a supervisor leads: a jump of the clock between two
    /// leaders counts for at most an hour.
    pub keep_jobs_for: Duration,
    /// Bytes on a supervisor's disk for ended jobs: results, printed output and records. Beyond it, the oldest jobs
    /// are removed.
    pub keep_jobs_bytes: u64,
    /// Approximate bytes of a supervisor's memory for ended jobs. Beyond it, the oldest jobs are removed.
    pub keep_jobs_memory: u64,
    /// After this absence, a supervisor with a vote is replaced by one on standby.
    pub promote_after: Duration,
    /// Quota: jobs of one client that have not ended.
    pub client_jobs: u32,
    /// Quota: tasks in jobs of one client that have not ended.
    pub client_tasks: u64,
    /// Quota: bytes of inputs of one client's jobs that have not ended.
    pub client_bytes: u64,
    /// Quota: bytes of encoded specifications of one client's jobs that have not ended. Each supervisor keeps them in
    /// memory.
    pub client_spec_bytes: u64,
    /// The share of the pool, in percent, that forms the higher class of workers.
    pub higher_percent: u32,
    /// The prices of time and data for jobs accepted from now on.
    pub tariff: Arc<Tariff>,
    /// The grid's own relays. Without any, peers reach each other directly or not at all.
    pub relays: Arc<[PeerAddr]>,
    set: BTreeMap<Arc<str>, Arc<str>>,
}

impl Default for Settings {
    /// Failure detection: 3 missed heartbeats of 50 ms each notice a frozen worker well within 250 ms. A worker is
    /// declared dead after a second, which is longer than any measured pause of a healthy process on a busy machine.
    /// 10,000 heartbeats per second cost the leader about 6 % of a core. Content grace: 3 s, a restart of the
    /// process. Retention: a month, 1 GiB of memory, and 4 GiB of disk, which leaves space for running jobs on a disk
    /// of 10 GB. Promotion: half a minute, longer than a restart. Quotas: far above what a person submits by hand.
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
    /// The name is unknown.
    #[error("there is no setting {0:?}; `hedge config get` lists them all; nothing was changed")]
    Unknown(String),
    /// The value is not valid.
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
    /// Changes one setting. `value` is text as in a job file (`"500ms"`, `"10 GiB"`, `"3"`).
    ///
    /// # Errors
    /// The name is unknown or the value is not valid. Nothing was changed.
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

    /// Applies a committed setting. One that is unknown or not valid here is kept unchanged for supervisors that know
    /// it.
    pub fn apply(&mut self, name: &Arc<str>, value: &Arc<str>) {
        let (name, value) = stored::current(name, value);
        if self.set(&name, &value).is_err() && self.set.len() < UNKNOWN_MAX {
            self.set.insert(name, value);
        }
    }

    /// Returns the settings that were changed, by name.
    pub fn changed(&self) -> &BTreeMap<Arc<str>, Arc<str>> {
        &self.set
    }

    /// Returns all settings, for people.
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

    /// Returns the documentation of all settings as a Markdown table.
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
        // Twice, because one value may only be valid together with another that comes later.
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
