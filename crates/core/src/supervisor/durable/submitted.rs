//! Which job has the key of a submission: a key that is used again gives the same job, and no other one.

use crate::supervisor::durable::state::State;
use hedge_model::msg::{Refusal, RefusalKind, Reply};
use hedge_model::spec::positional;
use hedge_model::{Hash, JobId, JobSpec};
use serde::{Deserialize, Serialize};

/// The job of a key.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Submitted {
    pub(crate) job: JobId,
    /// Of its specification, of which an ended job keeps only the outline. Nothing where a snapshot was read that does
    /// not say so.
    pub(crate) digest: Option<Hash>,
}

impl Submitted {
    pub(crate) fn new(job: JobId, spec: &JobSpec) -> Self {
        let digest = digest(spec);
        Self { job, digest }
    }
}

/// Tells specifications apart; of jobs that formats 1 and 2 have, as versions that knew only these did.
fn digest(spec: &JobSpec) -> Option<Hash> {
    let bytes = match spec.format() {
        ..3 => positional::bytes(spec)?,
        _ => spec.encode().ok()?,
    };
    Some(Hash(*blake3::hash(&bytes).as_bytes()))
}

impl State {
    /// What is said to a submission whose key has this job: the job where it is the same one.
    pub(crate) fn accepted_before(&self, id: JobId, spec: &JobSpec) -> Reply {
        let job = self.jobs.get(&id);
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
