//! Which blobs an attempt reads, from whom, and whether it may.

use hedge_model::msg::{Assignment, GrantedBlobs, GrantedBody, Grants};
use hedge_model::{Data, Hash, Source};
use std::collections::BTreeSet;

/// Leave to read blobs: here it is their names alone.
pub(crate) fn leave(blobs: &[Hash]) -> Grants {
    blobs.iter().flat_map(|hash| hash.0).collect()
}

/// Whether an attempt has leave to read a blob.
pub(super) fn may_read(body: &GrantedBody, order: &Assignment, hash: Hash) -> bool {
    let own = order.own_blobs().into_iter().map(|own| &own.grants);
    let mut grants = own.chain([&body.grants]);
    grants.any(|grants| grants.chunks(hash.0.len()).any(|named| named == hash.0))
}

/// Peers that an attempt reads a blob from.
pub(super) fn sources<'a>(
    body: &'a GrantedBody,
    order: &'a Assignment,
    hash: Hash,
) -> &'a [Source] {
    let own = order.own_blobs();
    let own = own.filter(|own: &&GrantedBlobs| own.blobs.contains(&hash));
    own.map_or(&body.sources, |own| &own.sources)
}

/// Blobs that one attempt needs.
pub(super) fn own_blobs(body: &GrantedBody, order: &Assignment) -> BTreeSet<Hash> {
    let own = order.own_inputs().iter().chain(order.checkpoint());
    body.inputs
        .iter()
        .chain(own)
        .map(|file| &file.data)
        .chain(&body.stdin)
        .filter_map(Data::hash)
        .collect()
}
