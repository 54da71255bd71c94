//! Clients: each submits one job after another, waits for its end and brings its results, and writes down what it
//! was told. A request that was not answered has an unknown outcome and is made again.

use super::dice::Dice;
use super::jobs::{Expected, Job};
use super::log::Log;
use super::peers::{Called, Peers, call};
use anyhow::Result;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Longest wait for one answer, before the request is made again.
const ANSWER: Duration = Duration::from_secs(20);
/// Jobs whose cost is asked for again in the end, the oldest: they have seen the most leaders.
const ASKED_AGAIN: usize = 20;
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(300);

/// What a client knows of one of its jobs.
#[derive(Clone, Debug)]
pub struct Known {
    /// What it is.
    pub job: Job,
    /// Its number, once it was acknowledged.
    pub number: Option<u64>,
    /// Milliseconds from the first request to the acknowledgement.
    pub accepted_ms: Option<u64>,
    /// How it ended, as the client was told: the state, and the files that it brought.
    pub ended: Option<(String, BTreeMap<String, Vec<u8>>)>,
    /// What it cost, as it was told: right after the end, and once more when nothing is disturbed any more.
    pub costs: Vec<Value>,
    /// A refusal that no fault explains.
    pub refused: Option<String>,
}

/// When clients stop.
pub struct Signs {
    /// No new jobs.
    pub enough: AtomicBool,
    /// Nothing at all any more: what has not ended by now never will.
    pub give_up: AtomicBool,
}

/// One client, from its start to its end.
pub struct Client<'a> {
    peers: &'a Peers,
    log: &'a Log,
    signs: &'a Signs,
    name: String,
    folder: PathBuf,
    dice: Dice,
}

impl<'a> Client<'a> {
    /// The client with this number.
    pub fn new(
        peers: &'a Peers,
        log: &'a Log,
        signs: &'a Signs,
        number: usize,
        dice: Dice,
    ) -> Client<'a> {
        let name = format!("client-{number}");
        let folder = peers.folder.join(&name);
        Client {
            peers,
            log,
            signs,
            name,
            folder,
            dice,
        }
    }

    /// Submits jobs until there are enough.
    ///
    /// # Errors
    /// Its own files cannot be written, or `hedge` not started.
    pub fn run(mut self) -> Result<Vec<Known>> {
        let mut all = Vec::new();
        while !self.signs.enough.load(Ordering::Relaxed) {
            let number = all.len();
            let known = self.one(number)?;
            all.push(known);
            // What worked is not needed any more.
            let folder = self.folder.join(number.to_string());
            if all.last().is_some_and(|known| known.ended.is_some()) {
                fs::remove_dir_all(folder)?;
            }
        }
        for known in all.iter_mut().take(ASKED_AGAIN) {
            self.cost(known)?;
        }
        Ok(all)
    }

    /// Asks what an ended job cost.
    fn cost(&self, known: &mut Known) -> Result<()> {
        let Some(id) = known.number.filter(|_| known.ended.is_some()) else {
            return Ok(());
        };
        let Some(cost) = self.insist(&self.folder, "cost", &["cost", &id.to_string()])? else {
            return Ok(());
        };
        match cost.value() {
            Some(cost) => known.costs.push(cost),
            None => known.refused = Some(format!("cost: {}", cost.err.trim())),
        }
        Ok(())
    }

    fn one(&mut self, number: usize) -> Result<Known> {
        let folder = self.folder.join(number.to_string());
        let token = format!("{}-{number}", self.name);
        let job = Job::draw(&mut self.dice, &token);
        job.write(&folder)?;
        let mut known = Known {
            job,
            number: None,
            accepted_ms: None,
            ended: None,
            costs: Vec::new(),
            refused: None,
        };
        let key = format!("{:016x}{:016x}", self.dice.next(), self.dice.next());
        let start = self.log.now_ms();
        let accepted = self.insist(&folder, "submit", &["submit", "job.toml", "--key", &key])?;
        let Some(accepted) = accepted else {
            return Ok(known);
        };
        known.number = accepted.value().and_then(|value| value["job"].as_u64());
        let Some(id) = known.number else {
            known.refused = Some(format!("submission: {}", accepted.err.trim()));
            return Ok(known);
        };
        known.accepted_ms = Some(self.log.now_ms() - start);
        let id = id.to_string();
        if known.job.expected == Expected::Cancelled {
            self.insist(&folder, "cancel", &["cancel", &id])?;
        } else if self.dice.once_in(4) {
            // The same submission once more is the same job.
            let again = self.insist(&folder, "submit", &["submit", "job.toml", "--key", &key])?;
            let again = again.and_then(|again| again.value()?["job"].as_u64());
            if again.is_some_and(|again| Some(again) != known.number) {
                known.refused = Some(format!(
                    "the same submission was job {id}, then job {again:?}"
                ));
            }
        }
        let files = matches!(
            known.job.expected,
            Expected::Files(_) | Expected::Winners(_)
        );
        let out = ["--out", "results"];
        let wait = ["wait", &id];
        let wait = [&wait[..], if files { &out } else { &[] }].concat();
        if let Some(ended) = self.insist(&folder, "wait", &wait)? {
            let view = ended.json().unwrap_or(Value::Null);
            match view["state"].as_str() {
                Some(state) => {
                    known.ended = Some((state.to_owned(), results(&folder.join("results"))?));
                }
                None => known.refused = Some(format!("wait: {}", ended.err.trim())),
            }
            self.cost(&mut known)?;
        }
        Ok(known)
    }

    /// Asks until there is an answer; none where it is told to give up. What means that the grid could not be
    /// reached, or did not answer in time, is no answer.
    fn insist(&self, folder: &Path, op: &str, args: &[&str]) -> Result<Option<Called>> {
        loop {
            if self.signs.give_up.load(Ordering::Relaxed) {
                return Ok(None);
            }
            self.log
                .add(&self.name, json!({ "op": op, "args": args, "is": "asked" }));
            let called = call(&mut self.peers.client(folder, args), ANSWER)?;
            let unknown = matches!(called.code, None | Some(3)) || half_brought(op, &called);
            let is = if unknown { "unknown" } else { "answered" };
            let out = String::from_utf8_lossy(&called.out).into_owned();
            self.log.add(
                &self.name,
                json!({ "op": op, "is": is, "code": called.code, "out": out, "err": called.err.trim() }),
            );
            if !unknown {
                return Ok(Some(called));
            }
            std::thread::sleep(PAUSE);
        }
    }
}

/// A job that is done, but whose results could not be brought just now, ends with 1 and no view.
fn half_brought(op: &str, called: &Called) -> bool {
    op == "wait"
        && called.code == Some(1)
        && called.json().is_none_or(|view| view["state"].is_null())
}

fn results(folder: &Path) -> Result<BTreeMap<String, Vec<u8>>> {
    let mut all = BTreeMap::new();
    let Ok(entries) = fs::read_dir(folder) else {
        return Ok(all);
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            let name = entry.file_name().to_string_lossy().into_owned();
            all.insert(name, fs::read(entry.path())?);
        }
    }
    Ok(all)
}
