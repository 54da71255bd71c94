//! What a job counts towards its client's quota.

use hedge_model::spec::Extension;
use hedge_model::{Data, JobSpec};

/// What a job counts towards its client's quota, in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    /// Encoded size of its specification.
    pub spec: u64,
    /// Total size of its inputs.
    pub inputs: u64,
}

impl Size {
    pub fn of(spec: &JobSpec) -> Self {
        Self {
            spec: spec.encoded_bytes() as u64,
            inputs: bytes(spec.input_data()),
        }
    }

    pub fn of_extension(extension: &Extension) -> Self {
        Self {
            spec: extension.encoded_bytes() as u64,
            inputs: bytes(extension.input_data()),
        }
    }

    /// Adds an extension of the job, which takes `encoded` bytes encoded.
    pub fn add(&mut self, extension: &Extension, encoded: u64) {
        self.spec = self.spec.saturating_add(encoded);
        let inputs = bytes(extension.input_data());
        self.inputs = self.inputs.saturating_add(inputs);
    }
}

fn bytes<'a>(data: impl Iterator<Item = &'a Data>) -> u64 {
    data.map(Data::size).fold(0, u64::saturating_add)
}
