//! Strangers that open connections and stay silent keep nobody out.

mod common;

use common::*;
use hedge_net::CloseReason;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// More than all places for connections that have not authenticated.
const SILENT: usize = 400;

#[tokio::test(flavor = "multi_thread")]
async fn peers_get_in_while_one_address_opens_silent_connections_without_end() {
    let supervisor = net().await;
    let to = supervisor.local_addr();
    let opened = Arc::new(AtomicUsize::new(0));
    let mut flood = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let (to, opened) = (to.clone(), opened.clone());
        flood.spawn(async move {
            let stranger = raw_endpoint().await;
            let mut held = std::collections::VecDeque::new();
            loop {
                // Where it is refused, the next try follows.
                if let Ok(connection) = stranger
                    .connect(raw_addr(&to), hedge_net::ALPN_CONTROL)
                    .await
                {
                    held.push_back(connection);
                    opened.fetch_add(1, Ordering::Relaxed);
                }
                if held.len() > SILENT {
                    held.pop_front();
                }
            }
        });
    }
    within(async {
        while opened.load(Ordering::Relaxed) < SILENT {
            tokio::task::yield_now().await;
        }
        for number in 0..30 {
            let peer = net().await;
            let hello = hello();
            let connecting = peer.connect(&to, &hello);
            let (link, accepted) = tokio::join!(connecting, async {
                supervisor.accept().await.unwrap().accept(b"welcome").await
            });
            let (link, _) = link.unwrap_or_else(|error| panic!("peer {number}: {error}"));
            accepted.unwrap();
            link.sender.close(CloseReason::Done);
        }
    })
    .await;
}
