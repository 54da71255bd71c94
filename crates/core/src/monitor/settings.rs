//! Settings of the failure detector, and how the budget stretches the intervals.

use hedge_model::settings::{self, WatchMode};
use std::time::Duration;

/// A worker that gets its next task sooner than this is watched as closely meanwhile.
const RELAX_AFTER: Duration = Duration::from_secs(1);
/// Heartbeats leave nearly all of a link to data.
const LINK_SHARE: f64 = 0.05;

/// How closely a worker is watched, depending on what it has in hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Attention {
    /// It has nothing in hand.
    Idle,
    /// It has attempts in hand.
    Assigned,
    /// It has attempts of critical tasks in hand.
    Critical,
}

impl Attention {
    /// All levels, least first.
    pub const ALL: [Attention; 3] = [Self::Idle, Self::Assigned, Self::Critical];
}

/// The settings of the failure detector.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// For workers with nothing in hand.
    pub idle: WatchMode,
    /// For workers with attempts in hand.
    pub assigned: WatchMode,
    /// For workers with attempts of critical tasks in hand.
    pub critical: WatchMode,
    /// Heartbeats and answers per second that the supervisor accepts from the whole pool. Beyond it the intervals
    /// grow, most for idle workers and least for workers with critical tasks.
    pub budget: u32,
    /// A worker can be suspect only after this many missed heartbeats: the floor of suspicion.
    pub suspect_heartbeats: u32,
    /// A gap is suspicious if it exceeds the mean of the worker's gaps by this many standard deviations. None counts
    /// missed heartbeats alone.
    pub suspect_deviations: Option<f64>,
    /// A gap of this length is suspicious however irregular the worker is: the ceiling of suspicion.
    pub suspect_max: Duration,
    /// A worker can be dead only after this many missed heartbeats.
    pub dead_heartbeats: u32,
    /// No worker is declared dead after a shorter gap. A lower value gives up more attempts in vain; a higher one
    /// loses more time under a policy without redundant attempts. One second is longer than any measured pause of a
    /// healthy process on a busy machine.
    pub dead_min: Duration,
    /// How long a worker must have less in hand before it is watched less closely.
    pub relax_after: Duration,
    /// The share of a worker's measured link that heartbeats may take.
    pub link_share: f64,
    /// How often a worker samples its attempts' progress.
    pub progress_every: Duration,
    /// An attempt without progress for this long is stalled; none disables this.
    pub stall_after: Option<Duration>,
}

impl Default for Settings {
    /// The settings of a grid with all defaults.
    fn default() -> Self {
        Self::of(&settings::Settings::default())
    }
}

impl Settings {
    /// Derives the settings from those of the grid.
    pub fn of(grid: &settings::Settings) -> Self {
        let some = |span: Duration| (!span.is_zero()).then_some(span);
        Self {
            idle: grid.watch_idle,
            assigned: grid.watch_assigned,
            critical: grid.watch_critical,
            budget: grid.heartbeats_per_second,
            suspect_heartbeats: grid.suspect_heartbeats,
            suspect_deviations: Some(f64::from(grid.suspect_deviations)).filter(|of| *of > 0.0),
            suspect_max: grid.suspect_max,
            dead_heartbeats: grid.dead_heartbeats,
            dead_min: grid.dead_min,
            relax_after: RELAX_AFTER,
            link_share: LINK_SHARE,
            progress_every: grid.progress_every,
            stall_after: some(grid.stall_after),
        }
    }

    /// Returns the gap after which a regular worker with attempts in hand is declared dead.
    pub fn dead_after(&self) -> Duration {
        let silent = self.assigned.interval.saturating_mul(self.dead_heartbeats);
        silent.max(self.dead_min)
    }

    /// The same mode and interval for all workers, whatever they have in hand.
    pub fn uniform(way: WatchMode) -> Self {
        Self {
            idle: way,
            assigned: way,
            critical: way,
            ..Self::default()
        }
    }

    /// Returns the time without progress after which an attempt is stalled: the setting, but at least two samples and
    /// two heartbeats.
    pub(super) fn stalled_after(&self) -> Option<Duration> {
        let heard = self.way(Attention::Assigned).interval;
        let least = (self.progress_every + heard).saturating_mul(2);
        self.stall_after.map(|limit| limit.max(least))
    }

    /// Returns mode and interval for this level. If stalls are detected, workers with attempts send heartbeats at
    /// least as often as they sample progress.
    pub fn way(&self, attention: Attention) -> WatchMode {
        let way = match attention {
            Attention::Idle => self.idle,
            Attention::Assigned => self.assigned,
            Attention::Critical => self.critical,
        };
        let interval = match self.stall_after {
            Some(_) if attention > Attention::Idle => way.interval.min(self.progress_every),
            _ => way.interval,
        };
        WatchMode {
            interval: interval.clamp(WatchMode::INTERVAL_MIN, WatchMode::INTERVAL_MAX),
            ..way
        }
    }

    /// Returns the factors by which each level's interval must grow so that this many workers per level stay within
    /// the budget. They are powers of two, so that a worker that joins or leaves seldom changes an interval.
    pub(super) fn stretches(&self, counts: [u32; 3]) -> [u32; 3] {
        let wanted = |attention: Attention| {
            let interval = self.way(attention).interval.as_secs_f64();
            f64::from(counts[attention as usize]) / interval
        };
        let mut left = f64::from(self.budget.max(1));
        let mut stretches = [1; 3];
        // Each level leaves some of the budget to the levels below it.
        for (attention, share) in [
            (Attention::Critical, 0.75),
            (Attention::Assigned, 0.75),
            (Attention::Idle, 1.0),
        ] {
            let wanted = wanted(attention);
            let below = (0..attention as usize).any(|level| counts[level] > 0);
            let mine = if below { left * share } else { left };
            let stretch = (wanted / mine).ceil().max(1.0).min(f64::from(1_u32 << 30)) as u32;
            let stretch = stretch.next_power_of_two();
            stretches[attention as usize] = stretch;
            left = (left - wanted / f64::from(stretch)).max(0.001);
        }
        stretches
    }
}
