//! What jobs count towards the quotas of their clients.

use hedge_model::spec::Extension;
use hedge_model::{Data, JobSpec};

/// What jobs count towards the quotas of their client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct QuotaUse {
    pub jobs: u64,
    pub tasks: u64,
    /// Total size of their inputs, in bytes.
    pub inputs: u64,
    /// Size of their encoded specifications, in bytes.
    pub spec: u64,
}

impl QuotaUse {
    /// What a job counts.
    pub fn of(spec: &JobSpec) -> Self {
        Self {
            jobs: 1,
            tasks: u64::from(spec.task_count()),
            inputs: bytes(spec.input_data()),
            spec: spec.encoded_bytes() as u64,
        }
    }

    /// What an extension of a job adds. It takes `encoded` bytes encoded.
    pub fn of_extension(extension: &Extension, encoded: u64) -> Self {
        Self {
            jobs: 0,
            tasks: u64::from(extension.task_count()),
            inputs: bytes(extension.input_data()),
            spec: encoded,
        }
    }

    pub fn plus(self, other: Self) -> Self {
        Self {
            jobs: self.jobs + other.jobs,
            tasks: self.tasks + other.tasks,
            inputs: self.inputs.saturating_add(other.inputs),
            spec: self.spec.saturating_add(other.spec),
        }
    }

    pub fn minus(self, other: Self) -> Self {
        Self {
            jobs: self.jobs - other.jobs,
            tasks: self.tasks - other.tasks,
            inputs: self.inputs.saturating_sub(other.inputs),
            spec: self.spec.saturating_sub(other.spec),
        }
    }
}

fn bytes<'a>(data: impl Iterator<Item = &'a Data>) -> u64 {
    data.map(Data::size).fold(0, u64::saturating_add)
}
