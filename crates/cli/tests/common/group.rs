//! Several supervisors on this machine, each in a folder of its own, and workers that know them all.

use super::{Kept, Place, until};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Supervisors of one group, and workers of one CPU each.
pub struct Group {
    folder: PathBuf,
    pub places: Vec<Place>,
    pub supervisors: Vec<Option<Kept>>,
    pub workers: Vec<Kept>,
    worker_ticket: String,
    /// A client in a folder of its own, as administrator.
    pub client: Place,
    ticket: String,
    /// The newest record format of supervisors that are started from now on, where it is not this version's.
    pub format: Option<&'static str>,
}

impl Group {
    /// So many supervisors that vote, and so many workers that are live.
    pub fn start(folder: &Path, supervisors: usize, workers: usize) -> Group {
        Group::start_as(folder, supervisors, workers, None)
    }

    /// The same with supervisors that know no newer record format than this.
    pub fn start_as(
        folder: &Path,
        supervisors: usize,
        workers: usize,
        format: Option<&'static str>,
    ) -> Group {
        let first = Place::here(&folder.join("supervisor-0"));
        let kept = first.listening(supervisor(&first, format, &[]));
        let worker_ticket = first.ticket("worker");
        let ticket = first.ticket("admin");
        let mut group = Group {
            folder: folder.to_owned(),
            places: vec![first],
            supervisors: vec![Some(kept)],
            workers: Vec::new(),
            worker_ticket,
            client: Place::here(&folder.join("client")),
            ticket,
            format,
        };
        for _ in 1..supervisors {
            group.add_supervisor(&[]);
        }
        group.await_voters(supervisors);
        for _ in 0..workers {
            group.add_worker(&[]);
        }
        group.await_workers(workers);
        group
    }

    /// Starts another supervisor; does not wait for it. Gives its number.
    pub fn add_supervisor(&mut self, args: &[&str]) -> usize {
        let number = self.places.len();
        let place = Place::here(&self.folder.join(format!("supervisor-{number}")));
        let invited = self.ask(&["ticket", "supervisor"]);
        let ticket = invited["ticket"].as_str().unwrap();
        let args = [&["--join", ticket], args].concat();
        let command = supervisor(&place, self.format, &args);
        let kept = Kept::start(command, &place.folder);
        self.places.push(place);
        self.supervisors.push(Some(kept));
        number
    }

    /// Starts another worker; does not wait for it.
    pub fn add_worker(&mut self, args: &[&str]) {
        let place = Place::here(&self.folder.join(format!("worker-{}", self.workers.len())));
        let fixed = [
            "worker",
            "--listen",
            "127.0.0.1:0",
            "--cpus",
            "1",
            "--no-sandbox",
        ];
        let own = ["--task-priority", "normal", "--join", &self.worker_ticket];
        self.workers
            .push(place.start(&[&fixed[..], &own, args].concat()));
    }

    /// Kills a supervisor.
    pub fn kill(&mut self, number: usize) {
        let kept = self.supervisors[number].take().unwrap();
        kept.signal("-9");
    }

    /// Starts a supervisor again in its folder.
    pub fn restart(&mut self, number: usize) {
        let place = &self.places[number];
        let command = supervisor(place, self.format, &[]);
        self.supervisors[number] = Some(Kept::start(command, &place.folder));
    }

    /// Arguments with the client's ticket.
    pub fn args<'a>(&'a self, args: &[&'a str]) -> Vec<&'a str> {
        [args, &["--join", &self.ticket]].concat()
    }

    /// What the client is told.
    pub fn ask(&self, args: &[&str]) -> Value {
        self.client.ask(&self.args(args))
    }

    /// The same for what changes nothing: over again where nobody leads for longer than a client waits.
    fn see(&self, args: &[&str]) -> Value {
        let args = [&self.args(args)[..], &["--json"]].concat();
        until("a supervisor that leads", || {
            let output = self.client.call(&args);
            let unled = output.status.code() == Some(3);
            assert!(unled || output.status.success(), "{}", super::told(&output));
            (!unled).then(|| super::json(&output))
        })
    }

    /// Places of the supervisors that are members, by their ids.
    pub fn seats(&self) -> Vec<(String, String)> {
        let members = self.see(&["members"]);
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let all = members.as_array().unwrap().iter();
        let all = all.filter(|member| !member["place"].is_null());
        all.map(|member| (text(&member["peer"]), text(&member["place"])))
            .collect()
    }

    pub fn await_voters(&self, count: usize) {
        until("the supervisors to have their votes", || {
            let seats = self.seats();
            let votes = seats.iter().filter(|(_, place)| place != "learner");
            (votes.count() == count).then_some(())
        });
    }

    pub fn await_workers(&self, count: usize) {
        until("the workers", || {
            let workers = self.see(&["workers"]);
            let workers = workers.as_array().unwrap().iter();
            let live = workers.filter(|worker| worker["liveness"] == "live");
            (live.count() == count).then_some(())
        });
    }

    /// The number of the supervisor that leads.
    pub fn leader(&self) -> usize {
        let id = until("a leader", || {
            let seats = self.seats().into_iter();
            seats.into_iter().find(|(_, place)| place == "leader")
        });
        (0..self.places.len())
            .find(|number| self.peer(*number) == id.0)
            .expect("the leader is one of these")
    }

    /// A supervisor's id.
    pub fn peer(&self, number: usize) -> String {
        let kept = self.supervisors[number].as_ref();
        let Some(kept) = kept else {
            return String::new();
        };
        until("a supervisor to say who it is", || {
            let value: Value = serde_json::from_str(&kept.out()).ok()?;
            Some(value["peer"].as_str().unwrap().to_owned())
        })
    }

    /// All that its processes printed, for messages of failing tests.
    pub fn told(&self) -> String {
        let all = self.supervisors.iter().flatten().chain(&self.workers);
        all.map(|kept| format!("--- {}\n", kept.told())).collect()
    }

    /// Writes a job file for the client.
    pub fn write_job(&self, parts: &[&str]) {
        fs::write(self.client.folder.join("job.toml"), parts.concat()).unwrap();
    }
}

/// What its processes printed is in the message of whatever failed.
impl Drop for Group {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.told());
        }
    }
}

/// A supervisor with these arguments, which knows no newer record format than this.
fn supervisor(place: &Place, format: Option<&str>, args: &[&str]) -> Command {
    let fixed = ["supervisor", "--listen", "127.0.0.1:0", "--json"];
    let args = [&fixed, args].concat();
    match format {
        None => place.hedge(&args),
        Some(format) => place.earlier(format, &args),
    }
}
