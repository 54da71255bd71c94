//! Signs grants and reads the grants in messages.

use crate::clock::unix_seconds;
use hedge_core::supervisor::GrantRequest;
use hedge_model::{Hash, Source, msg};
use hedge_net::{FetchError, Fetcher, GRANT_HASHES_MAX, Grant, SecretKey};
use std::collections::{BTreeMap, HashMap};

/// How long a grant is valid: longer than most attempts. A later attempt gets a new grant.
const VALID_SECONDS: u64 = 24 * 3600;

/// Signs a grant that the core requests, as several grants if there are many hashes.
pub(crate) fn sign(key: &SecretKey, request: &GrantRequest) -> msg::Grants {
    let GrantRequest {
        reader,
        blobs,
        epoch,
    } = request;
    if blobs.is_empty() {
        return Vec::new();
    }
    let until = unix_seconds() + VALID_SECONDS;
    let sign = |part: &[Hash]| Grant::sign(key, *reader, part.to_vec(), epoch.0, until);
    let grants: Vec<Grant> = blobs.chunks(GRANT_HASHES_MAX).map(sign).collect();
    postcard::to_stdvec(&grants).unwrap_or_default()
}

/// The grants in a message.
#[derive(Debug)]
pub(crate) struct Grants {
    grants: Vec<Grant>,
    by_hash: HashMap<Hash, usize>,
}

impl Grants {
    pub fn open(signed: &[u8]) -> Self {
        let grants: Vec<Grant> = postcard::from_bytes(signed).unwrap_or_default();
        let numbered = grants.iter().enumerate();
        let by_hash = numbered.flat_map(|(at, grant)| grant.hashes.iter().map(move |h| (*h, at)));
        let by_hash = by_hash.collect();
        Self { grants, by_hash }
    }

    /// Fetches blobs with these grants; see [`Fetcher::fetch_all`].
    pub async fn fetch(
        &self,
        fetcher: &Fetcher,
        blobs: &[(Hash, u64)],
        sources: &[Source],
    ) -> Vec<FetchError> {
        let mut parts: BTreeMap<Option<usize>, Vec<(Hash, u64)>> = BTreeMap::new();
        for blob in blobs {
            let grant = self.by_hash.get(&blob.0).copied();
            parts.entry(grant).or_default().push(*blob);
        }
        let mut failed = Vec::new();
        for (grant, part) in parts {
            let grant = grant.map(|at| &self.grants[at]);
            failed.extend(fetcher.fetch_all(&part, sources, grant).await);
        }
        failed
    }
}
