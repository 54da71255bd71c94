//! Job specifications as they arrive: decoded, and fetched from the client first where they are long.

use hedge_model::spec::SPEC_BYTES_MAX;
use hedge_model::units::show_bytes;
use hedge_model::{Data, JobSpec, PeerAddr};
use hedge_net::{DataStore, Fetcher};
use std::sync::Arc;

pub(super) fn decode(bytes: &[u8]) -> Result<Arc<JobSpec>, String> {
    let spec = JobSpec::decode(bytes)
        .map_err(|error| format!("the job cannot be read: {error}; nothing was accepted"))?;
    match spec.check_names() {
        Ok(()) => Ok(Arc::new(spec)),
        Err(error) => Err(format!("{error}; nothing was accepted")),
    }
}

pub(super) async fn fetch_spec(
    store: &DataStore,
    fetcher: &Fetcher,
    spec: &Data,
    from: &PeerAddr,
) -> Result<Arc<JobSpec>, String> {
    let Data::Blob { hash, size } = spec else {
        return Err("the job is not there".into());
    };
    if *size > SPEC_BYTES_MAX as u64 {
        return Err(format!(
            "the job's description takes {}, at most {} are taken; nothing was accepted; split the job",
            show_bytes(*size),
            show_bytes(SPEC_BYTES_MAX as u64)
        ));
    }
    let unreadable = |error: String| format!("the job's description could not be fetched: {error}");
    let sources = std::slice::from_ref(from);
    fetcher
        .fetch(*hash, *size, sources, None)
        .await
        .map_err(|error| unreadable(error.to_string()))?;
    let bytes = store
        .read(*hash, SPEC_BYTES_MAX)
        .await
        .map_err(|error| unreadable(error.to_string()))?;
    tokio::task::spawn_blocking(move || decode(&bytes))
        .await
        .map_err(|error| unreadable(error.to_string()))?
}
