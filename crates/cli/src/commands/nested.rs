//! A client that a task started: it says on the task's progress descriptor that the task waits for a job, so that
//! the grid gives the task's part of its worker to others meanwhile.

use hedge_model::JobId;
use std::fs::{File, OpenOptions};
use std::io::Write;

/// Says that the task waits for a job, until it is dropped; nothing where no task started this client.
pub struct TaskWaits(Option<(File, JobId)>);

impl TaskWaits {
    /// From now on the task waits for `job`.
    pub fn begin(job: JobId) -> Self {
        let open = || {
            std::env::var_os("HEDGE_ATTEMPT")?;
            let number: u32 = std::env::var("HEDGE_PROGRESS_FD").ok()?.parse().ok()?;
            let mut progress = OpenOptions::new()
                .append(true)
                .open(format!("/proc/self/fd/{number}"))
                .ok()?;
            writeln!(progress, "waiting for job {job}").ok()?;
            Some((progress, job))
        };
        Self(open())
    }
}

impl Drop for TaskWaits {
    fn drop(&mut self) {
        if let Some((progress, job)) = &mut self.0 {
            // A worker that is gone needs no word.
            let _ = writeln!(progress, "no longer waiting for job {job}");
        }
    }
}
