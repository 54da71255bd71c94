//! Identity, tickets, control connections and data transfer between Hedgerow peers.
//!
//! One UDP port carries everything: [`Net`] binds it, control connections are [`Link`]s, and content
//! travels by hash between a [`DataServer`] and a [`Fetcher`], each around a [`DataStore`]. Nothing here
//! decides anything; bounds and checks that protect a peer from what others send live here.

mod call;
mod close;
mod connections;
pub mod data;
mod endpoint;
mod error;
mod frame;
mod handshake;
mod identity;
mod link;
mod pending;
mod probe;
mod relay;
mod ticket;
mod tripwire;

pub use call::{CALL_BYTES_MAX, Call, Caller, Heard, Hearing, NOTE_BYTES_MAX, calls};
pub use close::CloseReason;
pub use data::{
    DataServer, DataStore, Digest, FetchError, Fetched, Fetcher, GRANT_HASHES_MAX, Grant,
    PlaceMode, Placement, Refusal, SourceFailure, Transfer, Trust, map_in_parallel, serve_for,
    serves_for,
};
pub use endpoint::{ALPN_CONTROL, ALPN_DATA, IDLE_TIMEOUT, Net, NetConfig};
pub use error::NetError;
pub use frame::{FRAME_BYTES_MAX, FRAME_VERSION, decode, encode};
pub use handshake::{HELLO_BYTES_MAX, Hello, Incoming, PROTOCOL_VERSION, VersionRange};
pub use identity::{SecretKey, load_or_create_identity, peer_id, public_key};
pub use link::{HeartbeatReceiver, Link, LinkReceiver, LinkSender, Traffic};
pub use probe::{Probe, Probed};
pub use relay::{AccessCheck, Connected, RelayServer};
pub use ticket::{Role, Ticket, TicketError, secret_hash};
pub use tripwire::{Broken, Nonce, TcpPort, Tripwire};
