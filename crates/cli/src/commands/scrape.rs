//! `--metrics`: what a supervisor or a worker counts, for scrapers.

use super::block_on;
use crate::exit::Failure;
use crate::show::note;
use hedge_gateway::{Scraped, Scrapers};
use std::net::SocketAddr;

/// Opens the socket for scrapers, where one is asked for.
///
/// # Errors
/// The address cannot be used.
pub fn open(address: Option<SocketAddr>) -> Result<Option<Scrapers>, Failure> {
    let opened = address.map(Scrapers::open).transpose();
    opened.map_err(|error| Failure::Arguments(error.to_string()))
}

/// Answers scrapers on a thread of its own, so that they hold up nothing.
pub fn answer(scrapers: Option<Scrapers>, scraped: Scraped) {
    let Some(scrapers) = scrapers else { return };
    note(&format!(
        "metrics are at http://{}/metrics",
        scrapers.address()
    ));
    let answer = async {
        let answered = scrapers.answer(scraped).await;
        answered.map_err(|error| Failure::Local(format!("no metrics are shown: {error}")))
    };
    let run = move || {
        if let Err(failure) = block_on(answer) {
            note(&failure.to_string());
        }
    };
    if let Err(error) = std::thread::Builder::new()
        .name("metrics".into())
        .spawn(run)
    {
        note(&format!(
            "no metrics are shown: cannot start a thread: {error}"
        ));
    }
}
