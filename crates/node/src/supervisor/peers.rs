//! One task for each connection, which reads frames into the core's queue.

use super::core_loop::{ConnId, From, Input};
use super::links::PeerLinks;
use super::watch::Watch;
use hedge_core::supervisor::NotAdmitted;
use hedge_model::msg::{Ask, FromWorker, Role, Welcome};
use hedge_net::{CloseReason, Incoming, Link, LinkReceiver, LinkSender, Net};
use tokio::sync::mpsc;

/// Passes every peer that connects to the core, which decides whether to admit it.
pub(super) async fn open_acceptor(net: Net, inputs: mpsc::Sender<Input>) {
    while let Some(incoming) = net.accept().await {
        if inputs
            .send(Input::Incoming(Box::new(incoming)))
            .await
            .is_err()
        {
            return;
        }
    }
}

/// Carries out the core's decision on a peer.
pub(super) async fn decide(
    incoming: Incoming,
    refused: Option<NotAdmitted>,
    welcome: Welcome,
    inputs: mpsc::Sender<Input>,
    links: PeerLinks,
) {
    let reason = match refused {
        None => {
            let (peer, role) = (incoming.peer, incoming.hello.role);
            let welcome = postcard::to_stdvec(&welcome).unwrap_or_default();
            if role == Role::Supervisor {
                return links.admit(incoming, welcome);
            }
            if let Ok(link) = incoming.accept(&welcome).await {
                _ = inputs
                    .send(Input::Linked {
                        peer,
                        role,
                        link: Box::new(link),
                    })
                    .await;
            }
            return;
        }
        Some(NotAdmitted::Stranger) => CloseReason::Stranger,
        Some(NotAdmitted::Expired) => CloseReason::Expired,
        Some(NotAdmitted::WrongRole) => CloseReason::WrongRole,
        Some(NotAdmitted::Revoked) => CloseReason::Revoked,
        Some(NotAdmitted::NotLeading) => return incoming.refuse(CloseReason::NotLeader),
        Some(NotAdmitted::Redirected) => return incoming.redirect(&welcome.supervisors).await,
    };
    tracing::info!(peer = %incoming.peer.short(), %reason, "refused a peer");
    incoming.refuse(reason);
}

/// Starts to read a connection, until it closes.
pub(super) fn serve(
    link: Link,
    role: Role,
    conn: ConnId,
    inputs: mpsc::Sender<Input>,
    watch: &Watch,
) -> LinkSender {
    let Link {
        sender,
        receiver,
        heartbeats,
    } = link;
    let peer = sender.peer();
    match role {
        Role::Worker => {
            let way = if sender.is_relayed() {
                "through a relay"
            } else {
                "directly"
            };
            tracing::info!(peer = %peer.short(), "a worker has joined, {way}");
            watch.link(peer, conn, sender.clone(), heartbeats);
            tokio::spawn(read::<FromWorker>(
                receiver,
                sender.clone(),
                (role, conn),
                inputs,
                From::Worker,
            ));
        }
        Role::Client | Role::Admin | Role::Supervisor | Role::Relay => {
            tokio::spawn(read::<Ask>(
                receiver,
                sender.clone(),
                (role, conn),
                inputs,
                From::Client,
            ));
        }
    }
    sender
}

async fn read<T: serde::de::DeserializeOwned>(
    mut receiver: LinkReceiver,
    sender: LinkSender,
    (role, conn): (Role, ConnId),
    inputs: mpsc::Sender<Input>,
    wrap: fn(Vec<T>) -> From,
) {
    let peer = sender.peer();
    while let Ok(batch) = receiver.recv::<T>().await {
        if inputs
            .send(Input::From {
                peer,
                conn,
                from: wrap(batch),
            })
            .await
            .is_err()
        {
            return;
        }
    }
    let reason = sender.closed().await;
    // Clients come and go with every command.
    match role {
        Role::Worker => tracing::info!(peer = %peer.short(), %reason, "a worker is gone"),
        _ => tracing::debug!(peer = %peer.short(), %reason, "connection closed"),
    }
    let silent = sender.fell_silent();
    _ = inputs.send(Input::Gone { peer, conn, silent }).await;
}
