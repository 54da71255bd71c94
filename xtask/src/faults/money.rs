//! What jobs cost, worked out anew from the records: each attempt is charged once, by the first record that ends or
//! stops it.

use super::journal::u64_of;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Prices of a second of a CPU and of a GiB in the normal class, in millionths; the higher class costs twice that.
const CPU_SECOND: u128 = 10;
const GIB_SECOND: u128 = 1;
const SECOND: u128 = 1_000_000_000;
const GIB: u128 = 1 << 30;

/// Which part of a job's cost an attempt is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Account {
    Useful,
    Redundant,
    Lost,
}

/// What an attempt is charged for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Charge {
    account: Account,
    ns: u64,
    higher: bool,
    micro: u64,
}

/// What tasks of a group hold while they run.
#[derive(Clone, Copy, Debug, Default)]
struct Held {
    tasks: u64,
    cpus_milli: u128,
    memory: u128,
}

/// What the attempts of one job cost.
#[derive(Clone, Debug, Default)]
pub struct Bill {
    groups: Vec<Held>,
    charges: BTreeMap<String, Charge>,
    /// Stopped by a record, and not yet heard of.
    stopped: BTreeSet<String>,
    /// Ended without deciding their task; whether they may still come back.
    ended: BTreeMap<String, bool>,
}

impl Bill {
    /// The job has a group of so many tasks.
    pub fn add_group(&mut self, tasks: u64, group: &Value) {
        self.groups.push(Held {
            tasks,
            cpus_milli: u64_of(&group["resources"]["cpus_milli"]).into(),
            memory: u64_of(&group["resources"]["memory"]).into(),
        });
    }

    /// An attempt won its task.
    pub fn won(&mut self, task: u64, name: &str, record: &Value) {
        let usage = &record["usage"];
        let held = nanos(&usage["staging"]) + nanos(&usage["running"]);
        let ns = held.saturating_sub(nanos(&usage["paused"]));
        self.ended.remove(name);
        self.add(Account::Useful, task, name, ns, &record["class"]);
    }

    /// A record stopped an attempt.
    pub fn stopped(&mut self, task: u64, name: &str, stop: &Value) {
        if !self.charges.contains_key(name) && !self.ended.contains_key(name) {
            self.stopped.insert(name.to_owned());
            self.charged(Account::Redundant, task, name, &stop["charge"]);
        }
    }

    /// An attempt ended without deciding its task; `over` says whether the job has.
    pub fn ended(&mut self, task: u64, name: &str, record: &Value, over: bool) {
        let end = match &record["end"] {
            Value::Object(end) => end.keys().next().map_or("", String::as_str),
            end => end.as_str().unwrap_or_default(),
        };
        let lost = end == "Lost";
        match self.ended.get(name) {
            Some(false) => return,
            Some(true) if lost => return,
            _ => {}
        }
        self.ended.insert(name.to_owned(), lost);
        if self.stopped.remove(name) || over {
            return;
        }
        let account = match end {
            "Cancelled" => Account::Redundant,
            _ => Account::Lost,
        };
        self.charged(account, task, name, &record["charge"]);
    }

    /// What a winner left was lost.
    pub fn remade(&mut self, winner: &str) {
        if let Some(charge) = self.charges.get_mut(winner) {
            charge.account = Account::Lost;
        }
    }

    fn charged(&mut self, account: Account, task: u64, name: &str, charge: &Value) {
        let ns = nanos(&charge["occupied"]);
        self.add(account, task, name, ns, &charge["class"]);
    }

