//! Starts a supervisor: its port, its journal, and its place in the group.

use super::core_loop::{Loop, Setup, Standing};
use super::disk::Disk;
use super::links::PeerLinks;
use super::membership::Changes;
use super::ticket_files::{TicketContacts, TicketFiles};
use super::watch::Watch;
use super::{Supervisor, SupervisorConfig, audit::Audit, membership, peers};
use crate::NodeError;
use crate::clock::Clock;
use crate::folders::{make_private, occupy};
use crate::known::{self, Known, last_port, note_port};
use crate::supervisor::Input;
use crate::transport::Threads;
use hedge_model::group::GroupMember;
use hedge_model::{PeerAddr, Time};
use hedge_net::{
    DataServer, DataStore, Fetcher, Net, NetConfig, NetError, SecretKey, TcpPort, Ticket, Trust,
};
use hedge_store::{Journal, JournalEvent, Options, Place, StoreError};
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use tokio::sync::{mpsc, watch};

/// The most batches of messages that wait for the core. Further senders wait, and their peers get back-pressure.
const INPUTS_MAX: usize = 4096;
/// The most directories of damaged journals that are kept.
const PUT_ASIDE_MAX: u32 = 100;
impl Supervisor {
    /// Opens the port and the journal. A supervisor that is alone in its group leads when this returns. In a larger
    /// group it follows or leads as the group decides.
    pub async fn start(config: SupervisorConfig) -> Result<Self, NodeError> {
        let lock = occupy(&config.dir)?;
        let key = hedge_net::load_or_create_identity(&config.dir)?;
        let me = hedge_net::peer_id(&key);
        let (transport, content) = (Threads::transport()?, Threads::content()?);
        let store = open_store(&config).await?;
        let trust = Trust::new([me]);
        let server = DataServer::new(store.clone(), trust.clone());
        let net = bind(&transport, &content, &key, &config, server).await?;
        let (inputs, queue) = mpsc::channel(INPUTS_MAX);
        let proof = config.join.as_ref().map(|ticket| ticket.secret);
        let links = PeerLinks::new(net.clone(), transport.handle(), inputs.clone(), proof);
        let member = config.member(net.local_addr());
        let known = config.durable.then(|| Known::of_group(&config.dir));
        let group = known_group(&config, known.as_ref(), me);
        let (journal, said) = open_journal(&config, &member, &links, &group).await?;
        links.serve(journal.clone());
        let alone = begin(&config, &journal, &group).await?;
        let fetcher = Fetcher::new(net.clone(), store.clone(), content.handle());
        let clock = Clock::start(Time(0));
        let tripwires = super::tripwires(&transport, config.listen, &net, &links).await?;
        let (standing, stands) = watch::channel(Standing::default());
        let (ticket_contacts, contact_changes) = watch::channel(TicketContacts::default());
        let setup = Setup {
            key,
            addr: member.peer.clone(),
            store: store.clone(),
            fetcher: fetcher.clone(),
            trust,
            inputs: inputs.clone(),
            journal: journal.clone(),
            timing: config.timing,
            me: member.clone(),
            links: links.clone(),
            known,
            audit: audit(&config),
            disk: disk(&config),
            watch: start_watch(&clock, &inputs, &transport, tripwires)?,
            clock,
            standing,
            ticket_contacts,
            recording: config.recording.clone(),
            metrics: config.metrics.clone(),
            _lock: lock,
        };
        let trusted: HashSet<_> = group.iter().map(|addr| addr.peer).collect();
        tokio::spawn(Loop::new(setup, trusted).run(queue, said));
        transport.spawn(peers::open_acceptor(net.clone(), inputs.clone()));
        let supervisor = Self {
            inputs,
            addr: member.peer.clone(),
            store,
            fetcher,
            standing: stands,
            net,
            transport,
            _content: content,
        };
        let ticket_files = TicketFiles::if_enabled(&config, &supervisor, &links, contact_changes);
        if alone {
            supervisor.lead(ticket_files).await?;
        } else {
            supervisor.take_part(config, journal, links, member, &group, ticket_files);
        }
        Ok(supervisor)
    }

