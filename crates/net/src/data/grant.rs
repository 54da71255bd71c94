//! Who may read what, and who says so.

use crate::{SecretKey, peer_id, public_key};
use hedge_model::{Hash, PeerId};
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::sync::Arc;
use tokio::sync::watch;

/// Hashes that one grant may name.
pub const GRANT_HASHES_MAX: usize = 4096;

/// A supervisor's signed permission for one peer to read some content from any holder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// Who may read.
    pub reader: PeerId,
    /// What may be read; at most [`GRANT_HASHES_MAX`].
    pub hashes: Vec<Hash>,
    /// The signing leader's epoch.
    pub epoch: u64,
    /// End of validity, in seconds of Unix time.
    pub expires_unix_s: u64,
    /// The supervisor that signed.
    pub signer: PeerId,
    /// Its ed25519 signature, 64 bytes.
    pub signature: Vec<u8>,
}

impl Grant {
    /// A grant signed with a supervisor's key.
    pub fn sign(
        key: &SecretKey,
        reader: PeerId,
        hashes: Vec<Hash>,
        epoch: u64,
        expires_unix_s: u64,
    ) -> Grant {
        let signer = peer_id(key);
        let mut grant = Grant {
            reader,
            hashes,
            epoch,
            expires_unix_s,
            signer,
            signature: Vec::new(),
        };
        grant.signature = key.sign(&grant.signed_bytes()).to_bytes().to_vec();
        grant
    }

    /// Whether this grant lets `reader` read `hash` at `now_unix_s`, as far as `trust` goes.
    pub fn verify(
        &self,
        reader: PeerId,
        hash: Hash,
        now_unix_s: u64,
        trust: &Trust,
    ) -> Result<(), Refusal> {
        self.verify_all(reader, &[hash], now_unix_s, trust)[0]
    }

    /// The same for each of some hashes.
    pub(super) fn verify_all(
        &self,
        reader: PeerId,
        hashes: &[Hash],
        now_unix_s: u64,
        trust: &Trust,
    ) -> Vec<Result<(), Refusal>> {
        let valid = self.verify_reader(reader, now_unix_s, trust);
        let granted: HashSet<&Hash> = match hashes {
            [one] => self.hashes.iter().filter(|hash| *hash == one).collect(),
            _ => self.hashes.iter().collect(),
        };
        let each = |hash| match granted.contains(hash) {
            true => valid,
            false => valid.and(Err(Refusal::NotGranted)),
        };
        hashes.iter().map(each).collect()
    }

    fn verify_reader(&self, reader: PeerId, now_unix_s: u64, trust: &Trust) -> Result<(), Refusal> {
        let trusted = trust.changes.borrow().clone();
        if trusted.revoked.contains(&reader) {
            return Err(Refusal::Revoked);
        }
        if self.reader != reader {
            return Err(Refusal::NotGranted);
        }
        if !trusted.supervisors.contains(&self.signer) || !self.signature_fits() {
            return Err(Refusal::BadSignature);
        }
        if self.epoch < trusted.epoch_min {
            return Err(Refusal::OldEpoch);
        }
        if self.expires_unix_s <= now_unix_s {
            return Err(Refusal::Expired);
        }
        Ok(())
    }

    fn signature_fits(&self) -> bool {
        let (Ok(key), Ok(signature)) = (
            public_key(self.signer),
            <[u8; 64]>::try_from(&self.signature[..]),
        ) else {
            return false;
        };
        key.verify(
            &self.signed_bytes(),
            &iroh::Signature::from_bytes(&signature),
        )
        .is_ok()
    }

    fn signed_bytes(&self) -> Vec<u8> {
        let mut bytes = b"hedgerow grant 1".to_vec();
        bytes.extend_from_slice(&self.reader.0);
        bytes.extend_from_slice(&self.epoch.to_le_bytes());
        bytes.extend_from_slice(&self.expires_unix_s.to_le_bytes());
        bytes.extend_from_slice(&(self.hashes.len() as u64).to_le_bytes());
        self.hashes
            .iter()
            .for_each(|hash| bytes.extend_from_slice(&hash.0));
        bytes
    }
}

/// Why a peer answers a data request with no data. The numbers are part of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No grant covers this reader and this content.
    #[error("it holds no grant for this content and this reader")]
    NotGranted,
    /// The grant's time is over.
    #[error("the grant has expired; a new assignment brings a new one")]
    Expired,
    /// The grant is of a leader that has been replaced.
    #[error("the grant is of an earlier leader; a new assignment brings a new one")]
    OldEpoch,
    /// The signature is wrong or of no supervisor that it trusts.
    #[error("it does not trust the grant's signature")]
    BadSignature,
    /// The reader was thrown out.
    #[error("it was told that this peer is no longer a member")]
    Revoked,
    /// It does not hold the content.
    #[error("it does not hold the content")]
    NotHeld,
    /// Its copy is damaged.
    #[error("its copy of the content is damaged")]
    Damaged,
    /// The request could not be read.
    #[error("it could not read the request")]
    Malformed,
    /// It answered with a number that this version does not know.
    #[error("it refused for a reason that this version does not know (code {0})")]
    Other(u8),
}

const CODES: [(Refusal, u8); 8] = [
    (Refusal::NotGranted, 1),
    (Refusal::Expired, 2),
    (Refusal::OldEpoch, 3),
    (Refusal::BadSignature, 4),
    (Refusal::Revoked, 5),
    (Refusal::NotHeld, 6),
    (Refusal::Damaged, 7),
    (Refusal::Malformed, 8),
];

