//! The supervisor's loop: messages and heartbeats in, assignments and answers out, around the core; and its
//! place in the group of supervisors, which the journal keeps.

mod acceptor;
mod actions;
mod audit;
mod core_loop;
mod disk;
mod invitations;
mod journal_events;
mod links;
mod membership;
mod peers;
mod pending_requests;
mod recording;
mod requests;
mod spec;
mod start;
mod watch;

use crate::clock::unix_seconds;
use crate::transport::Threads;
use crate::{Folders, NodeError};
pub(crate) use core_loop::Input;
use core_loop::Standing;
use hedge_model::PeerAddr;
use hedge_model::msg::{Reply, Request, Role};
use hedge_net::{DataStore, Fetcher, Net, Ticket, Tripwires};
use hedge_store::FORMAT_MAX;
pub use hedge_store::Timing;
use invitations::Standard;
use links::PeerLinks;
pub(crate) use pending_requests::ReplyTo;
pub use recording::{Recording, Replayed};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use tokio::sync::watch::Receiver;
use tokio::sync::{mpsc, oneshot};

/// How to run a supervisor.
#[derive(Clone, Debug)]
pub struct SupervisorConfig {
    /// Its folder: identity, journal, content, tickets.
    pub dir: PathBuf,
    /// Where it listens; at port 0 it takes the port that it had before, where that is free.
    pub listen: SocketAddr,
    /// Whether it can be found on the local network without an address, and looks for others there.
    pub mdns: bool,
    /// Whether its journal lives on disk, in its folder; if not, the grid ends with the process.
    pub durable: bool,
    /// Whether it leaves tickets in its folder for peers on this machine.
    pub write_tickets: bool,
    /// The group to join; a grid of its own is founded without.
    pub join: Option<Ticket>,
    /// Whether it asks for a vote in its group; one that only stands by gets one when another is gone.
    pub vote: bool,
    /// Whether it makes itself the only one of its group first, with what it has.
    pub recover: bool,
    /// How fast the end of a leader is noticed.
    pub timing: Timing,
    /// The newest format of records that it reads and writes: all that this version knows, or less, to be as an
    /// earlier version was.
    pub format_max: u32,
    /// Where it is recorded what its core hears and wants, if anywhere: for who looks for the cause of a fault, or
    /// checks that nothing else decides.
    pub recording: Option<Recording>,
}

impl SupervisorConfig {
    /// In these folders, at any free port of every address, with a journal on disk.
    pub fn new(folders: &Folders) -> Self {
        Self {
            dir: folders.supervisor(),
            listen: SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
            mdns: false,
            durable: true,
            write_tickets: true,
            join: None,
            vote: true,
            recover: false,
            timing: Timing::default(),
            format_max: FORMAT_MAX,
            recording: None,
        }
    }

    /// For a grid of one process on this machine, which ends with it.
    pub fn temporary(dir: PathBuf) -> Self {
        Self {
            dir,
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            mdns: false,
            durable: false,
            write_tickets: false,
            join: None,
            vote: true,
            recover: false,
            timing: Timing::default(),
            format_max: FORMAT_MAX,
            recording: None,
        }
    }
}

/// A running supervisor; cheap to clone. It ends when [`Supervisor::stop`] is called, or cannot go on.
#[derive(Clone, Debug)]
pub struct Supervisor {
    pub(crate) inputs: mpsc::Sender<Input>,
    pub(crate) addr: PeerAddr,
    pub(crate) store: DataStore,
    pub(crate) fetcher: Fetcher,
    standing: Receiver<Standing>,
    net: Net,
    transport: Threads,
    _content: Threads,
}

impl Supervisor {
    /// Who and where it is.
    pub fn addr(&self) -> &PeerAddr {
        &self.addr
    }

    /// A ticket without end for peers of this role; only the supervisor that leads makes them.
    pub async fn ticket(&self, role: Role) -> Result<Ticket, NodeError> {
        let request = Request::Ticket {
            role,
            valid_for: None,
            uses: None,
        };
        let (local, answer) = Input::ask(Role::Admin, request);
        self.input(local).await?;
        match answer.await {
            Ok(Reply::Ticket(text)) => Ok(text.parse()?),
            Ok(Reply::No(refusal)) => Err(NodeError::Other(refusal.why)),
            _ => Err(NodeError::Other("the supervisor has stopped".into())),
        }
    }