    /// Waits until it leads alone, and writes ticket files.
    async fn lead(&self, ticket_files: Option<TicketFiles>) -> Result<(), NodeError> {
        self.live().await?;
        if let Some(mut ticket_files) = ticket_files {
            ticket_files.write().await?;
            tokio::spawn(ticket_files.keep());
        }
        Ok(())
    }

    /// Joins its group and gets its vote, in a task that continues after this returns.
    fn take_part(
        &self,
        config: SupervisorConfig,
        journal: Journal,
        links: PeerLinks,
        member: GroupMember,
        group: &[PeerAddr],
        ticket_files: Option<TicketFiles>,
    ) {
        if !journal.founded() {
            group.iter().for_each(|addr| links.ensure(addr));
        }
        let joined = stay(config, journal, links, member, ticket_files);
        let inputs = self.inputs.clone();
        tokio::spawn(async move {
            if let Err(why) = joined.await {
                _ = inputs.send(Input::Failed(why)).await;
            }
        });
    }
}

async fn open_store(config: &SupervisorConfig) -> Result<DataStore, NodeError> {
    let store = DataStore::open(&config.dir.join("content")).await?;
    if config.durable {
        store.write_early();
    }
    if let Some(peers) = &config.neighbours {
        store.join_neighbours(peers);
    }
    Ok(store)
}

/// Joins its group, gets its vote, and keeps ticket files up to date. An error ends the supervisor.
async fn stay(
    config: SupervisorConfig,
    journal: Journal,
    links: PeerLinks,
    member: GroupMember,
    ticket_files: Option<TicketFiles>,
) -> Result<(), String> {
    let changes = Changes::new(journal);
    let group = membership::join(&changes, &links, &member).await?;
    if config.durable {
        // Saved before it votes, so that it finds its group again even if its journal is lost.
        Known::of_group(&config.dir).save(&group);
    }
    if config.vote {
        membership::get_vote(&changes, &links, &member).await?;
    }
    tracing::info!("a member of the group");
    let Some(mut ticket_files) = ticket_files else {
        return Ok(());
    };
    ticket_files
        .write()
        .await
        .map_err(|error| error.to_string())?;
    ticket_files.keep().await;
    Ok(())
}

fn start_watch(
    clock: &Clock,
    inputs: &mpsc::Sender<Input>,
    transport: &Threads,
    tripwires: Option<TcpPort>,
) -> Result<Watch, NodeError> {
    let settings = hedge_core::monitor::Settings::default();
    let (clock, inputs) = (clock.clone(), inputs.clone());
    Watch::start(settings, clock, inputs, transport.handle(), tripwires)
}

impl SupervisorConfig {
    /// Returns this supervisor as a member of its group.
    fn member(&self, peer: PeerAddr) -> GroupMember {
        let format_max = self.format_max;
        GroupMember { peer, format_max }
    }
}

fn disk(config: &SupervisorConfig) -> Disk {
    match config.durable {
        true => Disk::watch(&config.dir),
        false => Disk::unwatched(),
    }
}

fn audit(config: &SupervisorConfig) -> Audit {
    match config.durable {
        true => Audit::start(&config.dir),
        false => Audit::off(),
    }
}

/// Returns the other supervisors that are known before the journal is open.
fn known_group(
    config: &SupervisorConfig,
    known: Option<&Known>,
    me: hedge_model::PeerId,
) -> Vec<PeerAddr> {
    let mut group = known.map(Known::load).unwrap_or_default();
    if let Some(ticket) = &config.join {
        known::add(&mut group, &ticket.supervisors);
    }
    group.retain(|addr| addr.peer != me);
    group
}

