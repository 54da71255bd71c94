//! Signed leave to read content, as it travels in messages: as many grants as the hashes need.

use crate::clock::unix_seconds;
use hedge_model::{Epoch, Hash, PeerId};
use hedge_net::{GRANT_HASHES_MAX, Grant, SecretKey};

/// How long a grant is valid: longer than most attempts; a later one brings a new grant.
const VALID_SECONDS: u64 = 24 * 3600;

/// Leave for `reader` to read `hashes`.
pub(crate) fn seal(key: &SecretKey, reader: PeerId, hashes: &[Hash], epoch: Epoch) -> Vec<u8> {
    if hashes.is_empty() {
        return Vec::new();
    }
    let until = unix_seconds() + VALID_SECONDS;
    let sign = |part: &[Hash]| Grant::sign(key, reader, part.to_vec(), epoch.0, until);
    let grants: Vec<Grant> = hashes.chunks(GRANT_HASHES_MAX).map(sign).collect();
    postcard::to_stdvec(&grants).unwrap_or_default()
}

/// The grants of a message.
pub(crate) fn open(sealed: &[u8]) -> Vec<Grant> {
    postcard::from_bytes(sealed).unwrap_or_default()
}

/// The grant that covers `hash`.
pub(crate) fn covering(grants: &[Grant], hash: Hash) -> Option<&Grant> {
    grants.iter().find(|grant| grant.hashes.contains(&hash))
}
