//! What execution costs: occupied time, tariffs, and a job's bill. All money is in whole micro-units of a named
//! currency, so that sums are exact.

use crate::capacity::Class;
use crate::{AttemptId, PeerId, Resources};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;

/// Millionths of a unit of the tariff's currency.
pub type MicroUnits = u64;

/// What one attempt is charged for. Durations are the worker's where it told them, else the leader's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Charge {
    /// The class of its worker when it was assigned.
    pub class: Class,
    /// How long it held its resources, pauses taken off: up to its end; for one that was cancelled up to the
    /// decision, for one that was lost up to the last heartbeat.
    pub occupied: Duration,
    /// Bytes moved for it, as far as known.
    pub moved: u64,
}

/// An attempt that is stopped by the record that says so, and what it is charged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stopped {
    /// Which.
    pub attempt: AttemptId,
    /// Whether it was a redundant one.
    pub redundant: bool,
    /// Where it ran.
    pub worker: PeerId,
    /// For what.
    pub charge: Charge,
}

/// What one class costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rates {
    /// For each second in which one CPU is held.
    pub cpu_second: MicroUnits,
    /// For each second in which one GiB of memory is held.
    pub gib_second: MicroUnits,
    /// For each GiB moved.
    pub gib_moved: MicroUnits,
}

/// What time and data cost, and who pays for what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tariff {
    /// The name of the currency.
    pub currency: Arc<str>,
    /// Rates of most workers.
    pub normal: Rates,
    /// Rates of the higher class.
    pub higher: Rates,
    /// Whether the client pays for copies that did not win; the grid does otherwise.
    pub bill_redundant: bool,
    /// Whether the client pays for what was lost or failed; the grid does otherwise.
    pub bill_lost: bool,
}

impl Default for Tariff {
    /// 10 micro-units for a CPU-second and 1 for a GiB-second, twice that in the higher class, nothing for data:
    /// near what an hour of a small cloud machine costs in dollars. Clients pay for the redundancy that they
    /// asked for, not for machines that the grid lost.
    fn default() -> Self {
        Self {
            currency: "credit".into(),
            normal: Rates {
                cpu_second: 10,
                gib_second: 1,
                gib_moved: 0,
            },
            higher: Rates {
                cpu_second: 20,
                gib_second: 2,
                gib_moved: 0,
            },
            bill_redundant: true,
            bill_lost: false,
        }
    }
}

impl Tariff {
    /// The price of one attempt that held `resources`; each part is rounded up to a whole micro-unit.
    pub fn price(&self, charge: &Charge, resources: &Resources) -> MicroUnits {
        let rates = match charge.class {
            Class::Normal => &self.normal,
            Class::Higher => &self.higher,
        };
        let ns = charge.occupied.as_nanos();
        let cpu = part(
            ns,
            u128::from(resources.cpus_milli),
            rates.cpu_second,
            1_000 * SECOND,
        );
        let memory = part(
            ns,
            u128::from(resources.memory),
            rates.gib_second,
            GIB * SECOND,
        );
        let moved = part(1, u128::from(charge.moved), rates.gib_moved, GIB);
        cpu.saturating_add(memory).saturating_add(moved)
    }
}

const SECOND: u128 = 1_000_000_000;
const GIB: u128 = 1 << 30;

fn part(ns: u128, amount: u128, rate: MicroUnits, unit: u128) -> MicroUnits {
    let all = ns.saturating_mul(amount).saturating_mul(u128::from(rate));
    u64::try_from(all.div_ceil(unit)).unwrap_or(u64::MAX)
}

/// What a job cost so far; final once it has ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cost {
    /// Attempts that won.
    pub useful: Part,
    /// Attempts that were stopped or too late because another won or enough was done.
    pub redundant: Part,
    /// Attempts that failed or were lost with their worker, and winners whose outputs were lost.
    pub lost: Part,
}

/// One part of a cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "schema", schema(as = CostPart))]
pub struct Part {
    /// Attempts.
    pub attempts: u64,
    /// Time for which they held their resources, in nanoseconds.
    pub occupied_ns: u64,
    /// Of this, in the higher class.
    pub higher_ns: u64,
    /// Price in micro-units.
    pub micro: MicroUnits,
}

impl Part {
    /// Adds one attempt.
    pub fn add(&mut self, charge: &Charge, price: MicroUnits) {
        let ns = nanos(charge);
        self.attempts += 1;
        self.occupied_ns = self.occupied_ns.saturating_add(ns);
        if charge.class == Class::Higher {
            self.higher_ns = self.higher_ns.saturating_add(ns);
        }
        self.micro = self.micro.saturating_add(price);
    }

    /// Takes one attempt away that was added before.
    pub fn take(&mut self, charge: &Charge, price: MicroUnits) {
        let ns = nanos(charge);
        self.attempts = self.attempts.saturating_sub(1);
        self.occupied_ns = self.occupied_ns.saturating_sub(ns);
        if charge.class == Class::Higher {
            self.higher_ns = self.higher_ns.saturating_sub(ns);
        }
        self.micro = self.micro.saturating_sub(price);
    }
}

fn nanos(charge: &Charge) -> u64 {
    u64::try_from(charge.occupied.as_nanos()).unwrap_or(u64::MAX)
}

impl Cost {
    /// All of it, in micro-units.
    pub fn total(&self) -> MicroUnits {
        self.useful
            .micro
            .saturating_add(self.redundant.micro)
            .saturating_add(self.lost.micro)
    }

    /// What the client pays.
    pub fn billed(&self, tariff: &Tariff) -> MicroUnits {
        let share = |part: &Part, billed: bool| if billed { part.micro } else { 0 };
        self.useful
            .micro
            .saturating_add(share(&self.redundant, tariff.bill_redundant))
            .saturating_add(share(&self.lost, tariff.bill_lost))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prices_are_exact_and_round_up() {
        let tariff = Tariff::default();
        let charge = Charge {
            class: Class::Higher,
            occupied: Duration::from_secs(3),
            moved: 0,
        };
        let mut resources = Resources::cpus(2_000);
        resources.memory = 1 << 30;
        assert_eq!(tariff.price(&charge, &resources), 2 * 3 * 20 + 3 * 2);
        let instant = Charge {
            occupied: Duration::from_nanos(1),
            ..Charge::default()
        };
        assert_eq!(
            tariff.price(&instant, &Resources::cpus(1)),
            1,
            "never for nothing"
        );
        let longest = Charge {
            occupied: Duration::MAX,
            ..Charge::default()
        };
        assert_eq!(
            tariff.price(&longest, &Resources::cpus(u64::MAX)),
            u64::MAX,
            "never wraps"
        );
    }
}
