//! How workers are watched: what the grid's owner may choose, and what the budget makes of it.

use hedge_model::settings::{self, WatchMode};
use std::time::Duration;

/// A worker that gets its next task sooner than this is watched as closely meanwhile.
const RELAX_AFTER: Duration = Duration::from_secs(1);
/// Heartbeats leave nearly all of a link to data.
const LINK_SHARE: f64 = 0.05;

/// How closely a worker is to be watched: by what it has in hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Attention {
    /// Nothing.
    Idle,
    /// Attempts.
    Assigned,
    /// Attempts of critical tasks among them.
    Critical,
}

impl Attention {
    /// All of them, least first.
    pub const ALL: [Attention; 3] = [Self::Idle, Self::Assigned, Self::Critical];
}

/// All choices about watching.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// Workers with nothing in hand.
    pub idle: WatchMode,
    /// Workers with attempts in hand.
    pub assigned: WatchMode,
    /// Workers with attempts of critical tasks in hand.
    pub critical: WatchMode,
    /// Heartbeats and answers a second that the supervisor takes in from the whole pool; beyond, the intervals
    /// grow: those of idle workers most, those of workers with critical tasks least.
    pub budget: u32,
    /// Missing heartbeats from which on a worker can be suspect: the floor of suspicion.
    pub suspect_heartbeats: u32,
    /// How unusual a gap must be to be suspicious, in standard deviations of the worker's gaps; none
    /// counts missing heartbeats alone.
    pub suspect_deviations: Option<f64>,
    /// However irregular a worker is, this gap is suspicious: the ceiling of suspicion.
    pub suspect_max: Duration,
    /// Missing heartbeats from which on a worker can be dead.
    pub dead_heartbeats: u32,
    /// No gap shorter than this is a death. It trades attempts given up in vain against time lost on a
    /// policy without copies; one second is longer than any pause of a healthy process on a busy machine
    /// that was measured.
    pub dead_min: Duration,
    /// How long a worker must have had less in hand before it is watched less closely.
    pub relax_after: Duration,
    /// Share of a worker's measured link that heartbeats may take.
    pub link_share: f64,
    /// How often a worker looks at its attempts' progress.
    pub progress_every: Duration,
    /// An attempt without progress for so long is stalled; none never looks.
    pub stall_after: Option<Duration>,
}

impl Default for Settings {
    /// Those of a grid where nobody set anything.
    fn default() -> Self {
        Self::of(&settings::Settings::default())
    }
}

impl Settings {
    /// Those that a grid's settings ask for.
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

    /// The gap after which a worker with attempts in hand is given up, where it was regular.
    pub fn dead_after(&self) -> Duration {
        let silent = self.assigned.interval.saturating_mul(self.dead_heartbeats);
        silent.max(self.dead_min)
    }

    /// The same way and interval for all, whatever they have in hand.
    pub fn uniform(way: WatchMode) -> Self {
        Self {
            idle: way,
            assigned: way,
            critical: way,
            ..Self::default()
        }
    }

    /// The time without progress from which on an attempt is stalled: what was set, but not before it was looked at
    /// twice and two heartbeats said so.
    pub(super) fn stalled_after(&self) -> Option<Duration> {
        let heard = self.way(Attention::Assigned).interval;
        let least = (self.progress_every + heard).saturating_mul(2);
        self.stall_after.map(|limit| limit.max(least))
    }

    /// How to watch at this level. Where attempts are to make progress, what is looked at is heard of as often.
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

    /// By how much the intervals of each level are to grow, so that so many workers at each stay within the
    /// budget. Powers of two, so that a worker that comes or goes seldom changes anybody's interval.
    pub(super) fn stretches(&self, counts: [u32; 3]) -> [u32; 3] {
        let wanted = |attention: Attention| {
            let interval = self.way(attention).interval.as_secs_f64();
            f64::from(counts[attention as usize]) / interval
        };
        let mut left = f64::from(self.budget.max(1));
        let mut stretches = [1; 3];
        // Each level leaves something to those below it.
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
