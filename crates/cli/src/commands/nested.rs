//! A client that a task started reports on the task's progress descriptor that the task waits for a job. Meanwhile the
//! grid counts the task's resources as free.

use hedge_model::JobId;
use std::fs::{File, OpenOptions};
use std::io::Write;

/// Reports that the task waits for a job, until it is dropped. Does nothing if no task started this client.
pub struct TaskWaits(Option<(File, JobId)>);

impl TaskWaits {
    /// Reports that the task waits for `job`.
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
            // The worker may be gone.
            let _ = writeln!(progress, "no longer waiting for job {job}");
        }
    }
}
