//! What attempts are charged for, and what a job's execution costs.
//!
//! An attempt is charged once, by the first record that ends or stops it, so that a job's cost is final with the
//! record of its end and is the same on every supervisor.

use crate::supervisor::durable::job::{EndedAttempt, Job, Task};
use hedge_model::ledger::{Charge, MicroUnits, Part, Stopped};
use hedge_model::msg::Usage;
use hedge_model::view::CostView;
use hedge_model::{AttemptId, Ending};
use std::time::Duration;

/// Which part of a cost an attempt belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) enum Account {
    Useful,
    Redundant,
    Lost,
}

impl Account {
    /// Where an attempt belongs that did not win.
    pub fn of(end: &Ending) -> Self {
        match end {
            Ending::Cancelled => Account::Redundant,
            _ => Account::Lost,
        }
    }
}

/// What leaders' clocks may lack of a job's age when they take over from one another.
const AGE_SLACK: Duration = Duration::from_secs(3600);
/// Most processors whose time one attempt can have used.
const PROCESSORS_MAX: u32 = 4096;
/// Most bytes that are believed to have been moved for one attempt: a pebibyte.
const MOVED_MAX: u64 = 1 << 50;

/// What a worker says that an attempt took, cut to what is possible in a job of this age: sums of it stay exact.
pub(crate) fn plausible(usage: Usage, age: Duration) -> Usage {
    let most = age.saturating_add(AGE_SLACK);
    Usage {
        queued: usage.queued.min(most),
        staging: usage.staging.min(most),
        running: usage.running.min(most),
        cpu: usage.cpu.min(most.saturating_mul(PROCESSORS_MAX)),
        memory_peak: usage.memory_peak,
        paused: usage.paused.min(most),
        moved: usage.moved.min(MOVED_MAX),
    }
}

/// What an attempt is charged that ended by itself.
pub(crate) fn used(class: hedge_model::capacity::Class, usage: &Usage) -> Charge {
    Charge {
        class,
        occupied: usage
            .staging
            .saturating_add(usage.running)
            .saturating_sub(usage.paused),
        moved: usage.moved,
    }
}

impl Job {
    /// The price of a charge for one of the job's attempts.
    pub(crate) fn price(&self, attempt: AttemptId, charge: &Charge) -> MicroUnits {
        let group = self.spec.group_of(attempt.task.number);
        self.tariff
            .price(charge, &self.spec.groups()[group].resources)
    }

    fn part(&mut self, account: Account) -> &mut Part {
        match account {
            Account::Useful => &mut self.cost.useful,
            Account::Redundant => &mut self.cost.redundant,
            Account::Lost => &mut self.cost.lost,
        }
    }

    /// Adds an attempt's charge to the cost.
    pub(crate) fn charge(&mut self, account: Account, attempt: AttemptId, charge: &Charge) {
        let price = self.price(attempt, charge);
        self.part(account).add(charge, price);
    }

    /// Takes an attempt's charge off the cost again.
    pub(crate) fn uncharge(&mut self, account: Account, attempt: AttemptId, charge: &Charge) {
        let price = self.price(attempt, charge);
        self.part(account).take(charge, price);
    }

    /// Charges attempts that a record stops, unless they are charged already.
    pub(crate) fn stop(&mut self, stopped: &[Stopped]) {
        for stop in stopped {
            let id = stop.attempt;
            let won = self
                .tasks
                .get(id.task.number as usize)
                .is_none_or(|task| task.done().is_some_and(|done| done.attempt == id));
            if won || self.history.contains_key(&id) || self.stopped.contains_key(&id) {
                continue;
            }
            self.charge(Account::Redundant, id, &stop.charge);
            self.stopped.insert(id, stop.charge);
        }
    }

    /// Charges an attempt that ended, unless it is charged already or the job is over; gives what it was
    /// charged, and to which account.
    pub(crate) fn charge_ended(&mut self, ended: &EndedAttempt) -> (Charge, Option<Account>) {
        let id = ended.attempt;
        if let Some(charge) = self.stopped.remove(&id) {
            return (charge, Some(Account::Redundant));
        }
        let before = self.history.get(&id).map(|b| (b.charge, b.account));
        if !self.active() {
            return before.unwrap_or_default();
        }
        if let Some((charge, Some(account))) = before {
            self.uncharge(account, id, &charge);
        }
        let account = Account::of(&ended.end);
        self.charge(account, id, &ended.charge);
        (ended.charge, Some(account))
    }

    /// The cost as the attempts say, for checks.
    pub(crate) fn cost_by_attempts(&self) -> hedge_model::ledger::Cost {
        let mut cost = hedge_model::ledger::Cost::default();
        let mut add = |account, id: AttemptId, charge: &Charge| {
            let price = self.price(id, charge);
            match account {
                Account::Useful => cost.useful.add(charge, price),
                Account::Redundant => cost.redundant.add(charge, price),
                Account::Lost => cost.lost.add(charge, price),
            }
        };
        for done in self.tasks.iter().filter_map(Task::done) {
            add(Account::Useful, done.attempt, &done.charge());
        }
        for ended in self.history.values() {
            if let Some(account) = ended.account {
                add(account, ended.attempt, &ended.charge);
            }
        }
        for (id, charge) in &self.stopped {
            add(Account::Redundant, *id, charge);
        }
        for (id, charge) in &self.remade {
            add(Account::Lost, *id, charge);
        }
        cost
    }
}

/// A job's cost for those who ask.
pub(crate) fn cost_view(job: &Job) -> CostView {
    CostView {
        currency: job.tariff.currency.to_string(),
        useful: job.cost.useful,
        redundant: job.cost.redundant,
        lost: job.cost.lost,
        total_micro: job.cost.total(),
        billed_micro: job.cost.billed(&job.tariff),
    }
}
