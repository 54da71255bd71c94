//! Connections that end are made again: machines change their addresses, sleep and wake, supervisors come back at
//! other ports, and peers find each other on the local network.

mod common;

use common::group::Group;
use common::lab::Lab;
use common::tasks::Marks;
use common::{Kept, Place, json, until};
use hedge_net::Ticket;
use std::fs;
use std::path::Path;

const NO_COPIES: &str = "[qos]\nredundancy = \"none\"\n";
const SUPERVISOR: usize = 0;
const WORKER: usize = 1;

/// A supervisor and a worker on machines of their own, which runs the task `long`.
struct Pair {
    lab: Lab,
    place: Place,
    supervisor: Kept,
    worker: Kept,
    marks: Marks,
    job: String,
}

impl Pair {
    fn start(folder: &Path) -> Pair {
        let lab = Lab::new(2);
        let marks = Marks::new(folder);
        let place = lab.place(SUPERVISOR, &folder.join("supervisor"));
        let supervisor = place.supervisor("0.0.0.0:7433");
        let worker = start_worker(&lab, folder, &place.ticket("worker"), &[]);
        place.await_workers(1);
        let task = marks.task("long", "echo made > made", "outputs = [\"made\"]");
        fs::write(place.folder.join("job.toml"), format!("{NO_COPIES}{task}")).unwrap();
        let job = place.submit("job.toml");
        marks.await_starts("long", 1);
        Pair {
            lab,
            place,
            supervisor,
            worker,
            marks,
            job,
        }
    }

    /// The worker attaches again, and what it ran all the time wins.
    fn goes_on(&self) {
        await_attached(&self.worker, 2);
        self.marks.let_go("long");
        let view = self.place.wait(&self.job);
        assert_eq!(view["state"], "done", "{view}{}", self.told());
        assert_eq!(self.marks.starts("long"), 1, "{}", self.told());
    }

    fn told(&self) -> String {
        self.supervisor.told() + &self.worker.told()
    }
}

fn start_worker(lab: &Lab, folder: &Path, ticket: &str, more: &[&str]) -> Kept {
    let place = lab.place(WORKER, &folder.join("worker"));
    #[rustfmt::skip]
    let args = [
        "worker", "--join", ticket, "--cpus", "1", "--no-sandbox", "--task-priority", "normal",
    ];
    place.start(&[&args[..], more].concat())
}

fn await_attached(worker: &Kept, times: usize) {
    until("the worker to attach", || {
        let attached = worker.err().matches("attached").count();
        (attached >= times).then_some(())
    });
}

#[test]
fn a_worker_whose_address_changes_goes_on_with_what_it_runs() {
    let folder = tempfile::tempdir().unwrap();
    let pair = Pair::start(folder.path());
    pair.lab.readdress(WORKER, "10.77.0.99");
    pair.goes_on();
}

#[test]
fn a_worker_that_slept_goes_on_with_what_it_ran() {
    let folder = tempfile::tempdir().unwrap();
    let pair = Pair::start(folder.path());
    pair.worker.signal("-STOP");
    until("the connection to be lost", || {
        let told = pair.supervisor.err();
        told.contains("a worker is gone").then_some(())
    });
    pair.worker.signal("-CONT");
    pair.goes_on();
}

#[test]
fn a_supervisor_that_comes_back_at_another_port_is_found_there() {
    let folder = tempfile::tempdir().unwrap();
    let mut group = Group::start(folder.path(), 3, 1);
    let leader = group.leader();
    let moved = (leader + 1) % 3;
    group.kill(moved);
    let state = group.places[moved].folder.join("state/hedgerow/supervisor");
    let noted = fs::read_to_string(state.join("port")).unwrap();
    fs::remove_file(state.join("port")).unwrap();
    group.restart(moved);
    let port = until("another port", || {
        let port = fs::read_to_string(state.join("port")).ok()?;
        Some(port.trim().to_owned())
    });
    assert_ne!(port, noted.trim(), "the system gave the same port again");
    until("the worker to know the new port", || {
        let folder = folder.path().join("worker-0/state/hedgerow/worker");
        // One that is being replaced may be gone by now.
        let files = fs::read_dir(folder).ok()?.flatten().map(|file| file.path());
        let known = files.filter(|path| path.display().to_string().contains("supervisors-"));
        let mut known = known.filter_map(|path| fs::read_to_string(path).ok());
        known
            .any(|text| text.contains(&format!("127.0.0.1:{port}\n")))
            .then_some(())
    });
    until("all to be connected", || {
        let members = group.ask(&["members"]);
        let all = members.as_array().unwrap().iter();
        let here = all.filter(|one| !one["place"].is_null() && one["connected"] == true);
        (here.count() == 3).then_some(())
    });
    // It is a full member still: with the leader gone, its vote decides.
    group.kill(leader);
    until("another to lead", || {
        let leader = group.leader();
        group.supervisors[leader].is_some().then_some(())
    });
    group.await_workers(1);
}

#[test]
fn on_the_local_network_a_supervisor_is_found_without_an_address() {
    let folder = tempfile::tempdir().unwrap();
    let lab = Lab::new(2);
    lab.multicast(SUPERVISOR);
    lab.multicast(WORKER);
    let place = lab.place(SUPERVISOR, &folder.path().join("supervisor"));
    let start = |port: u16| {
        let listen = format!("0.0.0.0:{port}");
        let mut kept = place.start(&["supervisor", "--mdns", "--listen", &listen, "--json"]);
        until("the supervisor to listen", || {
            assert!(kept.running(), "{}", kept.told());
            kept.out().contains("\"peer\"").then_some(())
        });
        kept
    };
    let mut supervisor = start(7433);
    let mut ticket: Ticket = place.ticket("worker").parse().unwrap();
    ticket.supervisors[0].addrs.clear();
    let worker = start_worker(&lab, folder.path(), &ticket.to_string(), &["--mdns"]);
    place.await_workers(1);
    // Nobody tells the worker of the port at which it comes back.
    supervisor.signal("-KILL");
    supervisor.end();
    let _supervisor = start(7434);
    await_attached(&worker, 2);
    // Where the supervisor was is known here too, so that asking may fail until its new address is written.
    until("the worker to be seen", || {
        let told = place.call(&["workers", "--json"]);
        (told.status.success() && json(&told)[0]["liveness"] == "live").then_some(())
    });
}
