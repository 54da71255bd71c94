//! Decodes and checks submitted specifications, and fetches long ones from the client first.

use super::requests::Submitted;
use hedge_model::spec::{Extension, SPEC_BYTES_MAX};
use hedge_model::units::show_bytes;
use hedge_model::{Hash, JobSpec, PeerAddr};
use hedge_net::Fetcher;
use std::sync::Arc;

/// Decodes a job. Its names are not checked yet.
pub(super) fn decode(bytes: &[u8]) -> Result<JobSpec, String> {
    JobSpec::decode(bytes)
        .map_err(|error| format!("the job cannot be read: {error}; nothing was accepted"))
}

/// Decodes groups for an open job. The core checks them against the job.
pub(super) fn decode_groups(bytes: &[u8]) -> Result<Submitted, String> {
    let decoded = Extension::decode(bytes);
    let groups = decoded.map(|extension| Submitted::Groups(Arc::new(extension)));
    groups.map_err(|error| format!("the groups cannot be read: {error}; nothing was added"))
}

pub(super) fn decode_checked(bytes: &[u8]) -> Result<Submitted, String> {
    decode(bytes).and_then(check).map(Submitted::Job)
}

pub(super) fn check(spec: JobSpec) -> Result<Arc<JobSpec>, String> {
    match spec.check_names() {
        Ok(()) => Ok(Arc::new(spec)),
        Err(error) => Err(format!("{error}; nothing was accepted")),
    }
}

/// Checks a job on a blocking thread.
pub(super) async fn check_apart(spec: JobSpec) -> Result<Arc<JobSpec>, String> {
    let checked = tokio::task::spawn_blocking(move || check(spec)).await;
    checked
        .map_err(|error| format!("the job could not be checked: {error}; nothing was accepted"))?
}

/// Fetches a specification from the peer that serves it. It does not use this supervisor's own store, because the
/// submitter must hold the specification.
pub(super) async fn fetch_spec(
    fetcher: &Fetcher,
    hash: Hash,
    size: u64,
    from: &PeerAddr,
    read: fn(&[u8]) -> Result<Submitted, String>,
) -> Result<Submitted, String> {
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
    tokio::task::spawn_blocking(move || read(&bytes))
        .await
        .map_err(|error| unreadable(error.to_string()))?
}
