//! Charges of attempts, and the cost of a job.
//!
//! The first record that ends or stops an attempt charges it, once. A job's cost is therefore final with the record
//! of its end, and the same on every supervisor.

use crate::supervisor::durable::job::{EndedAttempt, Job, Task};
use hedge_model::ledger::{Charge, MicroUnits, Part, Stopped};
use hedge_model::msg::Usage;
use hedge_model::view::CostView;
use hedge_model::{AttemptId, Ending};
use std::time::Duration;

/// The part of a job's cost that an attempt belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) enum Account {
    Useful,
    Redundant,
    Lost,
}

impl Account {
    /// Returns the account of an attempt that did not win.
    pub fn of(end: &Ending) -> Self {
        match end {
            Ending::Cancelled => Account::Redundant,
            _ => Account::Lost,
        }
    }
}

/// How much the clocks of successive leaders may understate a job's age.
const AGE_SLACK: Duration = Duration::from_secs(3600);
/// The most processors that one attempt can use.
const PROCESSORS_MAX: u32 = 4096;
/// The most bytes that one attempt can have moved: a pebibyte.
const MOVED_MAX: u64 = 1 << 50;

/// Limits a worker's report of an attempt's usage to what is possible in a job of this age, so that sums stay exact.
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

/// Returns the charge of an attempt that ended by itself.
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
    /// Returns the price of a charge for one of the job's attempts.
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

    /// Removes an attempt's charge from the cost.
    pub(crate) fn uncharge(&mut self, account: Account, attempt: AttemptId, charge: &Charge) {
        let price = self.price(attempt, charge);
        self.part(account).take(charge, price);
    }

    /// Charges the attempts that a record stops, unless they are charged already.
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

    /// Charges an ended attempt, unless it is charged already or the job has ended. Returns its charge and account.
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

    /// Computes the cost from the attempts, for checks.
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

/// Returns the view of a job's cost.
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
