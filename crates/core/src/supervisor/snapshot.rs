//! The durable state as bytes, for the journal's snapshots.

use super::critical::CriticalSet;
use super::durable::State;
use hedge_model::JobId;
use hedge_model::record::RecordError;

/// The form of a snapshot, which says how the rest is to be read.
const SNAPSHOT_FORMAT: u32 = 1;

impl State {
    /// The state in a snapshot.
    ///
    /// # Errors
    /// Another version wrote it, or it is damaged.
    pub fn restore(bytes: &[u8]) -> Result<Self, RecordError> {
        let (format, bytes) = postcard::take_from_bytes::<u32>(bytes)
            .map_err(|error| RecordError::Damaged(error.to_string()))?;
        if format != SNAPSHOT_FORMAT {
            return Err(RecordError::Format(format));
        }
        let mut state: Self =
            postcard::from_bytes(bytes).map_err(|error| RecordError::Damaged(error.to_string()))?;
        let ids: Vec<JobId> = state.jobs.keys().copied().collect();
        for job in ids {
            if let Some(job) = state.job_mut(job) {
                job.critical = CriticalSet::find(&job.spec);
            }
        }
        state.retire_again();
        Ok(state)
    }

    /// Writes a snapshot.
    ///
    /// # Errors
    /// What writing to `out` says.
    pub fn write(&self, out: &mut dyn std::io::Write) -> std::io::Result<()> {
        let failed = |error: postcard::Error| std::io::Error::other(error.to_string());
        let out = postcard::to_io(&SNAPSHOT_FORMAT, out).map_err(failed)?;
        postcard::to_io(self, out).map(drop).map_err(failed)
    }
}
