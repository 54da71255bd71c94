//! Submission keys: a key that is used again returns the same job and never accepts another one.

use crate::supervisor::durable::state::State;
use hedge_model::msg::{Refusal, RefusalKind, Reply};
use hedge_model::spec::positional;
use hedge_model::{Hash, JobId, JobSpec};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// The job that a submission key belongs to.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Submitted {
    pub(crate) job: JobId,
    /// The hash of its specification, of which an ended job keeps only an outline. None if a snapshot of the first
    /// format was read.
    pub(crate) digest: Option<Hash>,
}

impl Submitted {
    pub(crate) fn new(job: JobId, spec: &JobSpec) -> Self {
        let digest = digest(spec);
        Self { job, digest }
    }
}

/// Returns a hash that tells specifications apart. Jobs of formats 1 and 2 are hashed in the layout of these formats,
/// as older versions do.
fn digest(spec: &JobSpec) -> Option<Hash> {
    let bytes = match spec.format() {
        ..3 => positional::bytes(spec)?,
        _ => spec.encode().ok()?,
    };
    Some(Hash(*blake3::hash(&bytes).as_bytes()))
}

impl State {
    /// Returns the reply to a submission whose key belongs to job `id`: acceptance if it is the same job, otherwise a
    /// refusal.
    pub(crate) fn accepted_before(&self, id: JobId, spec: &Arc<JobSpec>) -> Reply {
        let job = self.jobs.get(&id);
        // The usual case: this submission made the job.
        if job.is_some_and(|job| Arc::ptr_eq(&job.spec, spec)) {
            return Reply::Accepted(id);
        }
        let known = job.and_then(|job| self.keys.get(&(job.client, job.key)));
        if known.is_some_and(|known| known.digest.is_none() || known.digest == digest(spec)) {
            return Reply::Accepted(id);
        }
        let kind = RefusalKind::Bad;
        let why = format!(
            "the key of this submission belongs to job {id}, which is another job or had other inputs; nothing was \
             accepted: submit without --key, or with a new one"
        );
        Reply::No(Refusal { kind, why })
    }
}
