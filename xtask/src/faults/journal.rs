//! What the journals say, worked out anew from their records alone: nothing of the project's own code is used, so
//! that a mistake there is not repeated here.

use super::money::Bill;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// A task's generation.
type Opened = (u64, u64, u64);

/// A job, as the records tell it.
#[derive(Clone, Debug, Default)]
pub struct Job {
    /// The submission's key, in hexadecimal digits.
    pub key: String,
    /// How many tasks it has.
    pub tasks: u64,
    /// `Done`, `Failed` or `Cancelled`, once it has ended.
    pub end: Option<String>,
    /// The winner of each task, in its last generation.
    pub winners: BTreeMap<u64, String>,
    /// What its attempts cost.
    pub bill: Bill,
    generations: BTreeMap<u64, u64>,
    ended_attempts: BTreeSet<String>,
    /// Groups can be added.
    open: bool,
    /// The keys of those that were.
    extensions: BTreeSet<String>,
    /// The number of each group's first task and the one behind its last, by id.
    groups: BTreeMap<String, (u64, u64)>,
    /// Tasks whose outputs are released.
    released: BTreeSet<u64>,
    /// Tasks that were given up.
    failed: BTreeSet<u64>,
}

/// All that the records of one journal say.
#[derive(Clone, Debug, Default)]
pub struct Story {
    /// By number.
    pub jobs: BTreeMap<u64, Job>,
    /// Every attempt that ever won, generations that were lost included.
    pub winners: BTreeSet<String>,
    /// The leaders' lives.
    pub epochs: u64,
    /// Records.
    pub records: u64,
    /// Records that came too late and changed nothing.
    pub late: u64,
    /// What must never be.
    pub wrong: Vec<String>,
    /// Peers that were revoked.
    pub revoked: BTreeSet<String>,
    committed: BTreeSet<Opened>,
}

/// One entry of a log: its index, its term and what it says.
pub type Entries = BTreeMap<u64, (u64, Value)>;

/// The entries in the lines of a dump; a line may be an entry with `records`, or one `record` of it.
pub fn entries(lines: &[Value]) -> Entries {
    let mut all = Entries::new();
    for line in lines {
        let Some(index) = line["index"].as_u64() else {
            continue;
        };
        let term = line["term"].as_u64().unwrap_or_default();
        let (_, said) = all
            .entry(index)
            .or_insert_with(|| (term, Value::Array(Vec::new())));
        let said = said.as_array_mut();
        match (said, &line["records"], &line["record"]) {
            (Some(said), Value::Array(records), _) => said.extend(records.iter().cloned()),
            (Some(said), _, record) if !record.is_null() => said.push(record.clone()),
            _ => {}
        }
    }
    all
}

/// Where two logs differ though both have the entry.
pub fn difference(one: &Entries, other: &Entries) -> Option<u64> {
    let common = one
        .iter()
        .filter_map(|(index, said)| Some((index, said, other.get(index)?)));
    common
        .into_iter()
        .find(|(_, one, other)| one != other)
        .map(|(index, ..)| *index)
}

impl Story {
    /// The story of a log.
    pub fn new(entries: &Entries) -> Story {
        let mut story = Story::default();
        let records = entries.values().filter_map(|(_, said)| said.as_array());
        for record in records.flatten() {
            story.records += 1;
            let Some((kind, what)) = record.as_object().and_then(|record| record.iter().next())
            else {
                continue;
            };
            story.tell(kind, what);
        }
        story
    }

    fn tell(&mut self, kind: &str, what: &Value) {
        match kind {
            "Epoch" => {
                let epoch = what["epoch"].as_u64().unwrap_or_default();
                match epoch.cmp(&(self.epochs + 1)) {
                    std::cmp::Ordering::Equal => self.epochs = epoch,
                    std::cmp::Ordering::Less => self.late += 1,
                    std::cmp::Ordering::Greater => {
                        let wrong = format!("epoch {epoch} follows {}", self.epochs);
                        self.wrong.push(wrong);
                    }
                }
            }
            "JobAccepted" | "JobAcceptedNamed" => self.accepted(what),
            "TaskDone" => self.done(what),
            "AttemptEnded" => self.attempt_ended(what),
            "MemberRevoked" => drop(self.revoked.insert(hex(&what["peer"]))),
            "OutputsLost" => self.lost(what),
            "TaskFailed" => self.task_failed(what),
            "JobEnded" => self.ended(what),
            "JobRetried" => self.retried(what),
            "GroupsAdded" => self.added(what),
            "OutputsReleased" => self.released(what),
            "JobClosed" => self.closed(what),
            _ => {}
        }
    }

