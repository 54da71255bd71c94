//! Amounts of resources that tasks need and workers have.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;

/// An amount of a resource: CPUs in thousandths, memory and disk in bytes, others in whole units.
pub type Amount = u64;

/// A short vector of named amounts. CPUs are counted in thousandths, memory and disk in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Resources {
    /// Thousandths of a CPU.
    pub cpus_milli: Amount,
    /// Bytes of memory.
    pub memory: Amount,
    /// Bytes of scratch disk.
    pub disk: Amount,
    /// Others by name (`gpus`, own names), sorted by name, without zeros.
    #[cfg_attr(feature = "schema", schema(value_type = Vec<(String, u64)>))]
    pub named: Vec<(Arc<str>, Amount)>,
}

impl Resources {
    /// Returns only `cpus_milli` thousandths of a CPU.
    pub fn cpus(cpus_milli: Amount) -> Self {
        Self {
            cpus_milli,
            ..Self::default()
        }
    }

    /// Returns the amount of a resource other than CPUs, memory and disk.
    pub fn named(&self, name: &str) -> Amount {
        self.named
            .iter()
            .find(|(n, _)| &**n == name)
            .map_or(0, |(_, amount)| *amount)
    }

    /// Returns the amount of any resource.
    pub fn amount(&self, name: &str) -> Amount {
        match name {
            "cpus" => self.cpus_milli,
            "memory" => self.memory,
            "disk" => self.disk,
            other => self.named(other),
        }
    }

    /// Returns the names of the resources that every worker has, and of those in `named`.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        OWN.into_iter()
            .chain(self.named.iter().map(|(name, _)| &**name))
    }

    /// Splits the resources of a task that waits for a job of its own: returns the part that is free for others, and the
    /// part that the task keeps: its GPUs, because it still uses their memory.
    pub fn while_waiting(&self) -> (Resources, Resources) {
        let named = self.named.iter().cloned();
        let (kept, given) = named.partition(|(name, _)| &**name == GPUS);
        let given = Resources {
            named: given,
            ..self.clone()
        };
        let kept = Resources {
            named: kept,
            ..Resources::default()
        };
        (given, kept)
    }

    /// Returns whether there is enough of each resource for `need`.
    pub fn covers(&self, need: &Resources) -> bool {
        need.cpus_milli <= self.cpus_milli
            && need.memory <= self.memory
            && need.disk <= self.disk
            && need
                .named
                .iter()
                .all(|(name, amount)| *amount <= self.named(name))
    }

    /// Subtracts `part`; amounts do not fall below zero.
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

    /// Adds `part`, which was subtracted before. Named resources that are not in `self` are ignored.
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

/// The name of the resource that stands for GPUs.
pub const GPUS: &str = "gpus";

/// The resources that every worker has.
pub const OWN: [&str; 3] = ["cpus", "memory", "disk"];

/// Synonyms for the resources that every worker has.
const OTHER_WORDS: [(&str, &str); 11] = [
    ("core", "cpus"),
    ("cores", "cpus"),
    ("ncpus", "cpus"),
    ("processors", "cpus"),
    ("threads", "cpus"),
    ("vcpus", "cpus"),
    ("mem", "memory"),
    ("ram", "memory"),
    ("scratch", "disk"),
    ("space", "disk"),
    ("storage", "disk"),
];

/// Returns the resource of every worker that is probably meant by another name: `cpu` means `cpus`.
pub fn mistaken_for(name: &str) -> Option<&'static str> {
    let lower = name.to_ascii_lowercase();
    let other = OTHER_WORDS.iter().find(|(word, _)| *word == lower);
    let meant = other.map(|(_, meant)| *meant);
    let meant = meant.or_else(|| OWN.into_iter().find(|own| *own == lower));
    meant
        .or_else(|| nearest(&lower, OWN.into_iter().chain([GPUS])))
        .filter(|meant| *meant != name && OWN.contains(meant))
}

/// Returns the known name that `name` most likely misspells.
pub fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    known
        .map(|known| (strsim::osa_distance(name, known), known))
        .filter(|(distance, known)| *distance <= (known.len() / 3).max(1))
        .min()
        .map(|(_, known)| known)
}

/// Formats an amount of the resource `name` for people: `2.5`, `32 MiB`, `4`.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misspelled_resources_of_every_worker_are_recognised_and_others_are_not() {
        for (name, meant) in [
            ("cpu", "cpus"),
            ("CPUs", "cpus"),
            ("cores", "cpus"),
            ("mem", "memory"),
            ("memry", "memory"),
            ("disks", "disk"),
        ] {
            assert_eq!(mistaken_for(name), Some(meant), "{name}");
        }
        for name in [
            "cpus", "memory", "disk", "gpu", "gpus", "licence", "fpga", "slots",
        ] {
            assert_eq!(mistaken_for(name), None, "{name}");
        }
    }
}
