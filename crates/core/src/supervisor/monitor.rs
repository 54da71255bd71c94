//! Who is alive: a machine of its own, fed with heartbeats as they arrive and asked periodically.
//!
//! A worker that misses beats goes from live to late, suspect and dead; a beat brings it back. A check that
//! itself ran late gives every worker that much grace, so that a frozen supervisor blames nobody.

use hedge_model::msg::Beat;
use hedge_model::{PeerId, Time};
use std::collections::BTreeMap;
use std::time::Duration;

/// How a worker is watched.
#[derive(Clone, Copy, Debug)]
pub struct Watch {
    /// How often it beats.
    pub interval: Duration,
    /// Silent for this many intervals it is suspect.
    pub suspect_beats: u32,
    /// Silent for this many intervals it is given up; its attempts run elsewhere.
    pub dead_beats: u32,
}

impl Default for Watch {
    /// 100 ms, suspect after 3 beats, dead after 10: a second of silence is longer than any pause of a healthy
    /// process on a busy machine that was measured, and shorter than a person's patience.
    fn default() -> Self {
        Self {
            interval: Duration::from_millis(100),
            suspect_beats: 3,
            dead_beats: 10,
        }
    }
}

/// Whether a worker shows signs of life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Liveness {
    /// Beats arrive.
    Live,
    /// The last beat is overdue; stops nothing.
    Late,
    /// Several are missing.
    Suspect,
    /// Given up.
    Dead,
}

/// A change that a check or a beat found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Whom it concerns.
    pub peer: PeerId,
    /// Its liveness from now on.
    pub liveness: Liveness,
}

#[derive(Clone, Debug)]
struct Watched {
    last: Time,
    seq: u64,
    liveness: Liveness,
}

/// The monitor of one supervisor.
#[derive(Clone, Debug)]
pub struct Monitor {
    watch: Watch,
    peers: BTreeMap<PeerId, Watched>,
    checked: Option<Time>,
}

impl Monitor {
    /// Watches nobody yet.
    pub fn new(watch: Watch) -> Self {
        Self {
            watch,
            peers: BTreeMap::new(),
            checked: None,
        }
    }

    /// Watches otherwise from here on.
    pub fn set_watch(&mut self, watch: Watch) {
        self.watch = watch;
    }

    /// How workers are watched.
    pub fn watch(&self) -> Watch {
        self.watch
    }

    /// Starts to watch a worker that attached; its beats count from 1 again.
    pub fn start(&mut self, now: Time, peer: PeerId) {
        self.peers.insert(
            peer,
            Watched {
                last: now,
                seq: 0,
                liveness: Liveness::Live,
            },
        );
    }

    /// Stops to watch a worker whose connection is closed.
    pub fn stop(&mut self, peer: PeerId) {
        self.peers.remove(&peer);
    }

    /// A beat arrived at `now`. Stale ones, overtaken by a later one, are dropped.
    pub fn beat(&mut self, now: Time, peer: PeerId, beat: Beat) -> Option<Finding> {
        let watched = self.peers.get_mut(&peer)?;
        if beat.seq <= watched.seq {
            return None;
        }
        watched.seq = beat.seq;
        watched.last = watched.last.max(now);
        let back = watched.liveness != Liveness::Live;
        watched.liveness = Liveness::Live;
        back.then_some(Finding {
            peer,
            liveness: Liveness::Live,
        })
    }

    /// Looks at everyone; reports who changed for the worse.
    pub fn check(&mut self, now: Time, found: &mut Vec<Finding>) {
        let interval = self.watch.interval;
        let gap = self.checked.map_or(Duration::ZERO, |last| now.since(last));
        let grace = if gap > interval * 2 {
            gap
        } else {
            Duration::ZERO
        };
        self.checked = Some(now);
        for (peer, watched) in &mut self.peers {
            watched.last = (watched.last + grace).min(now);
            let silent = now.since(watched.last);
            let liveness = if silent >= interval * self.watch.dead_beats {
                Liveness::Dead
            } else if silent >= interval * self.watch.suspect_beats {
                Liveness::Suspect
            } else if silent >= interval * 2 {
                Liveness::Late
            } else {
                Liveness::Live
            };
            if liveness > watched.liveness {
                watched.liveness = liveness;
                found.push(Finding {
                    peer: *peer,
                    liveness,
                });
            }
        }
    }

    /// When the next check is due.
    pub fn next_check(&self) -> Option<Time> {
        if self.peers.is_empty() {
            return None;
        }
        Some(
            self.checked
                .map_or(Time(0), |last| last + self.watch.interval),
        )
    }

    /// A worker's state and how long it has been silent.
    pub fn liveness(&self, now: Time, peer: PeerId) -> Option<(Liveness, Duration)> {
        self.peers
            .get(&peer)
            .map(|watched| (watched.liveness, now.since(watched.last)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: PeerId = PeerId([1; 32]);

    fn at(ms: u64) -> Time {
        Time(ms * 1_000_000)
    }

    fn beat(seq: u64) -> Beat {
        Beat {
            seq,
            sent_ns: 0,
            in_hand: 0,
            ..Beat::default()
        }
    }

    fn findings(monitor: &mut Monitor, ms: u64) -> Vec<Liveness> {
        let mut found = Vec::new();
        monitor.check(at(ms), &mut found);
        found.into_iter().map(|finding| finding.liveness).collect()
    }

    #[test]
    fn silence_goes_from_late_to_dead_and_a_beat_brings_back() {
        let mut monitor = Monitor::new(Watch::default());
        monitor.start(at(0), PEER);
        assert_eq!(monitor.beat(at(50), PEER, beat(1)), None);
        let seen: Vec<_> = (1..=12)
            .map(|tick| findings(&mut monitor, tick * 100))
            .filter(|f| !f.is_empty())
            .collect();
        assert_eq!(
            seen,
            [[Liveness::Late], [Liveness::Suspect], [Liveness::Dead]]
        );
        assert_eq!(
            monitor.beat(at(1300), PEER, beat(1)),
            None,
            "a stale beat brings nobody back"
        );
        let back = monitor.beat(at(1300), PEER, beat(2)).unwrap();
        assert_eq!(back.liveness, Liveness::Live);
    }

    #[test]
    fn a_late_check_gives_grace() {
        let mut monitor = Monitor::new(Watch::default());
        monitor.start(at(0), PEER);
        assert!(findings(&mut monitor, 100).is_empty());
        assert!(
            findings(&mut monitor, 5_100).is_empty(),
            "the supervisor itself was away for 5 s"
        );
    }
}
