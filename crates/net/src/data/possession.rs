//! Proof of possession: a peer shows that it holds a blob without sending it.
//!
//! The verifier sends a fresh random challenge. For each group of the blob the prover returns a tag, a keyed BLAKE3 hash
//! of the group's bytes. The key is derived from the challenge and the verifier's id, so that a prover cannot
//! have the tags made by another holder: that one makes them for the peer that is at the other end of its own connection.

use hedge_model::PeerId;
use serde::{Deserialize, Serialize};

/// Bytes of a tag.
pub(super) const TAG_BYTES: usize = 32;

/// Random bytes that are used once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Challenge(pub [u8; 32]);

/// Makes tags for one challenge of one verifier.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tagger {
    key: [u8; 32],
}

impl Challenge {
    /// A fresh challenge; none where the system gives no random bytes.
    pub fn draw() -> Option<Challenge> {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).ok()?;
        Some(Challenge(bytes))
    }
}

impl Tagger {
    /// For this verifier's challenge.
    pub fn new(challenge: Challenge, verifier: PeerId) -> Tagger {
        let mut hasher = blake3::Hasher::new_derive_key("hedgerow proof of possession 1");
        hasher.update(&challenge.0).update(&verifier.0);
        let key = *hasher.finalize().as_bytes();
        Tagger { key }
    }

    /// The tag of a blob's group, by the group's position.
    pub fn tag(&self, group: u64, bytes: &[u8]) -> [u8; TAG_BYTES] {
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        hasher.update(&group.to_le_bytes()).update(bytes);
        *hasher.finalize().as_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_for_one_challenge_one_verifier_one_group_and_its_bytes() {
        let (challenge, peer) = (Challenge([1; 32]), PeerId([2; 32]));
        let tagger = Tagger::new(challenge, peer);
        let tag = tagger.tag(0, b"content");
        assert_eq!(Tagger::new(challenge, peer).tag(0, b"content"), tag);
        assert_ne!(tagger.tag(1, b"content"), tag);
        assert_ne!(tagger.tag(0, b"contents"), tag);
        assert_ne!(
            Tagger::new(Challenge([3; 32]), peer).tag(0, b"content"),
            tag
        );
        assert_ne!(
            Tagger::new(challenge, PeerId([3; 32])).tag(0, b"content"),
            tag
        );
    }
}
