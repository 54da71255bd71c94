//! Content by its hash: kept, served under grants, fetched and verified.

mod consent;
mod digest;
mod fetch;
mod grant;
mod parallel;
mod possession;
mod sealed;
mod server;
mod store;
mod wire;

pub use consent::{serve_for, serves_for};
pub use digest::Digest;
pub use fetch::{FetchError, Fetched, Fetcher, SourceFailure, Transfer};
pub use grant::{GRANT_HASHES_MAX, Grant, Refusal, Trust};
pub use parallel::map as map_in_parallel;
pub use server::DataServer;
pub use store::{DataStore, PlaceMode, Placement};

use hedge_model::PeerId;
use std::collections::HashMap;

/// Peers for which bytes are counted: the first ones, so that those who come and go without end take no memory.
const COUNTED_MAX: usize = 4096;

fn count(bytes: &mut HashMap<PeerId, u64>, peer: PeerId, more: u64) {
    if bytes.len() < COUNTED_MAX || bytes.contains_key(&peer) {
        *bytes.entry(peer).or_default() += more;
    }
}