/// Opens the journal. A damaged one is renamed and kept if there is a group to get the log from again.
async fn open_journal(
    config: &SupervisorConfig,
    member: &GroupMember,
    links: &PeerLinks,
    group: &[PeerAddr],
) -> Result<(Journal, mpsc::Receiver<JournalEvent>), NodeError> {
    let folder = config.dir.join("journal");
    let place = if config.durable {
        make_private(&folder)?;
        Place::Disk(folder.clone())
    } else {
        Place::Memory
    };
    if config.recover {
        hedge_store::recover(&folder, member.clone())?;
        tracing::warn!(
            "this supervisor goes on alone; the others of its group have to join it anew"
        );
    }
    let mut options = Options::new(place, member.clone());
    options.timing = config.timing;
    match Journal::open(options.clone(), links.clone()).await {
        Err(error @ StoreError::Damaged { .. }) if !group.is_empty() => {
            let aside = put_aside(&folder)?;
            tracing::error!(
                %error,
                "the damaged journal is kept in {}; the group has it, and this supervisor joins again",
                aside.display()
            );
            make_private(&folder)?;
            Ok(Journal::open(options, links.clone()).await?)
        }
        opened => Ok(opened?),
    }
}

fn put_aside(folder: &Path) -> Result<PathBuf, NodeError> {
    let free = (1..=PUT_ASIDE_MAX)
        .map(|number| folder.with_extension(format!("damaged-{number}")))
        .find(|path| !path.exists());
    let Some(aside) = free else {
        let why = "too many damaged journals are kept in the supervisor's folder; remove some";
        return Err(NodeError::Other(why.into()));
    };
    std::fs::rename(folder, &aside).map_err(|source| NodeError::io("put aside", folder, source))?;
    Ok(aside)
}

/// Founds a grid if there is neither a journal nor a group to join. Returns whether this supervisor is alone in its
/// group.
async fn begin(
    config: &SupervisorConfig,
    journal: &Journal,
    group: &[PeerAddr],
) -> Result<bool, NodeError> {
    if journal.founded() {
        if config.join.is_some() {
            tracing::info!("this supervisor is in a group already; the ticket is not needed");
        }
        let group = journal.group().borrow().clone();
        return Ok(group.seats.len() == 1);
    }
    if group.is_empty() {
        journal.found().await?;
        return Ok(true);
    }
    Ok(false)
}

/// Opens the port. If none is given, it uses the former one, where others look for it.
async fn bind(
    transport: &Threads,
    content: &Threads,
    key: &SecretKey,
    config: &SupervisorConfig,
    server: DataServer,
) -> Result<Net, NodeError> {
    let mut listen = config.listen;
    let last = last_port(&config.dir).filter(|_| config.durable && listen.port() == 0);
    if let Some(port) = last {
        listen.set_port(port);
    }
    let known = config.durable.then(|| Known::of_group(&config.dir));
    let mut relays = known.map(|known| known.load_relays()).unwrap_or_default();
    let invited = config.join.as_ref().map(Ticket::secret_hash);
    if relays.is_empty() {
        relays.extend(config.join.iter().flat_map(|ticket| ticket.relays.clone()));
    }
    let mdns = config.mdns;
    let open = async |listen| {
        let mut config = NetConfig::new(key.clone(), listen);
        config.data = Some((server.clone(), content.handle()));
        config.relays.clone_from(&relays);
        config.ticket = invited;
        config.mdns = mdns;
        transport.run(Net::bind(config)).await
    };
    let net = match open(listen).await? {
        Err(NetError::Bind { why, .. }) if last.is_some() => {
            tracing::warn!(
                "port {} is taken ({why}); another is used, at which others may not find this supervisor",
                listen.port()
            );
            open(config.listen).await??
        }
        opened => opened?,
    };
    if config.durable {
        note_port(&config.dir, &net.local_addr().addrs)?;
    }
    Ok(net)
}
