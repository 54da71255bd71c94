//! The supervisor's shell: messages and heartbeats in, assignments and replies out, around the core; and its
//! membership in the group of supervisors, which the journal replicates.

mod acceptor;
mod actions;
mod audit;
mod core_loop;
mod disk;
mod journal_events;
mod links;
mod membership;
mod peers;
mod pending_findings;
mod pending_requests;
mod recording;
mod requests;
mod spec;
mod start;
mod ticket_files;
mod watch;

use crate::client::Client;
use crate::clock::unix_seconds;
use crate::metrics::SupervisorMetrics;
use crate::transport::Threads;
use crate::{Folders, NodeError};
pub(crate) use core_loop::Input;
use core_loop::Standing;
use hedge_model::PeerAddr;
use hedge_model::msg::{Reply, Request, Role};
use hedge_net::{DataStore, Fetcher, Net, TcpPort, Ticket};
use hedge_store::FORMAT_MAX;
pub use hedge_store::Timing;
use links::PeerLinks;
pub(crate) use pending_requests::ReplyTo;
pub use recording::{Recording, Replayed};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;
use ticket_files::TicketContacts;
use tokio::sync::watch::Receiver;
use tokio::sync::{mpsc, oneshot};

/// The configuration of a supervisor.
#[derive(Clone, Debug)]
pub struct SupervisorConfig {
    /// Its directory: identity, journal, blobs, tickets.
    pub dir: PathBuf,
    /// Where it listens. At port 0 it uses its former port, if that is free.
    pub listen: SocketAddr,
    /// Whether it uses mDNS to find other supervisors on the local network and to be found there.
    pub mdns: bool,
    /// Whether its journal is on disk. If not, the grid ends with the process.
    pub durable: bool,
    /// Whether it leaves tickets in its directory for peers on this machine.
    pub write_tickets: bool,
    /// A ticket of the group to join; none founds a grid.
    pub join: Option<Ticket>,
    /// Whether it requests a vote in its group. A standby supervisor gets one only when another is absent.
    pub vote: bool,
    /// Whether it first makes itself the only member of its group, with the data that it has.
    pub recover: bool,
    /// How soon it notices the failure of a leader.
    pub timing: Timing,
    /// The newest record format that it reads and writes: the newest of this version, or less to act like an earlier
    /// version.
    pub format_max: u32,
    /// Records the events and effects of its core, to find the cause of a fault or to check that only the core
    /// decides.
    pub recording: Option<Recording>,
    /// The folder in which peers of this user on this machine meet that hand large blobs over as files.
    pub neighbours: Option<PathBuf>,
    /// What it counts.
    pub metrics: SupervisorMetrics,
}

impl SupervisorConfig {
    /// Returns a configuration with these directories, any free port of every address, and a journal on disk.
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
            neighbours: None,
            metrics: SupervisorMetrics::default(),
        }
    }

    /// Returns a configuration for a grid of one process on this machine, which ends with it.
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
            neighbours: None,
            metrics: SupervisorMetrics::default(),
        }
    }
}

/// A running supervisor; cheap to clone. It ends when [`Supervisor::stop`] is called or when it cannot continue.
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
    /// Returns its id and addresses.
    pub fn addr(&self) -> &PeerAddr {
        &self.addr
    }

    /// A client within this process that may see and change everything.
    pub fn client(&self) -> Client {
        Client::here(self.clone(), Role::Admin)
    }

    /// Makes a ticket for peers of this role that does not expire. Only the leader can make tickets.
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

    /// Reports that a process on this machine which was a worker has ended, so that it is lost at once.
    pub(crate) async fn worker_process_ended(&self, pid: u32) {
        _ = self.inputs.send(Input::WorkerProcessEnded(pid)).await;
    }

    /// Waits until it leads.
    async fn live(&self) -> Result<(), NodeError> {
        let mut standing = self.standing.clone();
        let standing = standing.wait_for(|now| now.live || now.ended.is_some());
        match standing.await {
            Ok(now) if now.ended.is_none() => Ok(()),
            Ok(now) => Err(ended(&now)),
            Err(_) => Err(NodeError::Other("the supervisor has stopped".into())),
        }
    }

    /// Waits until it has ended by itself. Returns why.
    pub async fn ended(&self) -> NodeError {
        let mut standing = self.standing.clone();
        match standing.wait_for(|now| now.ended.is_some()).await {
            Ok(now) => ended(&now),
            Err(_) => NodeError::Other("the supervisor has stopped".into()),
        }
    }

    /// Stops: hands over leadership if there are other supervisors, and closes all connections.
    pub async fn stop(self) {
        self.stop_within(Duration::MAX).await;
    }

    /// Stops where no peer runs any more that the end of a connection could be repeated to.
    pub(crate) async fn stop_alone(self) {
        self.stop_within(Duration::ZERO).await;
    }

    /// The same, and waits no longer than this until peers have heard of it.
    async fn stop_within(self, heard: Duration) {
        let (done, stopped) = oneshot::channel();
        if self.inputs.send(Input::Stop(done)).await.is_ok() {
            _ = stopped.await;
        }
        let net = self.net.clone();
        let closing = async move { tokio::time::timeout(heard, net.close()).await };
        _ = self.transport.run(closing).await;
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

/// Runs a supervisor until `stop` resolves. Calls `started` once it accepts peers.
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

/// Opens the TCP port for tripwires and large blobs: the one with the number of a UDP port, if
/// that is free.
async fn tripwires(
    transport: &Threads,
    listen: SocketAddr,
    net: &Net,
    links: &PeerLinks,
) -> Result<Option<TcpPort>, NodeError> {
    let addr = links.local_addr();
    let port = addr.addrs.first().map_or(0, SocketAddr::port);
    let at = SocketAddr::new(listen.ip(), port);
    let bound = transport.run(TcpPort::bind(at)).await?;
    let told = |error: &std::io::Error| {
        tracing::warn!(%error, "no TCP port for tripwires: a worker that dies is noticed by its gap alone");
    };
    let tripwires = bound.inspect_err(told).ok();
    if let Some(tripwires) = &tripwires {
        net.use_tcp(tripwires.clone());
    }
    links.offer(tripwires.clone());
    Ok(tripwires)
}

/// Returns the text form of a ticket with this secret.
pub(crate) fn ticket_text(
    role: Role,
    contacts: TicketContacts,
    secret: [u8; 16],
    valid_s: Option<u64>,
) -> String {
    let expires_unix_s = valid_s.map(|seconds| unix_seconds().saturating_add(seconds));
    Ticket {
        role,
        supervisors: contacts.supervisors,
        secret,
        expires_unix_s,
        relays: contacts.relays,
    }
    .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_for_longer_than_time_lasts_is_for_ever() {
        let text = ticket_text(
            Role::Client,
            TicketContacts::default(),
            [1; 16],
            Some(u64::MAX),
        );
        let ticket: Ticket = text.parse().unwrap();
        assert_eq!(ticket.expires_unix_s, Some(u64::MAX));
    }
}