    fn accepted(&mut self, what: &Value) {
        let key = hex(&what["key"]);
        if self.jobs.values().any(|job| job.key == key) {
            self.late += 1;
            return;
        }
        let mut job = Job {
            key,
            open: !what["spec"]["qos"]["open_timeout"].is_null(),
            ..Job::default()
        };
        job.grow(&what["spec"]["groups"]);
        self.jobs.insert(self.jobs.len() as u64 + 1, job);
    }

    /// The job that a record is about, while it is open.
    fn open_job(&mut self, what: &Value) -> Option<&mut Job> {
        let job = self.jobs.get_mut(&u64_of(&what["job"]));
        let job = job.filter(|job| job.open);
        self.late += u64::from(job.is_none());
        job
    }

    fn added(&mut self, what: &Value) {
        let Some(job) = self.open_job(what) else {
            return;
        };
        let key = hex(&what["key"]);
        let groups = &what["extension"]["groups"];
        if job.extensions.contains(&key) || !job.takes(groups) {
            self.late += 1;
            return;
        }
        job.extensions.insert(key);
        job.grow(groups);
    }

    fn released(&mut self, what: &Value) {
        let Some(job) = self.open_job(what) else {
            return;
        };
        for range in what["tasks"].as_array().into_iter().flatten() {
            let to = u64_of(&range[1]).min(job.tasks);
            job.released.extend(u64_of(&range[0])..to);
        }
    }

    fn closed(&mut self, what: &Value) {
        if let Some(job) = self.open_job(what) {
            job.open = false;
        }
    }

    fn done(&mut self, what: &Value) {
        let attempt = &what["attempt"];
        let (number, generation) = (
            u64_of(&attempt["task"]["number"]),
            u64_of(&attempt["generation"]),
        );
        let (id, name) = (job_of(attempt), name(attempt));
        if u64_of(&attempt["epoch"]) > self.epochs {
            let wrong = format!("{name} is done in an epoch that has not begun");
            self.wrong.push(wrong);
        }
        let Some(job) = self.jobs.get_mut(&id) else {
            self.wrong.push(format!("{name} belongs to no job"));
            return;
        };
        let current = job.generations.get(&number).copied().unwrap_or_default();
        let worker = hex(&what["worker"]);
        let late = job.end.is_some()
            || job.winners.contains_key(&number)
            || job.failed.contains(&number)
            || current != generation
            || job.ended_attempts.contains(&name)
            || self.revoked.contains(&worker);
        if late {
            self.late += 1;
            return;
        }
        job.winners.insert(number, name.clone());
        job.bill.won(number, &name, what);
        job.stop(&what["stopped"]);
        self.winners.insert(name.clone());
        if !self.committed.insert((id, number, generation)) {
            self.wrong
                .push(format!("{name} is the second winner of its generation"));
        }
    }

    fn attempt_ended(&mut self, what: &Value) {
        let attempt = &what["attempt"];
        let (number, name) = (u64_of(&attempt["task"]["number"]), name(attempt));
        let Some(job) = self.jobs.get_mut(&job_of(attempt)) else {
            return;
        };
        if job.winners.get(&number) == Some(&name) {
            self.late += 1;
            return;
        }
        job.bill.ended(number, &name, what, job.end.is_some());
        if what["end"] != "Lost" {
            job.ended_attempts.insert(name);
        }
    }

    fn lost(&mut self, what: &Value) {
        let number = u64_of(&what["task"]["number"]);
        let generation = u64_of(&what["generation"]);
        let Some(job) = self.jobs.get_mut(&u64_of(&what["task"]["job"])) else {
            return;
        };
        let current = job.generations.entry(number).or_default();
        let open = job.end.is_none() && *current == generation;
        let Some(winner) = open.then(|| job.winners.remove(&number)).flatten() else {
            self.late += 1;
            return;
        };
        *current += 1;
        job.bill.remade(&winner);
    }

    fn task_failed(&mut self, what: &Value) {
        let number = u64_of(&what["task"]["number"]);
        let Some(job) = self.jobs.get_mut(&u64_of(&what["task"]["job"])) else {
            return;
        };
        let current = job.generations.get(&number).copied().unwrap_or_default();
        let open = job.end.is_none() && !job.winners.contains_key(&number);
        let now = current == u64_of(&what["generation"]);
        if !open || !now || !job.failed.insert(number) {
            self.late += 1;
            return;
        }
        job.stop(&what["stopped"]);
    }

    fn retried(&mut self, what: &Value) {
        let Some(job) = self.jobs.get_mut(&u64_of(&what["job"])) else {
            return;
        };
        if job.end.take_if(|end| end == "Failed").is_none() {
            self.late += 1;
            return;
        }
        job.failed.clear();
        for number in 0..job.tasks {
            if !job.winners.contains_key(&number) {
                *job.generations.entry(number).or_default() += 1;
            }
        }
    }

