//! A data request as it travels.

use super::Grant;
use super::grant::GRANT_HASHES_MAX;
use super::possession::Challenge;
use super::sealed::Offer;
use hedge_model::Hash;
use iroh::endpoint::RecvStream;
use serde::{Deserialize, Serialize};

/// Small blobs that one request may name: each is a file to open for the server, and 32 bytes of the request.
pub(super) const BATCH_HASHES_MAX: usize = 512;
/// Longest request: a grant with all its hashes, the hashes asked for, and what is around them.
const REQUEST_BYTES_MAX: usize = (GRANT_HASHES_MAX + BATCH_HASHES_MAX) * 32 + 1024;
const FORMAT: u8 = 4;

/// The byte before data in an answer; any other is a [`super::Refusal`].
pub(super) const ANSWER_DATA: u8 = 0;

/// Asks for blobs. Lengths in the answer are u64, little-endian.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Request {
    pub wanted: Wanted,
    /// Where this is given, the answer has the tag of each group in place of the group's bytes, and no proof.
    pub challenge: Option<Challenge>,
    /// For a large blob: how its groups may come over TCP.
    pub tcp: Option<Offer>,
    pub grant: Option<Grant>,
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Wanted {
    /// Blobs of one group at most. The answer has for each, in this order, [`ANSWER_DATA`], its length and its bytes,
    /// or one byte that refuses it.
    Small(Vec<Hash>),
    /// A larger blob from one of its groups on. The answer is [`ANSWER_DATA`], its length, its proof, the way of the groups
    /// ([`super::sealed::Way`]) if TCP was offered, and the groups, which go that way.
    Large { hash: Hash, group: u64 },
}

impl Wanted {
    pub(super) fn hashes(&self) -> &[Hash] {
        match self {
            Wanted::Small(hashes) => hashes,
            Wanted::Large { hash, .. } => std::slice::from_ref(hash),
        }
    }
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
        let request: Request = postcard::from_bytes(body).ok()?;
        let count = request.wanted.hashes().len();
        (1..=BATCH_HASHES_MAX).contains(&count).then_some(request)
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
            wanted: Wanted::Small(vec![Hash([255; 32]); BATCH_HASHES_MAX]),
            challenge: Some(Challenge([255; 32])),
            tcp: Some(Offer::Listens {
                port: u16::MAX,
                nonce: [255; 16],
            }),
            grant: Some(grant),
        };
        assert!(request.encode().is_some());
    }
}
