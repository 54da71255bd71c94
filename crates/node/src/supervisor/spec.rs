//! Job specifications as they arrive: decoded, and fetched from the client first where they are long.

use hedge_model::spec::SPEC_BYTES_MAX;
use hedge_model::units::show_bytes;
use hedge_model::{Hash, JobSpec, PeerAddr};
use hedge_net::Fetcher;
use std::sync::Arc;

/// A job whose names are not checked yet.
pub(super) fn decode(bytes: &[u8]) -> Result<JobSpec, String> {
    JobSpec::decode(bytes)
        .map_err(|error| format!("the job cannot be read: {error}; nothing was accepted"))
}

pub(super) fn check(spec: JobSpec) -> Result<Arc<JobSpec>, String> {
    match spec.check_names() {
        Ok(()) => Ok(Arc::new(spec)),
        Err(error) => Err(format!("{error}; nothing was accepted")),
    }
}

/// Checks a job without holding others up.
pub(super) async fn check_apart(spec: JobSpec) -> Result<Arc<JobSpec>, String> {
    let checked = tokio::task::spawn_blocking(move || check(spec)).await;
    checked
        .map_err(|error| format!("the job could not be checked: {error}; nothing was accepted"))?
}

/// Reads a job's description from the peer that serves it. It does not look into the own store: the submitter has to hold
/// the description.
pub(super) async fn fetch_spec(
    fetcher: &Fetcher,
    hash: Hash,
    size: u64,
    from: &PeerAddr,
) -> Result<Arc<JobSpec>, String> {
    if size > SPEC_BYTES_MAX as u64 {
        return Err(format!(
            "the job's description takes {}, at most {} are taken; nothing was accepted; split the job",
            show_bytes(size),
            show_bytes(SPEC_BYTES_MAX as u64)
        ));
    }
    let unreadable = |error: String| format!("the job's description could not be fetched: {error}");
    let bytes = fetcher.read(hash, size, from).await;
    let bytes = bytes.map_err(|error| unreadable(error.to_string()))?;
    tokio::task::spawn_blocking(move || check(decode(&bytes)?))
        .await
        .map_err(|error| unreadable(error.to_string()))?
}