    fn add(&mut self, account: Account, task: u64, name: &str, ns: u64, class: &Value) {
        let higher = class == "higher";
        let mut before = 0;
        let held = self.groups.iter().find(|group| {
            before += group.tasks;
            task < before
        });
        let held = held.copied().unwrap_or_default();
        let rate = if higher { 2 } else { 1 };
        let part = |amount: u128, price: u128, unit: u128| {
            (u128::from(ns) * amount * price * rate).div_ceil(unit) as u64
        };
        let micro = part(held.cpus_milli, CPU_SECOND, 1_000 * SECOND)
            + part(held.memory, GIB_SECOND, GIB * SECOND);
        let charge = Charge {
            account,
            ns,
            higher,
            micro,
        };
        self.charges.insert(name.to_owned(), charge);
    }

    /// Where what a client was told differs from the attempts' sum.
    pub fn differs(&self, told: &Value) -> Option<String> {
        let accounts = [
            ("useful", Account::Useful),
            ("redundant", Account::Redundant),
            ("lost", Account::Lost),
        ];
        let mut total = 0;
        for (name, account) in accounts {
            let all = || self.charges.values().filter(|one| one.account == account);
            let micro: u64 = all().map(|one| one.micro).sum();
            total += micro;
            let sums = [
                ("attempts", all().count() as u64),
                ("occupied_ns", all().map(|one| one.ns).sum()),
                (
                    "higher_ns",
                    all().filter(|one| one.higher).map(|one| one.ns).sum(),
                ),
                ("micro", micro),
            ];
            for (part, sum) in sums {
                let said = &told[name][part];
                if *said != sum {
                    return Some(format!(
                        "{name} {part}: told {said}, the attempts' sum is {sum}"
                    ));
                }
            }
        }
        let said = &told["total_micro"];
        (*said != total).then(|| format!("the total: told {said}, the attempts' sum is {total}"))
    }
}

fn nanos(duration: &Value) -> u64 {
    u64_of(&duration["secs"]) * 1_000_000_000 + u64_of(&duration["nanos"])
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn bill() -> Bill {
        let group = json!({ "resources": { "cpus_milli": 1000, "memory": 1 << 30 } });
        let mut bill = Bill::default();
        bill.add_group(1, &group);
        bill
    }

    fn seconds(secs: u64) -> Value {
        json!({ "secs": secs, "nanos": 0 })
    }

    fn won(secs: u64) -> Value {
        let usage =
            json!({ "staging": seconds(1), "running": seconds(secs), "paused": seconds(1) });
        json!({ "usage": usage, "class": "higher" })
    }

    fn charge(secs: u64) -> Value {
        json!({ "charge": { "occupied": seconds(secs), "class": "normal" }, "end": "Lost" })
    }

    fn part(attempts: u64, ns: u64, higher: u64, micro: u64) -> Value {
        json!({ "attempts": attempts, "occupied_ns": ns, "higher_ns": higher, "micro": micro })
    }

    #[test]
    fn the_parts_and_the_total_are_sums_of_the_attempts() {
        let mut bill = bill();
        bill.stopped(0, "a", &charge(2));
        bill.won(0, "b", &won(3));
        bill.ended(0, "c", &charge(4), false);
        let told = |total: u64| {
            json!({
                "useful": part(1, 3_000_000_000, 3_000_000_000, 3 * 22), "redundant": part(1, 2_000_000_000, 0, 2 * 11),
                "lost": part(1, 4_000_000_000, 0, 4 * 11), "total_micro": total,
            })
        };
        assert_eq!(bill.differs(&told(132)), None);
        assert!(bill.differs(&told(133)).is_some());
    }

    #[test]
    fn an_attempt_is_charged_once_whatever_is_heard_of_it() {
        let mut bill = bill();
        bill.ended(0, "a", &charge(2), false);
        bill.ended(0, "a", &charge(9), false);
        bill.won(0, "a", &won(3));
        bill.remade("a");
        let nothing = part(0, 0, 0, 0);
        let told = json!({
            "useful": nothing, "redundant": nothing, "total_micro": 66,
            "lost": part(1, 3_000_000_000, 3_000_000_000, 66),
        });
        assert_eq!(bill.differs(&told), None);
    }
}