    fn ended(&mut self, what: &Value) {
        let id = u64_of(&what["job"]);
        let Some(job) = self.jobs.get_mut(&id) else {
            self.wrong.push(format!("job {id} ends and never was"));
            return;
        };
        let all = job.winners.len() as u64 == job.tasks;
        let end = match &what["end"] {
            Value::String(end) => end.clone(),
            Value::Object(end) => end.keys().next().cloned().unwrap_or_default(),
            _ => String::new(),
        };
        // A job whose outputs were lost meanwhile is not done; its end is void then.
        if job.end.is_some() || (end == "Done" && (!all || job.open)) {
            self.late += 1;
            return;
        }
        job.open = false;
        job.end = Some(end);
        job.stop(&what["stopped"]);
    }
}

impl Job {
    /// Takes up groups.
    fn grow(&mut self, groups: &Value) {
        for group in groups.as_array().into_iter().flatten() {
            let array = &group["array"];
            let count = match (array[0].as_u64(), array[1].as_u64()) {
                (Some(from), Some(to)) => to.saturating_sub(from),
                _ => 1,
            };
            let id = group["id"].as_str().unwrap_or_default().to_owned();
            self.groups.insert(id, (self.tasks, self.tasks + count));
            self.tasks += count;
            self.bill.add_group(count, group);
        }
    }

    /// Whether groups can be added: their ids are new, what they wait for is there, and nothing that they read is
    /// released.
    fn takes(&self, groups: &Value) -> bool {
        let groups = || groups.as_array().into_iter().flatten();
        let texts = |list: &Value| -> Vec<String> {
            let texts = list.as_array().into_iter().flatten();
            texts
                .filter_map(|it| it.as_str().map(str::to_owned))
                .collect()
        };
        let new: BTreeSet<&str> = groups().filter_map(|group| group["id"].as_str()).collect();
        let released = |id: &String| {
            let tasks = self.groups.get(id).copied();
            tasks.is_some_and(|(from, to)| self.released.range(from..to).next().is_some())
        };
        groups().all(|group| {
            let inputs = group["inputs"].as_array().into_iter().flatten();
            let read = inputs.filter_map(|input| {
                let of = input["Task"]
                    .as_str()
                    .or_else(|| input["TaskEach"].as_str());
                of.map(str::to_owned)
            });
            let read: Vec<String> = read.collect();
            let waits = [
                texts(&group["deps"]),
                texts(&group["deps_each"]),
                read.clone(),
            ]
            .concat();
            let known = |id: &String| self.groups.contains_key(id) || new.contains(id.as_str());
            let own = group["id"].as_str().unwrap_or_default();
            !self.groups.contains_key(own) && waits.iter().all(known) && !read.iter().any(released)
        })
    }

    /// Attempts that a record stops, other than winners.
    fn stop(&mut self, stopped: &Value) {
        for stop in stopped.as_array().into_iter().flatten() {
            let (number, name) = (
                u64_of(&stop["attempt"]["task"]["number"]),
                name(&stop["attempt"]),
            );
            if self.winners.get(&number) != Some(&name) {
                self.bill.stopped(number, &name, stop);
            }
        }
    }
}

pub(super) fn u64_of(value: &Value) -> u64 {
    value.as_u64().unwrap_or_default()
}

fn job_of(attempt: &Value) -> u64 {
    u64_of(&attempt["task"]["job"])
}

/// As tasks know it: `job.task/generation.epoch.number`.
fn name(attempt: &Value) -> String {
    let number = |value: &Value| u64_of(value).to_string();
    format!(
        "{}.{}/{}.{}.{}",
        number(&attempt["task"]["job"]),
        number(&attempt["task"]["number"]),
        number(&attempt["generation"]),
        number(&attempt["epoch"]),
        number(&attempt["number"])
    )
}

