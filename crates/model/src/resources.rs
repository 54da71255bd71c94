//! Amounts of what tasks need and workers have.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;

/// An amount of a resource: CPUs in thousandths, memory and disk in bytes, others in whole pieces.
pub type Amount = u64;

/// A short vector of named amounts. CPUs are counted in thousandths, memory and disk in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    /// Thousandths of a CPU.
    pub cpus_milli: Amount,
    /// Bytes of memory.
    pub memory: Amount,
    /// Bytes of scratch disk.
    pub disk: Amount,
    /// Others by name (`gpus`, own names), sorted by name, without zeros.
    pub named: Vec<(Arc<str>, Amount)>,
}

impl Resources {
    /// Nothing but `cpus_milli` thousandths of a CPU.
    pub fn cpus(cpus_milli: Amount) -> Self {
        Self {
            cpus_milli,
            ..Self::default()
        }
    }

    /// How much there is of a resource that is neither CPUs, memory nor disk.
    pub fn named(&self, name: &str) -> Amount {
        self.named
            .iter()
            .find(|(n, _)| &**n == name)
            .map_or(0, |(_, amount)| *amount)
    }

    /// Whether `need` fits in here.
    pub fn covers(&self, need: &Resources) -> bool {
        self.missing(need).is_none()
    }

    /// The first resource of which `need` is more than is here: its name, the need, what is here.
    pub fn missing<'a>(&self, need: &'a Resources) -> Option<(&'a str, Amount, Amount)> {
        [
            ("cpus", need.cpus_milli, self.cpus_milli),
            ("memory", need.memory, self.memory),
            ("disk", need.disk, self.disk),
        ]
        .into_iter()
        .chain(
            need.named
                .iter()
                .map(|(name, amount)| (&**name, *amount, self.named(name))),
        )
        .find(|(_, need, have)| need > have)
    }

    /// Takes `part` away; amounts stop at zero.
    pub fn take(&mut self, part: &Resources) {
        self.cpus_milli = self.cpus_milli.saturating_sub(part.cpus_milli);
        self.memory = self.memory.saturating_sub(part.memory);
        self.disk = self.disk.saturating_sub(part.disk);
        for (name, amount) in &part.named {
            if let Some((_, have)) = self.named.iter_mut().find(|(n, _)| n == name) {
                *have = have.saturating_sub(*amount);
            }
        }
    }

    /// Gives `part` back, which was taken before.
    pub fn give(&mut self, part: &Resources) {
        self.cpus_milli += part.cpus_milli;
        self.memory += part.memory;
        self.disk += part.disk;
        for (name, amount) in &part.named {
            if let Some((_, have)) = self.named.iter_mut().find(|(n, _)| n == name) {
                *have += amount;
            }
        }
    }
}

/// Shows an amount of the resource `name` for people: `2.5`, `32 MiB`, `4`.
pub fn show_amount(name: &str, amount: Amount) -> String {
    match name {
        "cpus" => format!("{}", amount as f64 / 1000.0),
        "memory" | "disk" => crate::units::show_bytes(amount),
        _ => amount.to_string(),
    }
}

impl fmt::Display for Resources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cpus {}", show_amount("cpus", self.cpus_milli))?;
        for (name, amount) in [("memory", self.memory), ("disk", self.disk)] {
            if amount > 0 {
                write!(f, ", {name} {}", show_amount(name, amount))?;
            }
        }
        self.named
            .iter()
            .try_for_each(|(name, amount)| write!(f, ", {name} {amount}"))
    }
}
