//! A peer's word that it serves blobs for a client.
//!
//! A client serves its inputs under another identity than its own. Without the word of that identity a client could name
//! any peer, which may hold what the client does not.

use crate::{SecretKey, peer_id, public_key};
use hedge_model::{InputServer, PeerAddr, PeerId};

/// Where a client serves its inputs: at `addr`, under the identity of `key`.
pub fn serve_for(client: PeerId, key: &SecretKey, addr: PeerAddr) -> InputServer {
    let consent = key.sign(&signed_bytes(peer_id(key), client));
    InputServer {
        addr,
        consent: consent.to_bytes().to_vec(),
    }
}

/// Whether the peer at `server` is the client itself, or has consented to serve for it.
pub fn serves_for(client: PeerId, server: &InputServer) -> bool {
    let peer = server.addr.peer;
    if peer == client {
        return true;
    }
    let (Ok(key), Ok(consent)) = (public_key(peer), <[u8; 64]>::try_from(&server.consent[..]))
    else {
        return false;
    };
    let signature = iroh::Signature::from_bytes(&consent);
    key.verify(&signed_bytes(peer, client), &signature).is_ok()
}

fn signed_bytes(server: PeerId, client: PeerId) -> Vec<u8> {
    [&b"hedgerow serves for 1"[..], &server.0, &client.0].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_serves_for_the_client_that_it_signed_for_alone() {
        let (key, other) = (SecretKey::generate(), SecretKey::generate());
        let (client, thief) = (PeerId([1; 32]), PeerId([2; 32]));
        let at = |key: &SecretKey| PeerAddr {
            peer: peer_id(key),
            addrs: Vec::new(),
        };
        let server = serve_for(client, &key, at(&key));
        assert!(serves_for(client, &server));
        assert!(!serves_for(thief, &server));
        // Signed by another than the peer that is named.
        assert!(!serves_for(thief, &serve_for(thief, &other, at(&key))));
        let unsigned = InputServer {
            addr: at(&key),
            consent: Vec::new(),
        };
        assert!(!serves_for(client, &unsigned));
        assert!(serves_for(peer_id(&key), &unsigned));
    }
}
