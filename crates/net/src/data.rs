//! Content by its hash: kept, served under grants, fetched and verified.

mod fetch;
mod grant;
mod server;
mod store;
mod wire;

pub use fetch::{FetchError, Fetcher, SourceFailure};
pub use grant::{GRANT_HASHES_MAX, Grant, Refusal, Trust};
pub use server::DataServer;
pub use store::DataStore;
