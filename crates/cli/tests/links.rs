//! Which links are fast enough, between machines of their own whose links carry half and twice of what is asked for.

mod common;

use common::lab::Lab;
use common::{Kept, Place, until};
use serde_json::Value;
use std::time::Instant;

const SUPERVISOR: usize = 0;
const SLOW: usize = 1;
const FAST: usize = 2;

struct Scene {
    place: Place,
    ticket: String,
    _supervisor: Kept,
    lab: Lab,
    folder: tempfile::TempDir,
}

impl Scene {
    fn start() -> Scene {
        let folder = tempfile::tempdir().unwrap();
        let lab = Lab::new(3);
        let place = lab.place(SUPERVISOR, &folder.path().join("supervisor"));
        let supervisor = place.supervisor("0.0.0.0:7433");
        let ticket = place.ticket("worker");
        Scene {
            place,
            ticket,
            _supervisor: supervisor,
            lab,
            folder,
        }
    }

    fn worker(&self, machine: usize) -> Kept {
        let name = format!("worker-{machine}");
        let place = self.lab.place(machine, &self.folder.path().join(name));
        place.start(&["worker", "--join", &self.ticket, "--cpus", "1"])
    }

    /// What is known of a worker that is there.
    fn view(&self, worker: &Kept) -> Option<Value> {
        let all = self.place.workers();
        let mut all = all.into_iter();
        all.find(|view| view["pid"] == worker.pid() && view["liveness"] != "dead")
    }

    /// Waits until a worker's link was judged; what of it, and how long that took since it was let in, milliseconds.
    fn judged(&self, worker: &Kept) -> (Value, u128) {
        until("the worker to come", || self.view(worker));
        let since = Instant::now();
        until("its link to be judged", || {
            let view = self.view(worker)?;
            let told = view["admission"].as_str().unwrap();
            (!told.contains("being measured")).then(|| (view.clone(), since.elapsed().as_millis()))
        })
    }
}

fn admission(view: &Value) -> &str {
    view["admission"].as_str().unwrap()
}

/// What was measured in the slower direction, bits a second.
fn carried(view: &Value) -> u64 {
    let link = &view["link"];
    let both = ["down_bits_per_second", "up_bits_per_second"].map(|name| link[name].as_u64());
    both.into_iter().flatten().min().unwrap_or(0)
}

/// At half of the rate a worker is kept out, at twice it is let in; and when its limit is lifted too.
fn half_is_kept_out_and_twice_is_let_in(name: &str, rate: u64) {
    let scene = Scene::start();
    scene.place.ask(&["config", "set", "min_link", name]);
    scene.lab.shape(SLOW, rate / 2);
    scene.lab.shape(FAST, rate * 2);
    let slow = scene.worker(SLOW);
    let (view, took) = scene.judged(&slow);
    println!("{name}: half: {} after {took} ms", admission(&view));
    assert!(
        admission(&view).starts_with("quarantined: its link c"),
        "{view}"
    );
    assert!(admission(&view).contains(name), "{view}");
    assert!(carried(&view) < rate * 8 / 10, "{view}");
    let fast = scene.worker(FAST);
    let (view, took) = scene.judged(&fast);
    println!(
        "{name}: twice: {} ({} bit/s) after {took} ms",
        admission(&view),
        carried(&view)
    );
    // A machine that is busy with other things may need another try to fill its link.
    until("the fast one to be let in", || {
        (admission(&scene.view(&fast)?) == "admitted").then_some(())
    });
    // On a busy machine it may just be away: its link is full while it is measured.
    let view = until("the slow one", || scene.view(&slow));
    assert!(admission(&view).starts_with("quarantined"), "{view}");
    scene.lab.unshape(SLOW);
    until(
        "the slow one to be let in when its link has recovered",
        || (admission(&scene.view(&slow)?) == "admitted").then_some(()),
    );
}

#[test]
fn a_link_of_100_kbit_s_is_told_from_half_of_it() {
    half_is_kept_out_and_twice_is_let_in("100 kbit/s", 100_000);
}

#[test]
fn a_link_of_250_kbit_s_is_told_from_half_of_it() {
    half_is_kept_out_and_twice_is_let_in("250 kbit/s", 250_000);
}

#[test]
fn a_link_of_1_mbit_s_is_told_from_half_of_it() {
    half_is_kept_out_and_twice_is_let_in("1 Mbit/s", 1_000_000);
}

#[test]
fn a_link_of_10_mbit_s_is_told_from_half_of_it() {
    half_is_kept_out_and_twice_is_let_in("10 Mbit/s", 10_000_000);
}

#[test]
fn a_link_of_100_mbit_s_is_told_from_half_of_it() {
    half_is_kept_out_and_twice_is_let_in("100 Mbit/s", 100_000_000);
}

#[test]
fn a_link_of_1_gbit_s_is_told_from_half_of_it() {
    half_is_kept_out_and_twice_is_let_in("1 Gbit/s", 1_000_000_000);
}
