//! What the transport reads before anything is known of a peer, and what it reads of those it let in.

use hedge_model::group::{FromLeader, ToLeader};
use hedge_model::msg::{Ask, FromWorker};
use hedge_model::{Hash, PeerId};
use hedge_net::{Grant, Hello, Ticket, Trust};

/// One byte says which.
pub fn net(data: &[u8]) {
    let Some((kind, bytes)) = data.split_first() else {
        return;
    };
    match kind % 7 {
        0 => {
            let text = String::from_utf8_lossy(bytes);
            if let Ok(ticket) = text.parse::<Ticket>() {
                assert_eq!(ticket.to_string().parse(), Ok(ticket));
            }
        }
        1 => drop(postcard::from_bytes::<Hello>(bytes)),
        2 => grant(bytes),
        3 => drop(hedge_net::decode::<FromWorker>(bytes)),
        4 => drop(hedge_net::decode::<Ask>(bytes)),
        5 => drop(hedge_net::decode::<FromLeader>(bytes)),
        _ => drop(hedge_net::decode::<ToLeader>(bytes)),
    }
}

fn grant(bytes: &[u8]) {
    let Ok(grant) = postcard::from_bytes::<Grant>(bytes) else {
        return;
    };
    let trust = Trust::new([]);
    let hash = grant.hashes.first().copied().unwrap_or(Hash([0; 32]));
    assert!(
        grant.verify(PeerId([1; 32]), hash, 1, &trust).is_err(),
        "nobody is trusted"
    );
    assert!(grant.verify(grant.reader, hash, 1, &trust).is_err());
}