impl Refusal {
    pub(crate) fn code(self) -> u8 {
        match self {
            Refusal::Other(code) => code,
            refusal => CODES
                .iter()
                .find(|(r, _)| *r == refusal)
                .map_or(u8::MAX, |(_, c)| *c),
        }
    }

    pub(crate) fn from_code(code: u8) -> Refusal {
        CODES
            .iter()
            .find(|(_, c)| *c == code)
            .map_or(Refusal::Other(code), |(r, _)| *r)
    }
}

/// Whose signatures a peer accepts; clones share one state, and changes take effect at once.
#[derive(Clone, Debug)]
pub struct Trust {
    changes: watch::Sender<Arc<Trusted>>,
}

#[derive(Clone, Debug, Default)]
struct Trusted {
    supervisors: HashSet<PeerId>,
    revoked: HashSet<PeerId>,
    epoch_min: u64,
}

impl Default for Trust {
    fn default() -> Self {
        Trust::new([])
    }
}

impl Trust {
    /// Trust in these supervisors.
    pub fn new(supervisors: impl IntoIterator<Item = PeerId>) -> Trust {
        let supervisors = supervisors.into_iter().collect();
        let trusted = Trusted {
            supervisors,
            ..Trusted::default()
        };
        Trust {
            changes: watch::Sender::new(Arc::new(trusted)),
        }
    }

    /// Replaces the supervisors. They may also read everything without a grant.
    pub fn set_supervisors(&self, supervisors: impl IntoIterator<Item = PeerId>) {
        self.change(|trusted| trusted.supervisors = supervisors.into_iter().collect());
    }

    /// Grants of epochs before this one are no longer accepted; never goes back.
    pub fn raise_epoch_min(&self, epoch_min: u64) {
        self.change(|trusted| trusted.epoch_min = trusted.epoch_min.max(epoch_min));
    }

    /// Throws a peer out; its open transfers end.
    pub fn revoke(&self, peer: PeerId) {
        self.change(|trusted| _ = trusted.revoked.insert(peer));
    }

    /// Takes a revocation back.
    pub fn restore(&self, peer: PeerId) {
        self.change(|trusted| _ = trusted.revoked.remove(&peer));
    }

    /// Whether the peer is a supervisor that is trusted.
    pub fn is_supervisor(&self, peer: PeerId) -> bool {
        let trusted = self.changes.borrow();
        trusted.supervisors.contains(&peer) && !trusted.revoked.contains(&peer)
    }

    /// Returns once the peer is revoked.
    pub(crate) async fn revoked(&self, peer: PeerId) {
        let mut changes = self.changes.subscribe();
        // Cannot fail: this very value keeps the sender alive.
        _ = changes
            .wait_for(|trusted| trusted.revoked.contains(&peer))
            .await;
    }

    fn change(&self, change: impl FnOnce(&mut Trusted)) {
        self.changes
            .send_modify(|trusted| change(Arc::make_mut(trusted)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grant_holds_for_its_reader_content_time_epoch_and_signer_alone() {
        let (leader, other) = (SecretKey::generate(), SecretKey::generate());
        let (reader, stranger) = (PeerId([1; 32]), PeerId([2; 32]));
        let hash = Hash([3; 32]);
        let trust = Trust::new([peer_id(&leader)]);
        let grant = Grant::sign(&leader, reader, vec![hash], 4, 100);
        assert_eq!(grant.verify(reader, hash, 99, &trust), Ok(()));
        assert_eq!(
            grant.verify(stranger, hash, 99, &trust),
            Err(Refusal::NotGranted)
        );
        assert_eq!(
            grant.verify(reader, Hash([4; 32]), 99, &trust),
            Err(Refusal::NotGranted)
        );
        assert_eq!(
            grant.verify(reader, hash, 100, &trust),
            Err(Refusal::Expired)
        );

        let by_other = Grant::sign(&other, reader, vec![hash], 4, 100);
        assert_eq!(
            by_other.verify(reader, hash, 99, &trust),
            Err(Refusal::BadSignature)
        );
        let forged = Grant {
            signer: peer_id(&leader),
            ..by_other
        };
        assert_eq!(
            forged.verify(reader, hash, 99, &trust),
            Err(Refusal::BadSignature)
        );
        let stretched = Grant {
            expires_unix_s: 1000,
            ..grant.clone()
        };
        assert_eq!(
            stretched.verify(reader, hash, 99, &trust),
            Err(Refusal::BadSignature)
        );
        let unsigned = Grant {
            signature: vec![],
            ..grant.clone()
        };
        assert_eq!(
            unsigned.verify(reader, hash, 99, &trust),
            Err(Refusal::BadSignature)
        );

        trust.raise_epoch_min(5);
        trust.raise_epoch_min(2);
        assert_eq!(
            grant.verify(reader, hash, 99, &trust),
            Err(Refusal::OldEpoch)
        );
        trust.revoke(reader);
        assert_eq!(
            grant.verify(reader, hash, 99, &trust),
            Err(Refusal::Revoked)
        );
        trust.restore(reader);
        assert_eq!(
            grant.verify(reader, hash, 99, &trust),
            Err(Refusal::OldEpoch)
        );
    }

    #[test]
    fn every_refusal_has_its_number() {
        for code in 0..=u8::MAX {
            assert_eq!(Refusal::from_code(code).code(), code);
        }
        assert_eq!(Refusal::from_code(7), Refusal::Damaged);
    }
}
