//! Workers as text.

use super::{table::table, time};
use hedge_model::units::show_rate;
use hedge_model::view::WorkerView;

/// How much of a worker's id is shown; enough to name it to `hedge drain`.
const ID_SHOWN: usize = 10;

/// All workers, one a line.
pub fn list(workers: &[WorkerView]) -> String {
    if workers.is_empty() {
        return "no workers: `hedge ticket worker` prints what `hedge worker --join` needs\n"
            .to_owned();
    }
    let rows = workers
        .iter()
        .map(|worker| {
            vec![
                worker.peer.chars().take(ID_SHOWN).collect(),
                worker.host.clone(),
                worker.pid.to_string(),
                state(worker),
                score(worker),
                format!("{}", worker.free.cpus_milli as f64 / 1000.0),
                worker.total.to_string(),
                worker.in_hand.to_string(),
                worker.done.to_string(),
                worker.failed.to_string(),
                worker.lost.to_string(),
                beats(worker),
                link(worker),
                time(worker.silent_ms),
            ]
        })
        .collect();
    let headers = [
        "WORKER", "HOST", "PID#", "STATE", "SPEED", "FREE#", "OFFERS", "IN HAND#", "DONE#",
        "FAILED#", "LOST#", "BEATS", "LINK", "SILENT#",
    ];
    table(&headers, rows)
}

/// How fast it is, its class if it is the higher one, and where that is known from most.
fn score(worker: &WorkerView) -> String {
    let from = worker.score_from.split(',').next().unwrap_or_default();
    let from = from.split(' ').next().unwrap_or_default();
    let class = if worker.class == "higher" {
        " higher"
    } else {
        ""
    };
    format!("{:.2}{class} ({from})", worker.score)
}

/// How it shows signs of life.
fn beats(worker: &WorkerView) -> String {
    let interval = format!("{} ms", worker.beat_interval_ms);
    if worker.beat_mode == "asks" {
        format!("asked, {interval}")
    } else {
        interval
    }
}

/// What its link carries in the slower direction.
fn link(worker: &WorkerView) -> String {
    worker.link.as_ref().map_or_else(String::new, |link| {
        let up = link.up_bits_per_second;
        show_rate(link.down_bits_per_second.unwrap_or(up).min(up))
    })
}

/// How it may be used; where its owner is back, since when and why.
fn usage(worker: &WorkerView) -> String {
    match &worker.owner {
        Some(owner) if worker.usage == "away" => {
            format!("away for {}: {}", time(owner.away_ms), owner.why.join(", "))
        }
        _ => worker.usage.clone(),
    }
}

/// What is not as usual about a worker, else that it is live.
fn state(worker: &WorkerView) -> String {
    let usage = usage(worker);
    let unusual: Vec<&str> = [
        (&*worker.liveness, "live"),
        (&*usage, "ready"),
        (&*worker.admission, "admitted"),
    ]
    .iter()
    .filter(|(is, usual)| is != usual)
    .map(|(is, _)| *is)
    .collect();
    if unusual.is_empty() {
        "live".to_owned()
    } else {
        unusual.join(", ")
    }
}