/// Ids are texts, or lists of their bytes.
fn hex(id: &Value) -> String {
    match id {
        Value::Array(bytes) => bytes
            .iter()
            .map(|byte| format!("{:02x}", u64_of(byte)))
            .collect(),
        other => other.as_str().unwrap_or_default().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn attempt(number: u64) -> Value {
        json!({ "task": { "job": 1, "number": 0 }, "generation": 0, "epoch": 1, "number": number })
    }

    fn story(records: Vec<Value>) -> Story {
        let lines = [json!({ "index": 1, "term": 1, "records": records })];
        Story::new(&entries(&lines))
    }

    #[test]
    fn the_first_winner_counts_and_a_late_one_changes_nothing() {
        let told = story(vec![
            json!({ "Epoch": { "epoch": 1 } }),
            json!({ "JobAccepted": { "key": [10, 255], "spec": { "groups": [{ "array": null }] } } }),
            json!({ "TaskDone": { "attempt": attempt(2) } }),
            json!({ "TaskDone": { "attempt": attempt(1) } }),
            json!({ "JobEnded": { "job": 1, "end": "Done" } }),
        ]);
        assert_eq!(told.wrong, Vec::<String>::new());
        assert_eq!(told.late, 1);
        assert_eq!(told.jobs[&1].key, "0aff");
        assert_eq!(told.jobs[&1].end.as_deref(), Some("Done"));
        assert_eq!(told.jobs[&1].winners[&0], "1.0/0.1.2");
    }

    #[test]
    fn what_comes_of_an_epoch_that_never_began_is_found() {
        let told = story(vec![
            json!({ "JobAccepted": { "key": [1], "spec": { "groups": [{}] } } }),
            json!({ "TaskDone": { "attempt": attempt(1) } }),
        ]);
        assert_eq!(told.wrong.len(), 1, "{:?}", told.wrong);
    }

    #[test]
    fn what_a_revoked_worker_reports_is_not_taken() {
        let told = story(vec![
            json!({ "Epoch": { "epoch": 1 } }),
            json!({ "JobAccepted": { "key": [1], "spec": { "groups": [{}] } } }),
            json!({ "MemberRevoked": { "peer": [7] } }),
            json!({ "TaskDone": { "attempt": attempt(1), "worker": [7] } }),
        ]);
        assert!(told.jobs[&1].winners.is_empty());
        assert_eq!(told.late, 1);
    }

    #[test]
    fn an_open_job_grows_once_under_one_key_and_is_done_when_it_is_closed() {
        let added = |key: u8, id: &str, reads: &str| {
            let group = json!({ "id": id, "inputs": [{ "Task": reads }] });
            json!({ "GroupsAdded": { "job": 1, "key": [key], "extension": { "groups": [group] } } })
        };
        let qos = json!({ "open_timeout": { "secs": 1, "nanos": 0 } });
        let done = json!({ "JobEnded": { "job": 1, "end": "Done" } });
        let told = story(vec![
            json!({ "Epoch": { "epoch": 1 } }),
            json!({ "JobAcceptedNamed": { "key": [1], "spec": { "qos": qos, "groups": [{ "id": "a" }] } } }),
            added(1, "b", "a"),
            added(1, "b", "a"),
            added(2, "b", "a"),
            added(3, "c", "nobody"),
            json!({ "OutputsReleased": { "job": 1, "tasks": [[0, 1]] } }),
            added(4, "d", "a"),
            json!({ "TaskDone": { "attempt": attempt(1) } }),
            done.clone(),
            json!({ "JobClosed": { "job": 1, "by": "Request" } }),
            added(5, "e", "b"),
            done,
        ]);
        assert_eq!(told.jobs[&1].tasks, 2);
        assert_eq!(
            told.late, 7,
            "four extensions, two ends and one extension of a closed job"
        );
        assert_eq!(told.jobs[&1].end, None, "one of two is done");
        assert_eq!(told.wrong, Vec::<String>::new());
    }

    #[test]
    fn a_task_that_failed_is_not_done_until_its_job_is_retried() {
        let task = json!({ "job": 1, "number": 0 });
        let failed = json!({ "TaskFailed": { "task": task, "generation": 0, "stopped": [] } });
        let mut records = vec![
            json!({ "Epoch": { "epoch": 1 } }),
            json!({ "JobAccepted": { "key": [1], "spec": { "groups": [{}] } } }),
            failed,
            json!({ "TaskDone": { "attempt": attempt(1) } }),
            json!({ "JobEnded": { "job": 1, "end": { "Failed": {} } } }),
        ];
        let told = story(records.clone());
        assert!(told.jobs[&1].winners.is_empty());
        assert_eq!(told.late, 1);
        let mut again = attempt(2);
        again["generation"] = json!(1);
        records.push(json!({ "JobRetried": { "job": 1 } }));
        records.push(json!({ "TaskDone": { "attempt": attempt(2) } }));
        records.push(json!({ "TaskDone": { "attempt": again } }));
        let told = story(records);
        assert_eq!((told.jobs[&1].winners.len(), told.late), (1, 2));
        assert_eq!(told.jobs[&1].end, None);
    }

    #[test]
    fn logs_that_differ_are_found() {
        let line = |index, what| json!({ "index": index, "term": 1, "record": what });
        let one = entries(&[line(1, "a"), line(2, "b")]);
        let other = entries(&[line(2, "c"), line(3, "d")]);
        assert_eq!(difference(&one, &other), Some(2));
        assert_eq!(difference(&one, &one.clone()), None);
    }
}