    /// A process on this machine that was started as a worker has ended: nobody needs to wait for gap.
    pub(crate) async fn worker_process_ended(&self, pid: u32) {
        _ = self.inputs.send(Input::WorkerProcessEnded(pid)).await;
    }

    /// Waits until it leads and is at work.
    async fn live(&self) -> Result<(), NodeError> {
        let mut standing = self.standing.clone();
        let standing = standing.wait_for(|now| now.live || now.ended.is_some());
        match standing.await {
            Ok(now) if now.ended.is_none() => Ok(()),
            Ok(now) => Err(ended(&now)),
            Err(_) => Err(NodeError::Other("the supervisor has stopped".into())),
        }
    }

    /// Waits until it has ended by itself; says why.
    pub async fn ended(&self) -> NodeError {
        let mut standing = self.standing.clone();
        match standing.wait_for(|now| now.ended.is_some()).await {
            Ok(now) => ended(&now),
            Err(_) => NodeError::Other("the supervisor has stopped".into()),
        }
    }

    /// Closes all connections and ends; hands over the lead first, where there are others.
    pub async fn stop(self) {
        let (done, stopped) = oneshot::channel();
        if self.inputs.send(Input::Stop(done)).await.is_ok() {
            _ = stopped.await;
        }
        let net = self.net.clone();
        _ = self.transport.run(async move { net.close().await }).await;
        self.store.close();
    }

    pub(crate) async fn input(&self, input: Input) -> Result<(), NodeError> {
        self.inputs
            .send(input)
            .await
            .map_err(|_| NodeError::Other("the supervisor has stopped".into()))
    }
}

fn ended(standing: &Standing) -> NodeError {
    match &standing.ended {
        Some(why) => NodeError::Ended(why.clone()),
        None => NodeError::Other("the supervisor has stopped".into()),
    }
}

/// Runs a supervisor until `stop` resolves; `started` is called once it accepts peers.
pub async fn run(
    config: SupervisorConfig,
    started: impl FnOnce(&Supervisor),
    stop: impl Future<Output = ()>,
) -> Result<(), NodeError> {
    let supervisor = Supervisor::start(config).await?;
    started(&supervisor);
    tokio::select! {
        () = stop => {
            supervisor.stop().await;
            Ok(())
        }
        why = supervisor.ended() => {
            supervisor.stop().await;
            Err(why)
        }
    }
}

/// Where workers and other supervisors connect their tripwires: at the port that has a UDP port's number, if that is
/// free.
async fn tripwires(
    transport: &Threads,
    listen: SocketAddr,
    links: &PeerLinks,
) -> Result<Option<Tripwires>, NodeError> {
    let addr = links.local_addr();
    let port = addr.addrs.first().map_or(0, SocketAddr::port);
    let at = SocketAddr::new(listen.ip(), port);
    let bound = transport.run(Tripwires::bind(at)).await?;
    let told = |error: &std::io::Error| {
        tracing::warn!(%error, "no TCP port for tripwires: a worker that dies is noticed by its gap alone");
    };
    let tripwires = bound.inspect_err(told).ok();
    links.offer(tripwires.clone());
    Ok(tripwires)
}

/// The text form of a ticket with this secret.
pub(crate) fn ticket_text(
    role: Role,
    standard: Standard,
    secret: [u8; 16],
    valid_s: Option<u64>,
) -> String {
    let expires_unix_s = valid_s.map(|seconds| unix_seconds().saturating_add(seconds));
    Ticket {
        role,
        supervisors: standard.supervisors,
        secret,
        expires_unix_s,
        relays: standard.relays,
    }
    .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_for_longer_than_time_lasts_is_for_ever() {
        let text = ticket_text(Role::Client, Standard::default(), [1; 16], Some(u64::MAX));
        let ticket: Ticket = text.parse().unwrap();
        assert_eq!(ticket.expires_unix_s, Some(u64::MAX));
    }
}
