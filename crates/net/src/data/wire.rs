//! A data request as it travels.

use super::Grant;
use super::grant::GRANT_HASHES_MAX;
use hedge_model::Hash;
use iroh::endpoint::RecvStream;
use serde::{Deserialize, Serialize};

/// Longest request: a grant with all its hashes, and what is around it.
const REQUEST_BYTES_MAX: usize = GRANT_HASHES_MAX * 32 + 1024;
const FORMAT: u8 = 1;

/// Content up to this long may be asked for whole: it is verified in memory and added like any other. An
/// import piece by piece keeps several files for what has arrived, and took 7 ms for 20 kB.
pub(super) const WHOLE_BYTES_MAX: usize = 1 << 20;

/// The first byte of an answer that brings data; any other is a [`super::Refusal`].
pub(super) const ANSWER_DATA: u8 = 0;

/// Asks for one content: whole, or with proofs from one of its 1,024-byte chunks on.
///
/// The answer is [`ANSWER_DATA`], the length (u64, little-endian) and the bytes or the proven pieces.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Request {
    pub hash: Hash,
    pub whole: bool,
    pub first_chunk: u64,
    pub grant: Option<Grant>,
}

impl Request {
    pub(super) fn encode(&self) -> Option<Vec<u8>> {
        let bytes = postcard::to_extend(self, vec![FORMAT]).ok()?;
        (bytes.len() <= REQUEST_BYTES_MAX).then_some(bytes)
    }

    /// None where what arrives is no request of this format or over the limit.
    pub(super) async fn read(recv: &mut RecvStream) -> Option<Request> {
        let bytes = recv.read_to_end(REQUEST_BYTES_MAX).await.ok()?;
        let (&FORMAT, body) = bytes.split_first()? else {
            return None;
        };
        postcard::from_bytes(body).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SecretKey;
    use hedge_model::PeerId;

    #[test]
    fn the_fullest_grant_fits_into_a_request() {
        let hashes = vec![Hash([255; 32]); GRANT_HASHES_MAX];
        let key = SecretKey::generate();
        let grant = Grant::sign(&key, PeerId([255; 32]), hashes, u64::MAX, u64::MAX);
        let request = Request {
            hash: Hash([255; 32]),
            whole: true,
            first_chunk: u64::MAX,
            grant: Some(grant),
        };
        assert!(request.encode().is_some());
    }
}
