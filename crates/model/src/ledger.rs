//! Cost of execution: occupied time, tariffs, and a job's bill. All money is in whole micro-units of a named
//! currency, so that sums are exact.

use crate::capacity::Class;
use crate::{AttemptId, PeerId, Resources};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;

/// Millionths of a unit of the tariff's currency.
pub type MicroUnits = u64;

/// What one attempt is charged for. Durations are measured by the worker if it reported them, otherwise by the
/// leader.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Charge {
    /// The class of its worker when it was assigned.
    pub class: Class,
    /// How long it held its resources, without pauses: until its end, until the decision if it was cancelled, or
    /// until the last heartbeat if it was lost.
    pub occupied: Duration,
    /// Bytes transferred for it, as far as known.
    pub moved: u64,
}

/// An attempt that a record stops, with its charge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stopped {
    /// The attempt.
    pub attempt: AttemptId,
    /// Whether it is redundant.
    pub redundant: bool,
    /// The worker that ran it.
    pub worker: PeerId,
    /// Its charge.
    pub charge: Charge,
}

/// The prices of one class of workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rates {
    /// For each second that one CPU is held.
    pub cpu_second: MicroUnits,
    /// For each second that one GiB of memory is held.
    pub gib_second: MicroUnits,
    /// For each GiB transferred.
    pub gib_moved: MicroUnits,
}

/// The prices of time and data, and what the client is billed for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tariff {
    /// The name of the currency.
    pub currency: Arc<str>,
    /// Rates of most workers.
    pub normal: Rates,
    /// Rates of the higher class.
    pub higher: Rates,
    /// Whether the client pays for redundant attempts that did not win. Otherwise the grid does.
    pub bill_redundant: bool,
    /// Whether the client pays for attempts that were lost or failed. Otherwise the grid does.
    pub bill_lost: bool,
}

impl Default for Tariff {
    /// 10 micro-units for a CPU-second and 1 for a GiB-second, twice that in the higher class, nothing for data:
    /// about the price in dollars of an hour of a small cloud machine. Clients pay for the redundancy that they
    /// requested, not for machines that the grid lost.
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
    /// Returns the price of one attempt that held `resources`. Each part is rounded up to a whole micro-unit.
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

/// What a job has cost so far. It is final once the job has ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cost {
    /// Attempts that won.
    pub useful: Part,
    /// Attempts that were stopped or succeeded too late, because another won or enough was done.
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

    /// Removes one attempt that was added before.
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
    /// Returns the total in micro-units.
    pub fn total(&self) -> MicroUnits {
        self.useful
            .micro
            .saturating_add(self.redundant.micro)
            .saturating_add(self.lost.micro)
    }

    /// Returns what the client pays, in micro-units.
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
