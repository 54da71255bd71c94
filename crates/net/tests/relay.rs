//! A relay carries for those whom its gate lets in, and only its own key makes it one.

mod common;

use common::{hello, loopback, within};
use hedge_model::{Hash, PeerAddr, PeerId};
use hedge_net::{AccessCheck, Net, NetConfig, NetError, RelayServer, SecretKey, peer_id};
use std::collections::{HashMap, HashSet};
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::time::Duration;

type Out = Arc<Mutex<HashSet<PeerId>>>;
type Asked = Arc<Mutex<HashMap<PeerId, Option<Hash>>>>;

/// Ports are given out by the system; nothing else takes one again so soon.
fn free_port() -> SocketAddr {
    let listener = TcpListener::bind(loopback()).unwrap();
    listener.local_addr().unwrap()
}

/// A relay that serves all but these, and notes who came with what.
async fn relay(out: &Out) -> (RelayServer, Asked) {
    let asked = Asked::default();
    let (noted, out) = (asked.clone(), out.clone());
    let gate: AccessCheck = Arc::new(move |peer, ticket| {
        noted.lock().unwrap().insert(peer, ticket);
        let out = out.lock().unwrap().contains(&peer);
        Box::pin(async move {
            if out {
                Err("no member".to_owned())
            } else {
                Ok(())
            }
        })
    });
    let key = SecretKey::generate();
    let server = RelayServer::start(&key, free_port(), gate);
    (server.await.unwrap(), asked)
}

async fn net(key: SecretKey, relay: &PeerAddr) -> Net {
    let mut config = NetConfig::new(key, loopback());
    config.relays = vec![relay.clone()];
    config.ticket = Some(Hash([9; 32]));
    Net::bind(config).await.unwrap()
}

/// Whom one reaches without knowing an address.
fn nowhere(peer: PeerId) -> PeerAddr {
    let addrs = Vec::new();
    PeerAddr { peer, addrs }
}

async fn accept_all(net: Net) {
    while let Some(incoming) = net.accept().await {
        tokio::spawn(async move {
            let link = incoming.accept(b"welcome").await.unwrap();
            link.sender.closed().await;
        });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn members_meet_through_the_relay_and_strangers_do_not() {
    let (stranger, member) = (SecretKey::generate(), SecretKey::generate());
    let out = Out::default();
    out.lock().unwrap().insert(peer_id(&stranger));
    let (server, asked) = relay(&out).await;
    let at = server.addr();
    let (a, b) = (
        net(member, &at).await,
        net(SecretKey::generate(), &at).await,
    );
    tokio::spawn(accept_all(b.clone()));
    let link = within(async {
        loop {
            // Not before both have found the relay.
            if let Ok((link, _)) = a.connect(&nowhere(b.peer()), &hello()).await {
                return link;
            }
        }
    })
    .await;
    assert_eq!(link.peer(), b.peer());
    assert!(server.carried_bytes() > 0);
    let shown = asked.lock().unwrap().get(&a.peer()).copied();
    assert_eq!(shown, Some(Some(Hash([9; 32]))));
    let stranger = net(stranger, &at).await;
    let refused = stranger.connect(&nowhere(b.peer()), &hello()).await;
    assert!(
        matches!(refused, Err(NetError::Unreachable { .. })),
        "{refused:?}"
    );
    assert!(asked.lock().unwrap().contains_key(&stranger.peer()));
    let served: Vec<PeerId> = server.connected().iter().map(|one| one.peer).collect();
    assert!(served.contains(&a.peer()) && !served.contains(&stranger.peer()));
    // One that is revoked later is served no more.
    out.lock().unwrap().insert(a.peer());
    server.disconnect(a.peer());
    within(async {
        while server.connected().iter().any(|one| one.peer == a.peer()) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_with_another_key_is_not_believed() {
    let (server, asked) = relay(&Out::default()).await;
    let wrong = PeerAddr {
        peer: peer_id(&SecretKey::generate()),
        addrs: server.addr().addrs,
    };
    let (a, b) = (SecretKey::generate(), SecretKey::generate());
    let (a, b) = (net(a, &wrong).await, net(b, &wrong).await);
    let failed = a.connect(&nowhere(b.peer()), &hello()).await;
    assert!(
        matches!(failed, Err(NetError::Unreachable { .. })),
        "{failed:?}"
    );
    assert!(asked.lock().unwrap().is_empty());
    // Told the right key, it is served.
    a.set_relays(&[server.addr()]).await;
    within(async {
        while !server.connected().iter().any(|one| one.peer == a.peer()) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    server.stop().await;
}
