//! What jobs count towards the quotas of their clients.

use crate::supervisor::durable::change::Added;
use hedge_model::spec::Extension;
use hedge_model::{Data, FileEntry, JobSpec};

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

    /// What an extension adds to a job that it fits to.
    pub fn of_extension(spec: &JobSpec, extension: &Extension) -> Self {
        let stdin = extension.groups.iter();
        let stdin = stdin.filter_map(|group| group.stdin.as_ref());
        let files = spec.new_files(extension).map(|file| &file.data);
        Self {
            jobs: 0,
            tasks: u64::from(extension.task_count()),
            inputs: bytes(files.chain(stdin)),
            spec: extension.encoded_bytes() as u64,
        }
    }

    /// What an extension has added to a job. Trees that the job had before count once, as the job stores them.
    pub fn of_added(spec: &JobSpec, extension: &Extension, added: Added) -> Self {
        let files = &spec.files()[added.first_file..];
        let mut encoded = added.encoded_bytes;
        if files.len() < extension.files.len() {
            encoded -= files_bytes(&extension.files) - files_bytes(files);
        }
        Self {
            jobs: 0,
            tasks: u64::from(extension.task_count()),
            inputs: bytes(spec.input_data_from(added.first_file, added.first_group)),
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

/// Returns the length of these files in an encoded extension, in bytes.
fn files_bytes(files: &[FileEntry]) -> u64 {
    let alone = Extension {
        files: files.to_vec(),
        groups: Vec::new(),
    };
    alone.encoded_bytes() as u64
}

fn bytes<'a>(data: impl Iterator<Item = &'a Data>) -> u64 {
    data.map(Data::size).fold(0, u64::saturating_add)
}
