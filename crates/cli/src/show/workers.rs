//! Workers as text.

use super::table::{Column, table};
use super::time;
use hedge_model::settings::Mode;
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
                why(worker),
                score(worker),
                format!("{}", worker.free.cpus_milli as f64 / 1000.0),
                offers(worker),
                worker.in_hand.to_string(),
                worker.done.to_string(),
                worker.failed.to_string(),
                worker.lost.to_string(),
                heartbeats(worker),
                link(worker),
                time(worker.silent_ms),
            ]
        })
        .collect();
    table(&COLUMNS, rows)
}

const COLUMNS: [Column; 15] = [
    Column::new("WORKER"),
    Column::name("HOST"),
    Column::drop("PID#", 10),
    Column::new("STATE"),
    Column::below("WHY"),
    Column::drop("SPEED", 5),
    Column::drop("FREE#", 1),
    Column::drop("OFFERS", 9),
    Column::drop("IN HAND#", 2),
    Column::drop("DONE#", 3),
    Column::drop("FAILED#", 4),
    Column::drop("LOST#", 4),
    Column::drop("HEARTBEAT", 8),
    Column::drop("LINK", 7),
    Column::drop("SILENT#", 6),
];

/// What it offers to tasks, the folders that its owner shares and the network included.
fn offers(worker: &WorkerView) -> String {
    let mut offers = worker.total.to_string();
    if !worker.shares.is_empty() {
        offers.push_str(&format!(", shares {}", worker.shares.join(" ")));
    }
    if worker.network == "any" {
        offers.push_str(", network");
    }
    offers
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

/// How it sends heartbeats.
fn heartbeats(worker: &WorkerView) -> String {
    let interval = format!("{} ms", worker.heartbeat_interval_ms);
    // As in settings, the first mode has no name.
    match &*worker.heartbeat_mode {
        mode if mode == Mode::WORDS[0].0 => interval,
        mode => format!("{mode}, {interval}"),
    }
}

/// What its link carries in the slower direction.
fn link(worker: &WorkerView) -> String {
    worker.link.as_ref().map_or_else(String::new, |link| {
        let up = link.up_bits_per_second;
        show_rate(link.down_bits_per_second.unwrap_or(up).min(up))
    })
}

/// What is not as usual about a worker, in a word or two, else that it is live.
fn state(worker: &WorkerView) -> String {
    let admission = worker.admission.split(':').next().unwrap_or_default();
    let unusual: Vec<&str> = [
        (&*worker.liveness, "live"),
        (&*worker.usage, "ready"),
        (admission, "admitted"),
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

/// Why a worker is given no tasks: since when its owner is back and what he does, or why it is not admitted.
fn why(worker: &WorkerView) -> String {
    let owner = worker.owner.as_ref().filter(|_| worker.usage == "away");
    let owner =
        owner.map(|owner| format!("away for {}: {}", time(owner.away_ms), owner.why.join(", ")));
    let admission = worker
        .admission
        .split_once(": ")
        .map(|(_, why)| why.to_owned());
    let all: Vec<String> = owner.into_iter().chain(admission).collect();
    all.join("; ")
}
