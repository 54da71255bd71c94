//! How fast a large virtual grid runs: `cargo run --release -p hedge-sim --example scale -- WORKERS TASKS`.

use hedge_core::monitor::{Settings, WatchMode};
use hedge_model::JobSpec;
use hedge_model::spec::{CriticalRule, Draft, Group, Qos};
use hedge_sim::{Grid, Options, Output, Program, WorkerKind};
use std::time::{Duration, Instant};

fn main() {
    let argument = |at: usize| std::env::args().nth(at).and_then(|text| text.parse().ok());
    let workers = argument(1).unwrap_or(1_000);
    let tasks = argument(2).unwrap_or(10_000) as u32;
    let mut options = Options::quiet(vec![WorkerKind::cpus(4); workers]);
    options.check = false;
    options.watch = Settings::uniform(WatchMode::heartbeats(Duration::from_secs(10)));
    let group = Group {
        array: Some((0, tasks)),
        command: Program::new(Output::Blob, Duration::from_secs(2)).command(),
        ..Group::program("a", &[])
    };
    let spec = JobSpec::new(Draft {
        name: "scale".into(),
        qos: Qos::default(),
        critical: CriticalRule::default(),
        files: Vec::new(),
        groups: vec![group],
        outline: false,
    });
    let began = Instant::now();
    let mut grid = Grid::new(1, options);
    grid.submit(0, spec.expect("a job"));
    let limit = Duration::from_secs(1_000_000);
    let over = |grid: &Grid| grid.stats().jobs_done == 1;
    assert_eq!(grid.run_until(limit, over), Ok(true), "{:?}", grid.stats());
    let (stats, took) = (grid.stats(), began.elapsed());
    let events = stats.supervisor_events + stats.worker_events;
    println!(
        "{workers} workers, {tasks} tasks: {:.1} s of virtual time in {:.2} s, {events} events, {:.1} us each",
        grid.now().0 as f64 / 1e9,
        took.as_secs_f64(),
        took.as_secs_f64() * 1e6 / events as f64
    );
}
