//! Runs of many seeds, and how a failing one is shown and repeated.

use hedge_sim::RandomRun;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

/// Runs one seed, with the whole log or without.
pub type Run = fn(u64, bool) -> RandomRun;

/// Seeds of one run of the tests where `HEDGE_SIM_SEEDS` does not say.
const SEEDS: u64 = 100;
/// Events that the tests handle at least.
const EVENTS_MIN: u64 = 100_000;
/// Lines of the event log that a failure shows; `HEDGE_SIM_LINES` says otherwise.
const LINES: usize = 60;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// One seed of the test file `test`. A run that failed says how to repeat it and what happened last; gives the run otherwise.
fn one(run: Run, test: &str, seed: u64) -> RandomRun {
    let result = catch_unwind(AssertUnwindSafe(|| run(seed, false)));
    match result {
        Ok(run) if run.violation.is_none() => run,
        result => {
            let panicked = result.is_err();
            let lines = number("HEDGE_SIM_LINES").map_or(LINES, |lines| lines as usize);
            let again = catch_unwind(AssertUnwindSafe(|| run(seed, true)));
            if let Ok(again) = &again {
                let skipped = again.log_tail.len().saturating_sub(lines);
                again.log_tail[skipped..]
                    .iter()
                    .for_each(|line| eprintln!("{line}"));
            }
            let what = again.ok().and_then(|again| again.violation);
            let what =
                what.map_or_else(|| format!("panicked: {panicked}"), |what| what.to_string());
            panic!(
                "seed {seed}: {what}\nrepeat it with: HEDGE_SIM_SEED={seed} cargo test -p hedge-sim --test {test}"
            );
        }
    }
}

/// Runs the seeds that the environment asks for, by default the first hundred.
pub fn all(run: Run, test: &str) {
    if let Some(seed) = number("HEDGE_SIM_SEED") {
        println!("{:?}", one(run, test, seed).stats);
        return;
    }
    let first = number("HEDGE_SIM_FIRST").unwrap_or(1);
    let seeds = number("HEDGE_SIM_SEEDS").unwrap_or(SEEDS);
    let (started, mut slowest) = (Instant::now(), (Duration::ZERO, 0));
    let mut total = hedge_sim::Stats::default();
    for seed in first..first + seeds {
        let began = Instant::now();
        total += one(run, test, seed).stats;
        slowest = slowest.max((began.elapsed(), seed));
    }
    let events = total.supervisor_events + total.worker_events;
    println!(
        "{events} events of {seeds} seeds in {:.1?}, slowest seed {} with {:.1?}: {total:?}",
        started.elapsed(),
        slowest.1,
        slowest.0
    );
    assert!(
        events >= EVENTS_MIN.min(seeds * 100),
        "only {events} events"
    );
}

/// Two runs of one seed are the same to the last action, of two seeds they are not.
pub fn same(run: Run) {
    for seed in [3, 11] {
        let (first, second) = (run(seed, true), run(seed, true));
        assert_ne!(first.stats.digest, 0);
        assert_eq!(first.stats, second.stats, "seed {seed}");
        let quiet = run(seed, false).stats;
        assert_eq!(quiet.supervisor_events, first.stats.supervisor_events);
    }
    assert_ne!(run(3, true).stats, run(11, true).stats);
}
