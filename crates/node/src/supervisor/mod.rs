//! The supervisor's loop: messages and heartbeats in, assignments and answers out, around the core.

mod askers;
mod core_loop;
mod peers;
mod spec;
mod watch;

use crate::clock::{Clock, unix_seconds};
use crate::folders::{make_private, write_private};
use crate::transport::Threads;
use crate::{Folders, NodeError};
pub(crate) use core_loop::Input;
use core_loop::Loop;
use hedge_model::msg::{Reply, Request, Role};
use hedge_model::{PeerAddr, Time};
use hedge_net::{DataServer, DataStore, Fetcher, Net, NetConfig, SecretKey, Ticket, Trust};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use tokio::sync::{mpsc, oneshot};
use watch::Watch;

/// Batches of messages that wait for the core; senders beyond wait, and the network holds their peers back.
const INPUTS_MAX: usize = 4096;

/// How to run a supervisor.
#[derive(Clone, Debug)]
pub struct SupervisorConfig {
    /// Its folder: identity, content, tickets.
    pub dir: PathBuf,
    /// Where it listens.
    pub listen: SocketAddr,
    /// Whether it leaves tickets in its folder for peers on this machine.
    pub write_tickets: bool,
}

impl SupervisorConfig {
    /// In these folders, at any free port of every address.
    pub fn new(folders: &Folders) -> Self {
        Self {
            dir: folders.supervisor(),
            listen: SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
            write_tickets: true,
        }
    }
}

/// A running supervisor; cheap to clone. It ends when [`Supervisor::stop`] is called.
#[derive(Clone, Debug)]
pub struct Supervisor {
    pub(crate) inputs: mpsc::Sender<Input>,
    pub(crate) addr: PeerAddr,
    pub(crate) store: DataStore,
    pub(crate) fetcher: Fetcher,
    net: Net,
    transport: Threads,
    _content: Threads,
}

impl Supervisor {
    /// Opens the port, begins an epoch and leads.
    pub async fn start(config: SupervisorConfig) -> Result<Self, NodeError> {
        make_private(&config.dir)?;
        let key = hedge_net::load_or_create_identity(&config.dir)?;
        let me = hedge_net::peer_id(&key);
        let (transport, content) = (Threads::transport()?, Threads::content()?);
        let store = DataStore::open(&config.dir.join("content")).await?;
        let server = DataServer::new(store.clone(), Trust::new([me]));
        let net = bind(&transport, &content, &key, config.listen, server.clone()).await?;
        let addr = net.local_addr();
        let (inputs, queue) = mpsc::channel(INPUTS_MAX);
        let fetcher = Fetcher::new(net.clone(), store.clone(), content.handle());
        let clock = Clock::start(Time(0));
        let settings = hedge_core::monitor::Settings::default();
        let watch = Watch::start(settings, clock, inputs.clone(), transport.handle())?;
        let inner = Loop::new(
            key,
            addr.clone(),
            store.clone(),
            fetcher.clone(),
            inputs.clone(),
            (clock, watch),
        );
        tokio::spawn(inner.run(queue));
        transport.spawn(peers::open_door(net.clone(), inputs.clone()));
        let supervisor = Self {
            inputs,
            addr,
            store,
            fetcher,
            net,
            transport,
            _content: content,
        };
        if config.write_tickets {
            for (role, file) in [
                (Role::Admin, "client.ticket"),
                (Role::Worker, "worker.ticket"),
            ] {
                let ticket = supervisor.ticket(role).await?;
                write_private(&config.dir.join(file), &ticket.to_string())?;
            }
        }
        Ok(supervisor)
    }

    /// Who and where it is.
    pub fn addr(&self) -> &PeerAddr {
        &self.addr
    }

    /// A ticket without end for peers of this role.
    pub async fn ticket(&self, role: Role) -> Result<Ticket, NodeError> {
        let (reply, answer) = oneshot::channel();
        let request = Request::Ticket {
            role,
            valid_for: None,
            uses: None,
        };
        self.input(Input::Local { request, reply }).await?;
        match answer.await {
            Ok(Reply::Ticket(text)) => Ok(text.parse()?),
            Ok(Reply::No(refusal)) => Err(NodeError::Other(refusal.why)),
            _ => Err(NodeError::Other("the supervisor has stopped".into())),
        }
    }

    /// A process on this machine that was started as a worker has ended: nobody needs to wait for silence.
    pub(crate) async fn worker_process_ended(&self, pid: u32) {
        _ = self.inputs.send(Input::WorkerProcessEnded(pid)).await;
    }

    /// Closes all connections and ends.
    pub async fn stop(self) {
        let (done, stopped) = oneshot::channel();
        if self.inputs.send(Input::Stop(done)).await.is_ok() {
            _ = stopped.await;
        }
        let net = self.net.clone();
        _ = self.transport.run(async move { net.close().await }).await;
        _ = self.store.close().await;
    }

    pub(crate) async fn input(&self, input: Input) -> Result<(), NodeError> {
        self.inputs
            .send(input)
            .await
            .map_err(|_| NodeError::Other("the supervisor has stopped".into()))
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
    stop.await;
    supervisor.stop().await;
    Ok(())
}

async fn bind(
    transport: &Threads,
    content: &Threads,
    key: &SecretKey,
    listen: SocketAddr,
    server: DataServer,
) -> Result<Net, NodeError> {
    let mut config = NetConfig::new(key.clone(), listen);
    config.data = Some((server, content.handle()));
    Ok(transport.run(Net::bind(config)).await??)
}

/// The text form of a ticket with this secret.
pub(crate) fn ticket_text(
    role: Role,
    addr: &PeerAddr,
    secret: [u8; 16],
    valid_s: Option<u64>,
) -> String {
    let expires_unix_s = valid_s.map(|seconds| unix_seconds() + seconds);
    Ticket {
        role,
        supervisors: vec![addr.clone()],
        secret,
        expires_unix_s,
    }
    .to_string()
}
